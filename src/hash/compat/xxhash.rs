//! XXH64 and XXH32 after their [specification]: Envoy, gRPC and HAProxy hash with them.
//!
//! [specification]: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md

const P64: [u64; 5] = [
    0x9E37_79B1_85EB_CA87,
    0xC2B2_AE3D_27D4_EB4F,
    0x1656_67B1_9E37_79F9,
    0x85EB_CA77_C2B2_AE63,
    0x27D4_EB2F_1656_67C5,
];

const P32: [u32; 5] = [
    0x9E37_79B1,
    0x85EB_CA77,
    0xC2B2_AE3D,
    0x27D4_EB2F,
    0x1656_67B1,
];

pub(super) fn xxh64(bytes: &[u8], seed: u64) -> u64 {
    let (stripes, rest) = bytes.as_chunks::<32>();
    let mut hash = if stripes.is_empty() {
        seed.wrapping_add(P64[4])
    } else {
        let mut lanes = [
            seed.wrapping_add(P64[0]).wrapping_add(P64[1]),
            seed.wrapping_add(P64[1]),
            seed,
            seed.wrapping_sub(P64[0]),
        ];
        for stripe in stripes {
            for (lane, word) in lanes.iter_mut().zip(stripe.as_chunks::<8>().0) {
                *lane = round64(*lane, u64::from_le_bytes(*word));
            }
        }
        let turned = |i: usize, by| lanes[i].rotate_left(by);
        let mut hash = turned(0, 1)
            .wrapping_add(turned(1, 7))
            .wrapping_add(turned(2, 12))
            .wrapping_add(turned(3, 18));
        for lane in lanes {
            hash = (hash ^ round64(0, lane))
                .wrapping_mul(P64[0])
                .wrapping_add(P64[3]);
        }
        hash
    }
    .wrapping_add(bytes.len() as u64);

    let (words, rest) = rest.as_chunks::<8>();
    for word in words {
        hash ^= round64(0, u64::from_le_bytes(*word));
        hash = hash
            .rotate_left(27)
            .wrapping_mul(P64[0])
            .wrapping_add(P64[3]);
    }
    let (halves, rest) = rest.as_chunks::<4>();
    for half in halves {
        hash ^= u64::from(u32::from_le_bytes(*half)).wrapping_mul(P64[0]);
        hash = hash
            .rotate_left(23)
            .wrapping_mul(P64[1])
            .wrapping_add(P64[2]);
    }
    for &byte in rest {
        hash ^= u64::from(byte).wrapping_mul(P64[4]);
        hash = hash.rotate_left(11).wrapping_mul(P64[0]);
    }
    hash = (hash ^ hash >> 33).wrapping_mul(P64[1]);
    hash = (hash ^ hash >> 29).wrapping_mul(P64[2]);
    hash ^ hash >> 32
}

fn round64(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(P64[1]))
        .rotate_left(31)
        .wrapping_mul(P64[0])
}

pub(super) fn xxh32(bytes: &[u8], seed: u32) -> u32 {
    let (stripes, rest) = bytes.as_chunks::<16>();
    let mut hash = if stripes.is_empty() {
        seed.wrapping_add(P32[4])
    } else {
        let mut lanes = [
            seed.wrapping_add(P32[0]).wrapping_add(P32[1]),
            seed.wrapping_add(P32[1]),
            seed,
            seed.wrapping_sub(P32[0]),
        ];
        for stripe in stripes {
            for (lane, word) in lanes.iter_mut().zip(stripe.as_chunks::<4>().0) {
                let word = u32::from_le_bytes(*word).wrapping_mul(P32[1]);
                *lane = lane.wrapping_add(word).rotate_left(13).wrapping_mul(P32[0]);
            }
        }
        let turned = |i: usize, by| lanes[i].rotate_left(by);
        turned(0, 1)
            .wrapping_add(turned(1, 7))
            .wrapping_add(turned(2, 12))
            .wrapping_add(turned(3, 18))
    }
    .wrapping_add(bytes.len() as u32);

    let (words, rest) = rest.as_chunks::<4>();
    for word in words {
        hash = hash.wrapping_add(u32::from_le_bytes(*word).wrapping_mul(P32[2]));
        hash = hash.rotate_left(17).wrapping_mul(P32[3]);
    }
    for &byte in rest {
        hash = hash.wrapping_add(u32::from(byte).wrapping_mul(P32[4]));
        hash = hash.rotate_left(11).wrapping_mul(P32[0]);
    }
    hash = (hash ^ hash >> 15).wrapping_mul(P32[1]);
    hash = (hash ^ hash >> 13).wrapping_mul(P32[2]);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sanity buffer of the reference implementation: the top byte of each number.
    fn sanity(len: usize) -> Vec<u8> {
        let mut number = 2_654_435_761_u64;
        (0..len)
            .map(|_| {
                let byte = (number >> 56) as u8;
                number = number.wrapping_mul(11_400_714_785_074_694_797);
                byte
            })
            .collect()
    }

    /// Lengths on both sides of every branch, with both seeds of the reference's own table.
    #[test]
    fn agrees_with_the_reference() {
        let expected = [
            (0, 0, 0xEF46_DB37_51D8_E999, 0x02CC_5D05),
            (0, 2_654_435_761, 0xAC75_FDA2_929B_17EF, 0x36B7_8AE7),
            (1, 0, 0xE934_A84A_DB05_2768, 0xCF65_B03E),
            (1, 2_654_435_761, 0x5014_6076_43A9_B4C3, 0xB454_5AA4),
            (3, 0, 0xFF7E_1959_CB50_794A, 0xC238_84F5),
            (3, 2_654_435_761, 0xAA85_84E8_3660_F7D1, 0x1A26_9947),
            (4, 0, 0x9136_A0DC_A574_57EE, 0xA9DE_7CE9),
            (4, 2_654_435_761, 0xCAAB_286B_D8E9_FDB5, 0x2BAA_FE83),
            (7, 0, 0x6C83_909A_9F01_ED25, 0x5E10_56CD),
            (7, 2_654_435_761, 0xF98D_03B1_AD6F_9293, 0x3ED9_D3FC),
            (8, 0, 0xCDBC_F538_E71D_1348, 0xA3F6_F44B),
            (8, 2_654_435_761, 0xFE0C_047A_5353_CDAC, 0xC2A8_E239),
            (15, 0, 0x1807_1931_6D62_2D84, 0x6B85_9E14),
            (15, 2_654_435_761, 0xD611_05C2_0E91_F99F, 0xAD53_090D),
            (16, 0, 0x98C9_0B57_FDFC_B55C, 0x93BA_3759),
            (16, 2_654_435_761, 0xC900_AD2D_536B_607E, 0xA94F_C1E1),
            (17, 0, 0x0D39_A2D0_51A3_0C2C, 0x89FD_C23E),
            (17, 2_654_435_761, 0x495C_D68A_647C_7A22, 0xC991_0739),
            (31, 0, 0x299B_39A2_90E6_D783, 0x5F40_E562),
            (31, 2_654_435_761, 0xDA67_3D5F_EB5C_1D79, 0x5C0C_3350),
            (32, 0, 0x18B2_1649_2BB4_4B70, 0xD898_29EC),
            (32, 2_654_435_761, 0xB3F3_3BDF_93AD_E409, 0xA5C4_4467),
            (33, 0, 0x55C8_DC3E_578F_5B59, 0x31A4_27E5),
            (33, 2_654_435_761, 0xE92C_292F_64BC_3071, 0x0DE5_B1F9),
            (63, 0, 0xA9EF_BE0F_A0F3_F4E7, 0xF1D4_8FDB),
            (63, 2_654_435_761, 0x6C91_1FAD_B05B_6FC2, 0x956B_3D77),
            (64, 0, 0xEF55_8F8A_CAC2_B5CD, 0x02E9_5DBB),
            (64, 2_654_435_761, 0xB5EE_BA99_264C_C44F, 0xCF82_F830),
            (65, 0, 0xDE0F_20DC_2631_AF7A, 0x1699_2B3D),
            (65, 2_654_435_761, 0xD3F6_FF39_41E3_10CA, 0x428E_EC5F),
            (100, 0, 0x4BFE_019C_D91D_9EA4, 0x96AD_8143),
            (100, 2_654_435_761, 0x4853_706D_C962_5CAE, 0x83D4_8124),
            (222, 0, 0xB641_AE8C_B691_C174, 0x5BD1_1DBD),
            (222, 2_654_435_761, 0x20CB_8AB7_AE10_C14A, 0x5880_3C5F),
        ];
        for (len, seed, long, short) in expected {
            assert_eq!(
                xxh64(&sanity(len), u64::from(seed)),
                long,
                "{len} bytes, seed {seed}"
            );
            assert_eq!(xxh32(&sanity(len), seed), short, "{len} bytes, seed {seed}");
        }
    }

    /// Points that Envoy's `ring_hash_lb_test.cc` writes down.
    #[test]
    fn agrees_with_envoys_tests() {
        assert_eq!(xxh64(b"127.0.0.1:94_1", 0), 833_437_586_790_550_860);
        assert_eq!(xxh64(b"127.0.0.1:92_0", 0), 928_266_305_478_181_108);
        assert_eq!(xxh64(b"95_1", 0), 1_975_508_444_536_362_413);
    }
}

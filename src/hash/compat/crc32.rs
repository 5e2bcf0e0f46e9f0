//! CRC-32 as in Ethernet and gzip (polynomial 0x04C11DB7, reflected), one byte at a time.
//!
//! Points are four bytes behind a common beginning, so the state can be copied halfway.

/// The remainder of each byte, computed when the crate is compiled.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut value = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            value = value >> 1 ^ if value & 1 == 1 { 0xEDB8_8320 } else { 0 };
            bit += 1;
        }
        table[byte] = value;
        byte += 1;
    }
    table
};

/// A checksum under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Crc32(u32);

impl Crc32 {
    pub(super) const fn new() -> Self {
        Self(u32::MAX)
    }

    pub(super) fn with(mut self, bytes: &[u8]) -> Self {
        for &byte in bytes {
            self.0 = self.0 >> 8 ^ TABLE[usize::from(self.0 as u8 ^ byte)];
        }
        self
    }

    pub(super) const fn finish(self) -> u32 {
        !self.0
    }
}

pub(super) fn crc32(bytes: &[u8]) -> u32 {
    Crc32::new().with(bytes).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of the catalogue of parametrised CRC algorithms, and `cksum`-like others
    /// from zlib.
    #[test]
    fn agrees_with_zlib() {
        assert_eq!(crc32(b""), 0);
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32(b"foo"), 2_356_372_769);
        assert_eq!(crc32(b"/index.html"), 3_928_116_034);
        assert_eq!(
            Crc32::new().with(b"12345").with(b"6789").finish(),
            0xCBF4_3926
        );
    }
}

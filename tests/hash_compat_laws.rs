//! What every compatibility table promises, whatever the hosts are.

use proptest::collection::vec;
use proptest::prelude::*;
use waypost::hash::compat::envoy::{EnvoyHash, EnvoyMaglev, EnvoyRing};
use waypost::hash::compat::haproxy::{HaproxyHash, HaproxyHashKey, HaproxyRing, HaproxyServer};
use waypost::hash::compat::ketama::KetamaRing;
use waypost::hash::compat::nginx::NginxRing;
use waypost::hash::{Table, TableError};

type Hosts = Vec<(String, u32)>;
type Build = fn(&Hosts) -> Result<Box<dyn Table>, TableError>;

fn boxed<T: Table + 'static>(built: Result<T, TableError>) -> Result<Box<dyn Table>, TableError> {
    built.map(|table| Box::new(table) as Box<dyn Table>)
}

const TABLES: [(&str, Build); 9] = [
    ("nginx", |hosts| boxed(NginxRing::new(hosts.clone()))),
    ("envoy ring", |hosts| boxed(EnvoyRing::new(hosts.clone()))),
    ("envoy murmur ring, small", |hosts| {
        let builder = EnvoyRing::builder().hash_function(EnvoyHash::Murmur2);
        boxed(
            builder
                .minimum_ring_size(1)
                .maximum_ring_size(500)
                .build(hosts.clone()),
        )
    }),
    ("envoy maglev", |hosts| {
        boxed(EnvoyMaglev::with_table_size(1009, hosts.clone()))
    }),
    ("grpc", |hosts| {
        boxed(
            EnvoyRing::builder()
                .capped_as_in_grpc()
                .build(hosts.clone()),
        )
    }),
    ("haproxy", |hosts| boxed(HaproxyRing::new(hosts.clone()))),
    ("haproxy by address", |hosts| {
        let builder = HaproxyRing::builder().hash_key(HaproxyHashKey::AddrPort);
        boxed(
            builder
                .hash_type(HaproxyHash::Wt6, false)
                .build(hosts.clone()),
        )
    }),
    ("ketama", |hosts| boxed(KetamaRing::new(hosts.clone()))),
    ("libketama", |hosts| {
        boxed(KetamaRing::libketama(hosts.clone()))
    }),
];

/// Different names, as some tables insist on, and weights that include 0.
fn hosts() -> impl Strategy<Value = Hosts> {
    vec((".{0,12}", 0..20_u32), 1..12).prop_map(|hosts| {
        let named = hosts.into_iter().enumerate();
        named
            .map(|(i, (name, weight))| (format!("{name}{i}:80"), weight))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn lookups_and_finds_agree(hosts in hosts(), hashes in vec(any::<u64>(), 20), down in any::<u16>()) {
        for (name, build) in TABLES {
            let table = match build(&hosts) {
                Ok(table) => table,
                Err(error) => {
                    prop_assert_eq!(error, TableError::AllWeightsZero, "{}", name);
                    prop_assert!(hosts.iter().all(|host| host.1 == 0));
                    continue;
                }
            };
            prop_assert_eq!(table.len(), hosts.len());
            for &hash in &hashes {
                let owner = table.lookup(hash).unwrap();
                prop_assert!(hosts[owner as usize].1 > 0, "{}: nothing lands on weight 0", name);
                prop_assert_eq!(table.find(hash, &mut |_| true), Some(owner), "{}", name);
                prop_assert_eq!(table.find(hash, &mut |_| false), None, "{}", name);

                let up = |node: u32| down >> (node % 16) & 1 == 0;
                let found = table.find(hash, &mut |node| up(node));
                prop_assert!(found.is_none_or(up), "{}: what is found was accepted", name);
                if up(owner) {
                    prop_assert_eq!(found, Some(owner), "{}: only keys of what is down move", name);
                }
                let order = table.choices(hash, hosts.len());
                prop_assert_eq!(order[0], owner);
                if let Some(found) = found {
                    let expected = order.iter().copied().find(|&node| up(node));
                    prop_assert_eq!(Some(found), expected, "{}: the first in order", name);
                }
            }
        }
    }

    /// A host without weight is a host that isn't there, but for HAProxy's ids by position.
    #[test]
    fn a_host_without_weight_changes_nothing(hosts in hosts(), at in any::<prop::sample::Index>(), hash in any::<u64>()) {
        prop_assume!(hosts.iter().any(|host| host.1 > 0));
        let at = at.index(hosts.len() + 1);
        let mut more = hosts.clone();
        more.insert(at, ("idle:80".to_owned(), 0));
        for (name, build) in TABLES.iter().filter(|(name, _)| !name.starts_with("haproxy")) {
            let moved = |node: u32| if node as usize >= at { node + 1 } else { node };
            let before = build(&hosts).unwrap().choices(hash, 3);
            let after = build(&more).unwrap().choices(hash, 3);
            prop_assert_eq!(before.into_iter().map(moved).collect::<Vec<_>>(), after, "{}", name);
        }
    }

    /// Keys go to hosts with weight in localities with weight, and nowhere else.
    #[test]
    fn localities_take_or_refuse(
        hosts in hosts(), weights in vec(0..4u32, 3), hashes in vec(any::<u64>(), 20),
    ) {
        let locality = |at: usize| hosts.chunks(4).nth(at).unwrap_or(&[]).to_vec();
        let localities = || (0..3).map(|at| (weights[at], locality(at)));
        let usable = |node: usize| hosts[node].1 > 0 && weights[node / 4] > 0;
        let ring = EnvoyRing::builder().maximum_ring_size(2_000);
        let tables = [
            boxed(ring.build_by_locality(localities())),
            boxed(EnvoyMaglev::by_locality(1009, localities())),
        ];
        for table in tables {
            match table {
                Ok(table) => {
                    prop_assert_eq!(table.len(), hosts.len());
                    for &hash in &hashes {
                        let node = table.lookup(hash);
                        prop_assert!(node.is_some_and(|node| usable(node as usize)));
                        prop_assert_eq!(table.find(hash, &mut |_| true), node);
                    }
                }
                Err(error) => {
                    prop_assert_eq!(error, TableError::AllWeightsZero);
                    prop_assert!(!(0..hosts.len()).any(usable));
                }
            }
        }
    }

    /// Whoever is marked down in HAProxy's tree is as if he weighed nothing.
    #[test]
    fn haproxys_find_is_its_tree_without_those_down(
        weights in vec(0..5_u32, 2..8), down in any::<u8>(), hash in any::<u64>()
    ) {
        let server = |i: usize, weight| HaproxyServer::new(format!("10.0.0.{i}:80")).weight(weight);
        let up = |node: usize| down >> node & 1 == 0;
        let all = weights.iter().enumerate().map(|(i, &weight)| server(i, weight));
        let left = weights.iter().enumerate().map(|(i, &weight)| server(i, if up(i) { weight } else { 0 }));
        if let (Ok(all), Ok(left)) = (HaproxyRing::builder().build(all), HaproxyRing::builder().build(left)) {
            prop_assert_eq!(all.find(hash, &mut |node| up(node as usize)), left.lookup(hash));
        }
    }
}

#[test]
fn bad_input_is_an_error() {
    let named = |hosts: &[(&str, u32)]| -> Hosts {
        hosts
            .iter()
            .map(|&(name, weight)| (name.to_owned(), weight))
            .collect()
    };
    for (name, build) in TABLES {
        assert_eq!(
            build(&named(&[])).err(),
            Some(TableError::NoNodes),
            "{name}"
        );
        let zero = named(&[("a:1", 0), ("b:1", 0)]);
        assert_eq!(
            build(&zero).err(),
            Some(TableError::AllWeightsZero),
            "{name}"
        );
        // Strings that no proxy would take still have points somewhere.
        for odd in ["", ":", "_", "\0", "unix:", "[::1]", "é", ":::::"] {
            let table = build(&named(&[(odd, 1)])).unwrap();
            assert_eq!(table.lookup(0), Some(0), "{name}: {odd:?}");
        }
        let heavy = named(&[("a:1", u32::MAX), ("b:1", u32::MAX), ("c:1", 1)]);
        match build(&heavy) {
            Err(TableError::TooManyPoints { .. } | TableError::TooMuchWeight { .. }) => {}
            Err(other) => panic!("{name}: {other}"),
            Ok(_) => assert!(
                name.ends_with("ketama"),
                "{name} has not as many points whatever the weights"
            ),
        }
    }
}

#[test]
fn two_hosts_of_one_name_are_told_apart_or_refused() {
    let twins = vec![
        ("a:80".to_owned(), 1),
        ("b:80".to_owned(), 1),
        ("a:80".to_owned(), 1),
    ];
    for (name, build) in TABLES {
        match build(&twins) {
            Err(error) => {
                assert!(name.starts_with("envoy") || name == "grpc", "{name}");
                assert_eq!(
                    error,
                    TableError::DuplicateNode {
                        name: "a:80".to_owned()
                    }
                );
            }
            // The second can stand in for the first.
            Ok(table) => {
                let mut hashes = (0..4096).map(|i| i << 20);
                let hash = hashes.find(|&hash| table.lookup(hash) == Some(0)).unwrap();
                assert_eq!(table.find(hash, &mut |node| node == 2), Some(2), "{name}");
            }
        }
    }
}

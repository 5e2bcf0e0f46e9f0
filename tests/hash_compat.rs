//! The compatibility tables against the answers of the real servers in `tests/golden/`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use waypost::hash::compat::envoy::{EnvoyHash, EnvoyMaglev, EnvoyRing};
use waypost::hash::compat::haproxy::{HaproxyHash, HaproxyHashKey, HaproxyRing, HaproxyServer};
use waypost::hash::compat::ketama::KetamaRing;
use waypost::hash::compat::nginx::NginxRing;
use waypost::hash::{Table, TableError};

struct Host {
    name: String,
    weight: u32,
    up: bool,
    extra: String,
}

/// One file: what the real server was set to, and what it answered.
struct Golden {
    kind: String,
    options: BTreeMap<String, String>,
    hosts: Vec<Host>,
    /// Key, and the hosts that were tried.
    answers: Vec<(Vec<u8>, Vec<u32>)>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// `%XX` back to bytes.
fn unquoted(text: &str) -> Vec<u8> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    bytes
}

fn numbers(text: &str) -> Vec<u32> {
    text.split(',')
        .map(|number| number.parse().unwrap())
        .collect()
}

fn read(path: &Path, keys: &[Vec<u8>]) -> Golden {
    let mut golden = Golden {
        kind: String::new(),
        options: BTreeMap::new(),
        hosts: Vec::new(),
        answers: Vec::new(),
    };
    for line in fs::read_to_string(path)
        .unwrap()
        .lines()
        .filter(|line| !line.starts_with('#'))
    {
        let fields: Vec<&str> = line.split('\t').collect();
        match *fields {
            ["table", kind] => kind.clone_into(&mut golden.kind),
            ["option", name, value] => {
                golden.options.insert(name.to_owned(), value.to_owned());
            }
            ["host", name, weight, state, ref extra @ ..] => golden.hosts.push(Host {
                name: String::from_utf8(unquoted(name)).unwrap(),
                weight: weight.parse().unwrap(),
                up: state == "up",
                extra: extra.concat(),
            }),
            ["key", key, chosen] => golden.answers.push((unquoted(key), numbers(chosen))),
            ["picks", first, row] => {
                let first: usize = first.parse().unwrap();
                for (chosen, key) in row.split(' ').zip(&keys[first..]) {
                    if chosen != "-" {
                        golden.answers.push((key.clone(), numbers(chosen)));
                    }
                }
            }
            _ => panic!("{}: cannot read {line:?}", path.display()),
        }
    }
    golden
}

/// Weights, and hosts with theirs.
type Localities<'a> = Vec<(u32, Vec<(&'a str, u32)>)>;

impl Golden {
    fn option(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    fn number(&self, name: &str, default: u64) -> u64 {
        self.option(name)
            .map_or(default, |value| value.parse().unwrap())
    }

    fn hosts(&self) -> impl Iterator<Item = (&str, u32)> {
        self.hosts
            .iter()
            .map(|host| (host.name.as_str(), host.weight))
    }

    /// As a system sees them that builds its table from what is up.
    fn hosts_that_are_up(&self) -> impl Iterator<Item = (&str, u32)> {
        self.hosts
            .iter()
            .map(|host| (host.name.as_str(), if host.up { host.weight } else { 0 }))
    }

    /// The weight of each locality, and its hosts, which say where they are and come in order.
    fn localities(&self) -> Option<Localities<'_>> {
        let weights = self.option("localities")?.split(' ');
        let mut localities: Localities<'_> = weights
            .map(|weight| (weight.parse().unwrap(), Vec::new()))
            .collect();
        for (host, named) in self.hosts.iter().zip(self.hosts_that_are_up()) {
            let at: usize = host.extra.strip_prefix("locality=")?.parse().unwrap();
            assert!(
                localities[at + 1..]
                    .iter()
                    .all(|(_, hosts)| hosts.is_empty())
            );
            localities[at].1.push(named);
        }
        Some(localities)
    }

    fn is_up(&self, node: u32) -> bool {
        self.hosts[node as usize].up
    }
}

/// What a table answers for a key, given how many hosts the real server tried.
type Answer = Box<dyn Fn(&[u8], &[u32]) -> Vec<u32>>;

fn first<T: Table + 'static>(table: T, hash: impl Fn(&T, &[u8]) -> u64 + 'static) -> Answer {
    Box::new(move |key, _| vec![table.lookup(hash(&table, key)).unwrap()])
}

fn in_order<T: Table + 'static>(table: T, hash: impl Fn(&T, &[u8]) -> u64 + 'static) -> Answer {
    Box::new(move |key, tried| table.choices(hash(&table, key), tried.len()))
}

fn answers_of(golden: Golden) -> Result<Answer, TableError> {
    Ok(match golden.kind.as_str() {
        "nginx" => {
            let ring = NginxRing::new(golden.hosts())?;
            Box::new(move |key, answer| {
                let found = ring
                    .find(ring.key_hash(key), &mut |node| golden.is_up(node))
                    .unwrap();
                if golden.hosts.iter().all(|host| host.up) {
                    assert_eq!(ring.lookup_key(key), Some(found));
                }
                // Entries of one string answer alike, so the file names the first of them.
                assert!(answer.len() == 1 && !ring.twins(found).any(|twin| twin < found));
                vec![found]
            })
        }
        "nginx-order" => {
            let ring = NginxRing::new(golden.hosts())?;
            Box::new(move |key, tried| {
                // nginx follows the ring for 21 points and takes turns from there on.
                let mut ours: Vec<u32> = ring.candidates(ring.key_hash(key)).collect();
                assert_eq!(ours, ring.choices(ring.key_hash(key), ours.len()));
                ours.extend(&tried[ours.len()..]);
                ours
            })
        }
        kind @ ("envoy-ring" | "envoy-ring-order" | "grpc-ring") => {
            let mut builder = EnvoyRing::builder()
                .minimum_ring_size(golden.number("minimum", 1024))
                .maximum_ring_size(golden.number("maximum", 8_388_608));
            if golden.option("hash") == Some("murmur2") {
                builder = builder.hash_function(EnvoyHash::Murmur2);
            }
            if kind == "grpc-ring" {
                builder = builder.capped_as_in_grpc();
            }
            let ring = match golden.localities() {
                Some(localities) => builder.build_by_locality(localities)?,
                None => builder.build(golden.hosts_that_are_up())?,
            };
            match kind {
                "envoy-ring-order" => in_order(ring, EnvoyRing::key_hash),
                _ => first(ring, EnvoyRing::key_hash),
            }
        }
        kind @ ("envoy-maglev" | "envoy-maglev-order") => {
            let size = golden.number("table_size", 65_537);
            let table = match golden.localities() {
                Some(localities) => EnvoyMaglev::by_locality(size, localities)?,
                None => EnvoyMaglev::with_table_size(size, golden.hosts_that_are_up())?,
            };
            match kind {
                "envoy-maglev-order" => in_order(table, EnvoyMaglev::key_hash),
                _ => first(table, EnvoyMaglev::key_hash),
            }
        }
        kind @ ("haproxy" | "haproxy-header" | "haproxy-source" | "haproxy-redispatch") => {
            let kind = kind.to_owned();
            let ring = haproxy(&golden)?;
            Box::new(move |key, tried| {
                let up = &mut |node| golden.is_up(node);
                let hash = match kind.as_str() {
                    "haproxy-source" => {
                        ring.source_hash(str::from_utf8(key).unwrap().parse().unwrap())
                    }
                    "haproxy-header" => ring.header_hash(key).unwrap(),
                    _ => ring.key_hash(key),
                };
                let mut ours = vec![ring.find(hash, up).unwrap()];
                while ours.len() < tried.len() {
                    ours.push(ring.redispatch(hash, ours[ours.len() - 1], up).unwrap());
                }
                ours
            })
        }
        "ketama" => first(KetamaRing::new(golden.hosts())?, KetamaRing::key_hash),
        "libketama" => first(KetamaRing::libketama(golden.hosts())?, KetamaRing::key_hash),
        other => panic!("no such table: {other}"),
    })
}

fn haproxy(golden: &Golden) -> Result<HaproxyRing, TableError> {
    let mut builder = HaproxyRing::builder();
    let avalanche = golden.option("avalanche") == Some("yes");
    builder = match golden.option("function") {
        None => builder,
        Some("source") => {
            builder.hash_type(HaproxyHash::Sdbm, golden.option("avalanche") != Some("no"))
        }
        Some("sdbm") => builder.hash_type(HaproxyHash::Sdbm, avalanche),
        Some("djb2") => builder.hash_type(HaproxyHash::Djb2, avalanche),
        Some("wt6") => builder.hash_type(HaproxyHash::Wt6, avalanche),
        Some("crc32") => builder.hash_type(HaproxyHash::Crc32, avalanche),
        Some(other) => panic!("no such function: {other}"),
    };
    builder = builder.hash_key(match golden.option("hash_key") {
        None => HaproxyHashKey::Id,
        Some("id-hashed-twice") => HaproxyHashKey::IdHashedTwice,
        Some("addr") => HaproxyHashKey::Addr,
        Some("addr-port") => HaproxyHashKey::AddrPort,
        Some(other) => panic!("no such hash key: {other}"),
    });
    builder.build(golden.hosts.iter().map(|host| {
        let id = host
            .extra
            .strip_prefix("id=")
            .map_or(0, |id| id.parse().unwrap());
        HaproxyServer::new(&host.name).weight(host.weight).id(id)
    }))
}

/// Asks every key of every file of one system, and fails with the first key that differs.
fn agree_with(system: &str, at_least: usize) {
    let keys = fs::read_to_string(folder().join("keys.txt")).unwrap();
    let keys: Vec<Vec<u8>> = keys.lines().map(unquoted).collect();
    let mut files: Vec<PathBuf> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(system)
        })
        .collect();
    files.sort();
    assert!(
        files.len() >= at_least,
        "only {} files for {system}",
        files.len()
    );
    for path in files {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut golden = read(&path, &keys);
        let answers = std::mem::take(&mut golden.answers);
        assert!(
            answers.len() >= 50,
            "{name} has only {} keys",
            answers.len()
        );
        let count = answers.len();
        let ours = answers_of(golden).unwrap_or_else(|error| panic!("{name}: {error}"));
        for (key, theirs) in answers {
            let key_shown = String::from_utf8_lossy(&key);
            assert_eq!(
                ours(&key, &theirs),
                theirs,
                "{name}: key {key_shown:?} differs"
            );
        }
        println!("{name}: {count} of {count} keys agree");
    }
}

#[test]
fn nginx() {
    agree_with("nginx-", 13);
}

#[test]
fn envoy_ring() {
    agree_with("envoy-ring-", 21);
}

#[test]
fn envoy_murmur() {
    agree_with("envoy-murmur-", 5);
}

#[test]
fn envoy_maglev() {
    agree_with("envoy-maglev-", 20);
}

#[test]
fn haproxy_consistent() {
    agree_with("haproxy-", 37);
}

#[test]
fn grpc_ring_hash() {
    agree_with("grpc-", 4);
}

#[test]
fn libmemcached_ketama() {
    agree_with("ketama-", 11);
}

#[test]
fn original_libketama() {
    agree_with("libketama-", 10);
}

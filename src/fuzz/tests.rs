//! Every target on mutants of its seeds.

use std::fs;
use std::path::Path;

use super::mutate::mutate;
use super::{TARGETS, run};
use crate::rng::Rng;

/// All targets together take some ten seconds.
const MUTANTS: u32 = 10_000;

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(name);
    let found =
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = found.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn on_mutants(name: &str) {
    let seeds = seeds(name);
    for seed in &seeds {
        assert!(
            run(name, seed),
            "{name}: what a real server said is taken: {}",
            shown(seed)
        );
    }
    let mut rng = Rng::seeded(1);
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..MUTANTS {
        let mut pick = || &seeds[rng.below(seeds.len() as u32) as usize];
        let (mut mutant, other) = (pick().clone(), pick());
        for _ in 0..=rng.below(3) {
            mutate(&mut mutant, other, &mut rng);
        }
        // Seen only when it fails.
        println!("{name}: {}", shown(&mutant));
        if run(name, &mutant) {
            taken += 1;
        } else {
            refused += 1;
        }
    }
    let few = MUTANTS / 100;
    assert!(
        taken > few && refused > few,
        "{name}: {taken} taken, {refused} refused"
    );
}

fn shown(data: &[u8]) -> String {
    data.escape_ascii().to_string()
}

/// One test each, so that they run side by side and fail by name.
macro_rules! on_mutants {
    ($($name:ident)*) => {
        const TESTED: &[&str] = &[$(stringify!($name)),*];

        $(#[test]
        fn $name() {
            on_mutants(stringify!($name));
        })*
    };
}

on_mutants! {
    address config consul curator etcd_answer etcd_value eureka file load_header load_protobuf
    snapshot spiffe zookeeper_wire
}

#[test]
fn none_is_left_out() {
    let targets: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(targets, TESTED);
}

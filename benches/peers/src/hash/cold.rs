//! The first ring of a process, whose memory the system has yet to give.

use std::hint::black_box;
use std::process::Command;
use std::time::Instant;

use waypost::hash::HashRing;

use crate::keys::names;
use crate::targets::Targets;

/// A million points, at 160 each.
const NODES: usize = 6_250;
const PROCESSES: usize = 15;

/// Builds the ring, and prints the microseconds that it took.
pub(crate) fn build() {
    let names = names(NODES);
    let start = Instant::now();
    let ring = HashRing::new(names.iter().map(|name| (name, 1))).expect("good nodes");
    let took = start.elapsed();
    black_box(ring);
    println!("{}", took.as_micros());
}

/// Runs [`build`] in processes of their own, one after another.
pub(crate) fn run(targets: &mut Targets) {
    let program = std::env::current_exe().expect("a program that runs has a file");
    let millis = |_| {
        let output = Command::new(&program)
            .arg("cold")
            .output()
            .expect("it runs once more");
        let micros: f64 = String::from_utf8_lossy(&output.stdout)
            .trim()
            .parse()
            .expect("microseconds");
        micros / 1e3
    };
    let mut times: Vec<f64> = (0..PROCESSES).map(millis).collect();
    times.sort_by(f64::total_cmp);
    let (least, median, most) = (times[0], times[PROCESSES / 2], times[PROCESSES - 1]);
    println!(
        "first ring of a process, a million points: {least:.1} to {most:.1} ms, median {median:.1}"
    );
    targets.at_most("a million points cold, ms, median", median, 15.0);
}

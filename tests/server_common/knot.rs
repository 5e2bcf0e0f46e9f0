//! Knot DNS, whose zone can be changed while it is served.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use tempfile::NamedTempFile;

use super::{Launch, Server};

pub(crate) struct Knot {
    pub(crate) server: Server,
    pub(crate) zone: Zone,
}

/// The zone `waypost.test`.
#[derive(Clone)]
pub(crate) struct Zone {
    knotc: PathBuf,
    records: Arc<NamedTempFile>,
}

impl Knot {
    pub(crate) async fn start(records: &str) -> Option<Self> {
        let launch = Launch::of("knot")?;
        let file = NamedTempFile::new().unwrap();
        let path = file.path().display().to_string();
        fs::write(&file, records).unwrap();
        let server = launch.var("RECORDS", path).start().await;
        let zone = Zone {
            knotc: server.dir().join("knotc"),
            records: Arc::new(file),
        };
        Some(Self { server, zone })
    }

    pub(crate) fn at(&self) -> SocketAddr {
        self.server.address().parse().unwrap()
    }
}

impl Zone {
    /// What is served after a restart.
    pub(crate) fn rewrite(&self, records: &str) {
        fs::write(&*self.records, records).unwrap();
    }

    /// Changes it while it is served: each line is a `knotc` command without
    /// the zone's name.
    pub(crate) fn change(&self, lines: &[&str]) {
        let run = |words: &[&str]| {
            let done = Command::new(&self.knotc).args(words).output().unwrap();
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{words:?}: {said}");
        };
        run(&["zone-begin", "waypost.test"]);
        for line in lines {
            let mut words: Vec<&str> = line.split(' ').collect();
            words.insert(1, "waypost.test");
            run(&words);
        }
        run(&["zone-commit", "waypost.test"]);
    }
}

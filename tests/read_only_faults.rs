//! What comes of sources that can only be read, a file and DNS, when they fail,
//! hang, lie or go back in time: what the registries are put through.

mod client_common;
mod registry_common;
mod server_common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use registry_common::{Entries, Written, no_call_is_lost};
use server_common::Knot;
use tempfile::TempDir;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use waypost::registry::{Dns, File};
use waypost::testing::{self, Fault, Faults};
use waypost::{Endpoint, ServiceName};

const PATIENCE: Duration = Duration::from_secs(20);

/// The state of some time ago: the first of each two entries.
fn older(entries: &Entries) -> Entries {
    let mut older = entries.clone();
    for endpoints in older.values_mut() {
        let kept = endpoints.len().div_ceil(2);
        while endpoints.len() > kept {
            endpoints.pop_last();
        }
    }
    older
}

fn document(entries: &Entries) -> String {
    let lists = entries.iter().map(|(service, endpoints)| {
        let list: Vec<&Endpoint> = endpoints.values().collect();
        (service, list)
    });
    let services: BTreeMap<_, _> = lists.collect();
    serde_json::json!({ "services": services }).to_string()
}

/// The file's writer, who may write nonsense, and whoever else has the folder.
struct Editor {
    folder: TempDir,
    registry: Written<File>,
}

impl Editor {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = Self::path(folder.path());
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, document(&Entries::new())).unwrap();
        let registry = Written::new(File::open(&path).unwrap(), move |entries, _, _, _| {
            replace(&path, &document(entries));
        });
        Self { folder, registry }
    }

    fn path(folder: &Path) -> PathBuf {
        folder.join("etc/endpoints.json")
    }

    fn write(&self, content: &str) {
        replace(&Self::path(self.folder.path()), content);
    }

    fn swap(&self, from: &str, to: &str) {
        let at = |name| self.folder.path().join(name);
        fs::rename(at(from), at(to)).unwrap();
    }
}

fn replace(path: &Path, content: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, content).unwrap();
    fs::rename(&beside, path).unwrap();
}

impl Faults for Editor {
    fn hurt(&mut self, fault: Fault) -> BoxFuture<'_, bool> {
        let entries = self.registry.entries();
        match fault {
            Fault::Cut => self.swap("etc/endpoints.json", "etc/endpoints.away"),
            Fault::Restart => self.swap("etc", "unmounted"),
            // A writer that died in the middle.
            Fault::Garbage => {
                let whole = document(&entries);
                self.write(&whole[..whole.len() / 2]);
            }
            Fault::BackOlder => self.write(&document(&older(&entries))),
            Fault::BackEmpty => self.write(&document(&Entries::new())),
            // It has no connections, no index that is waited on, and no sessions.
            _ => return async { false }.boxed(),
        }
        async { true }.boxed()
    }

    fn heal(&mut self, fault: Fault) -> BoxFuture<'_, ()> {
        match fault {
            Fault::Cut => self.swap("etc/endpoints.away", "etc/endpoints.json"),
            Fault::Restart => self.swap("unmounted", "etc"),
            _ => self.write(&document(&self.registry.entries())),
        }
        async {}.boxed()
    }
}

const OF_A_FILE: [Fault; 5] = [
    Fault::Cut,
    Fault::Restart,
    Fault::Garbage,
    Fault::BackOlder,
    Fault::BackEmpty,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_file_keeps_the_laws_of_chaos() {
    let editor = Editor::start();
    let tried = testing::chaos(editor.registry.clone(), editor, PATIENCE).await;
    assert_eq!(tried, OF_A_FILE);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_lost_whatever_happens_to_a_file() {
    let editor = Editor::start();
    let registry = editor.registry.clone();
    assert_eq!(no_call_is_lost(&registry, editor).await, OF_A_FILE);
}

/// A name server, and who keeps its zone.
struct Keeper {
    knot: Knot,
    registry: Written<Dns>,
    /// Answers in the server's place.
    liar: Option<JoinHandle<()>>,
}

/// A record as zone files and `knotc` have it; `fill` is where a time to live may
/// stand.
fn record(service: &ServiceName, endpoint: &Endpoint, fill: &str) -> String {
    let port = endpoint.address().as_str().rsplit(':').next().unwrap();
    format!("_{service}._tcp {fill}SRV 0 1 {port} lo")
}

fn records(entries: &Entries) -> String {
    let mut records = "lo A 127.0.0.1\n".to_owned();
    for (service, endpoints) in entries {
        for endpoint in endpoints.values() {
            writeln!(records, "{}", record(service, endpoint, "")).unwrap();
        }
    }
    records
}

impl Keeper {
    async fn start() -> Option<Self> {
        let knot = Knot::start(&records(&Entries::new())).await?;
        let quick = Duration::from_millis(50);
        let dns = Dns::srv("_{service}._tcp.waypost.test")
            .servers([knot.at()])
            .timeout(Duration::from_millis(300))
            .refresh(quick, quick * 2)
            .build()
            .unwrap();
        let zone = knot.zone.clone();
        let registry = Written::new(dns, move |entries, service, was, is| {
            zone.rewrite(&records(entries));
            let gone = was.map(|was| format!("zone-unset {}", record(service, was, "")));
            let come = is.map(|is| format!("zone-set {}", record(service, is, "1 ")));
            let lines: Vec<&str> = gone.iter().chain(&come).map(String::as_str).collect();
            zone.change(&lines);
        });
        Some(Self {
            knot,
            registry,
            liar: None,
        })
    }

    /// Kills it, and starts it with other records.
    async fn restart_with(&mut self, entries: &Entries) {
        self.knot.server.forget();
        self.knot.zone.rewrite(&records(entries));
        self.knot.server.restart().await;
    }
}

impl Faults for Keeper {
    fn hurt(&mut self, fault: Fault) -> BoxFuture<'_, bool> {
        async move {
            let entries = self.registry.entries();
            match fault {
                Fault::Cut | Fault::Restart => self.knot.server.kill(),
                Fault::HalfOpen => self.knot.server.pause().await,
                Fault::Garbage => {
                    self.knot.server.kill();
                    let socket = UdpSocket::bind(self.knot.at()).await.unwrap();
                    self.liar = Some(tokio::spawn(async move {
                        let mut question = [0; 512];
                        while let Ok((_, from)) = socket.recv_from(&mut question).await {
                            // Who asked may be gone by now.
                            drop(socket.send_to(&[0xff; 64], from).await);
                        }
                    }));
                }
                Fault::BackOlder => self.restart_with(&older(&entries)).await,
                Fault::BackEmpty => self.restart_with(&Entries::new()).await,
                // Nobody waits on its serial number, and it has no sessions.
                _ => return false,
            }
            true
        }
        .boxed()
    }

    fn heal(&mut self, fault: Fault) -> BoxFuture<'_, ()> {
        async move {
            if let Some(liar) = self.liar.take() {
                liar.abort();
                // That it was aborted.
                drop(liar.await);
            }
            match fault {
                Fault::HalfOpen => self.knot.server.resume(),
                _ => self.restart_with(&self.registry.entries()).await,
            }
        }
        .boxed()
    }
}

const OF_DNS: [Fault; 6] = [
    Fault::Cut,
    Fault::HalfOpen,
    Fault::Restart,
    Fault::Garbage,
    Fault::BackOlder,
    Fault::BackEmpty,
];

#[tokio::test(flavor = "multi_thread")]
async fn dns_keeps_the_laws_of_chaos() {
    let Some(keeper) = Keeper::start().await else {
        return;
    };
    let tried = testing::chaos(keeper.registry.clone(), keeper, PATIENCE).await;
    assert_eq!(tried, OF_DNS);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_lost_whatever_happens_to_dns() {
    let Some(keeper) = Keeper::start().await else {
        return;
    };
    let registry = keeper.registry.clone();
    assert_eq!(no_call_is_lost(&registry, keeper).await, OF_DNS);
}

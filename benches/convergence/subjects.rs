//! The registries that are measured.

use std::fs;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use waypost::registry::{Consul, Dns, Etcd, Eureka, File, ZooKeeper};
use waypost::{Discover, Endpoint, Error, InMemory, Registration, Registry, ServiceName};

use super::Subject;
use super::eureka_server::EurekaServer;
use super::server_common::{Launch, Server};

fn users() -> ServiceName {
    "users".parse().expect("it is a name")
}

fn endpoint(port: u16) -> Endpoint {
    let endpoint = Endpoint::builder(format!("10.0.0.1:{port}")).id("one");
    endpoint.build().expect("it is an endpoint")
}

pub(super) struct Memory {
    registry: InMemory,
    held: Option<Registration>,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            registry: InMemory::new(),
            held: None,
        }
    }
}

impl Subject for Memory {
    const NAME: &'static str = "in memory";
    const BOUND: &'static str = "a task's wake-up";
    const ROUNDS: u16 = 2_000;

    fn source(&self) -> impl Discover {
        self.registry.clone()
    }

    async fn change(&mut self, port: u16) {
        let service = users();
        let registering = self.registry.register(&service, endpoint(port));
        // The one before is replaced by its id.
        self.held = Some(registering.await.expect("it takes all"));
    }
}

pub(super) struct InFile {
    folder: TempDir,
}

impl InFile {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().expect("there is room");
        Self { folder }
    }
}

impl Subject for InFile {
    const NAME: &'static str = "file, replaced by a rename";
    const BOUND: &'static str = "10 ms without a further change";
    const ROUNDS: u16 = 200;

    fn source(&self) -> impl Discover {
        File::open(self.folder.path().join("users.json")).expect("its ending tells the format")
    }

    async fn change(&mut self, port: u16) {
        let at = |name| self.folder.path().join(name);
        let content = format!(
            r#"{{"services": {{"users": [{{"id": "one", "address": "10.0.0.1:{port}"}}]}}}}"#
        );
        fs::write(at("new"), content).expect("it can be written");
        fs::rename(at("new"), at("users.json")).expect("it can be renamed");
    }
}

pub(super) struct InDns {
    server: Server,
}

impl InDns {
    pub(super) async fn start() -> Option<Self> {
        let server = Launch::of("knot")?.start().await;
        Some(Self { server })
    }

    fn knotc(&self, words: &[&str]) {
        let knotc = self.server.dir().join("knotc");
        let status = Command::new(knotc).args(words).output();
        assert!(
            status.expect("knotc is there").status.success(),
            "{words:?}"
        );
    }
}

impl Subject for InDns {
    const NAME: &'static str = "DNS, SRV with a TTL of 0";
    const BOUND: &'static str = "its refresh, 1 s by default";
    const ROUNDS: u16 = 20;

    fn source(&self) -> impl Discover {
        let at = self.server.address().parse().expect("it is an address");
        Dns::srv("{service}.waypost.test")
            .servers([at])
            .refresh(Duration::from_secs(1), Duration::from_secs(1))
            .build()
            .expect("the settings make sense")
    }

    async fn change(&mut self, port: u16) {
        let zone = "waypost.test";
        let srv = format!("0 0 {port} one.waypost.test.");
        self.knotc(&["zone-begin", zone]);
        if port == 1_000 {
            self.knotc(&["zone-set", zone, "one", "0", "A", "10.0.0.1"]);
        } else {
            self.knotc(&["zone-unset", zone, "users", "SRV"]);
        }
        self.knotc(&["zone-set", zone, "users", "0", "SRV", &srv]);
        self.knotc(&["zone-commit", zone]);
    }
}

/// A registry on a real server: one handle writes, and another one reads.
pub(super) struct Served<R> {
    _server: Server,
    writer: R,
    reader: R,
    held: Option<Registration>,
}

/// What differs between them.
pub(super) trait Backend: Registry + Clone {
    const NAME: &'static str;
    const BOUND: &'static str;
    const ROUNDS: u16;
    /// Before a change, for what follows no faster.
    const PAUSE: Duration = Duration::ZERO;
    /// The server's name in `tests/servers`.
    const SERVER: &'static str;

    fn at(server: &Server) -> Result<Self, Error>;
}

impl<R: Backend> Served<R> {
    pub(super) async fn start() -> Option<Self> {
        let server = Launch::of(R::SERVER)?.start().await;
        Some(Self {
            writer: R::at(&server).expect("the settings are right"),
            reader: R::at(&server).expect("the settings are right"),
            _server: server,
            held: None,
        })
    }
}

impl<R: Backend> Subject for Served<R> {
    const NAME: &'static str = R::NAME;
    const BOUND: &'static str = R::BOUND;
    const ROUNDS: u16 = R::ROUNDS;

    fn source(&self) -> impl Discover {
        self.reader.clone()
    }

    async fn change(&mut self, port: u16) {
        tokio::time::sleep(R::PAUSE).await;
        let service = users();
        let registering = self.writer.register(&service, endpoint(port));
        self.held = Some(registering.await.expect("the server takes it"));
    }
}

impl Backend for Consul {
    const NAME: &'static str = "Consul";
    const BOUND: &'static str = "a blocking query";
    const ROUNDS: u16 = 100;
    /// Slower than the five answers a second that a watch follows without
    /// waiting, of which there may be two for a change.
    const PAUSE: Duration = Duration::from_millis(400);
    const SERVER: &'static str = "consul";

    fn at(server: &Server) -> Result<Self, Error> {
        Self::builder(format!("http://{}", server.address())).build()
    }
}

impl Backend for Etcd {
    const NAME: &'static str = "etcd";
    const BOUND: &'static str = "a watch";
    const ROUNDS: u16 = 200;
    const SERVER: &'static str = "etcd";

    fn at(server: &Server) -> Result<Self, Error> {
        Self::builder(format!("http://{}", server.address())).build()
    }
}

impl Backend for ZooKeeper {
    const NAME: &'static str = "ZooKeeper";
    const BOUND: &'static str = "an event, and a request for what changed";
    const ROUNDS: u16 = 200;
    const SERVER: &'static str = "zookeeper";

    fn at(server: &Server) -> Result<Self, Error> {
        Self::builder(server.address()).build()
    }
}

pub(super) struct InEureka {
    _server: EurekaServer,
    writer: Eureka,
    reader: Eureka,
    held: Option<Registration>,
}

impl InEureka {
    pub(super) async fn start() -> Self {
        let server = EurekaServer::start().await;
        let build = || {
            Eureka::builder(server.url())
                .fetch_interval(Duration::from_millis(200))
                .build()
        };
        Self {
            writer: build().expect("the settings are right"),
            reader: build().expect("the settings are right"),
            _server: server,
            held: None,
        }
    }
}

impl Subject for InEureka {
    const NAME: &'static str = "Eureka (a stand-in)";
    const BOUND: &'static str = "the fetch interval, 200 ms here";
    const ROUNDS: u16 = 50;

    fn source(&self) -> impl Discover {
        self.reader.clone()
    }

    async fn change(&mut self, port: u16) {
        let service = users();
        let registering = self.writer.register(&service, endpoint(port));
        self.held = Some(registering.await.expect("the server takes it"));
    }
}

//! Real servers as children of the tests: found where `tests/servers/install.sh`
//! unpacked them, started on free loopback ports with a folder of their own,
//! killed, paused and restarted at will, and gone when the test is.
//!
//! A test begins with `let Some(launch) = Launch::of("consul") else { return };`:
//! where the server is not there, that prints one line, or fails the test if
//! `WAYPOST_REQUIRE_SERVERS=1` asks for it.

#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "each test file uses its part"
)]

mod clusters;
mod knot;
mod probe;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use waypost::rng::Rng;

pub(crate) use clusters::{consul_cluster, etcd_cluster, on_both_etcds, zookeeper_cluster};
pub(crate) use knot::Knot;
pub(crate) use probe::{Ready, http_get};

/// How long a server may take to be ready: ten times what it takes on a quiet
/// machine of two cores.
const START: Duration = Duration::from_mins(1);
/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(20);

/// A server that is about to be started.
#[derive(Clone)]
pub(crate) struct Launch {
    /// The folder it was unpacked into.
    server: &'static str,
    /// The script in `tests/servers`, without its ending.
    script: &'static str,
    vars: Vec<(&'static str, String)>,
    ready: Ready,
}

impl Launch {
    /// A server of that name (`consul`, `etcd`, `etcd34`, `zookeeper`, `knot`)
    /// on free ports; none, said in one line, when it is not there.
    pub(crate) fn of(server: &'static str) -> Option<Self> {
        let (script, ports, ready): (_, &[&'static str], _) = match server {
            "consul" => (
                "consul",
                &["PORT", "DNS_PORT", "RPC_PORT", "SERF_PORT", "WAN_PORT"],
                Ready::Http("/v1/status/leader", ":"),
            ),
            "etcd" | "etcd34" => (
                "etcd",
                &["PORT", "PEER_PORT"],
                Ready::Http("/health", "\"true\""),
            ),
            "zookeeper" => ("zookeeper", &["PORT"], Ready::Line("srvr", "Mode: ")),
            "knot" => ("knot", &["PORT"], Ready::Soa("waypost.test")),
            other => panic!("the harness knows no server `{other}`"),
        };
        found(server)
            .then(|| Self {
                server,
                script,
                vars: ports
                    .iter()
                    .map(|&name| (name, free_port().to_string()))
                    .collect(),
                ready,
            })
            .map(|launch| match server {
                "etcd34" => launch.var("ETCD", "etcd34"),
                _ => launch,
            })
    }

    /// Sets a variable of the server's script (its head names them).
    pub(crate) fn var(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.vars.retain(|(set, _)| *set != name);
        self.vars.push((name, value.into()));
        self
    }

    /// What a variable is set to.
    pub(crate) fn get(&self, name: &str) -> &str {
        let found = self.vars.iter().find(|(set, _)| *set == name);
        &found
            .unwrap_or_else(|| panic!("{}: {name} is not set", self.server))
            .1
    }

    /// Another sign of being ready than the server's usual one.
    pub(crate) fn ready(mut self, ready: Ready) -> Self {
        self.ready = ready;
        self
    }

    /// Starts it, and does not wait.
    pub(crate) fn spawn(self) -> Server {
        let dir = tempfile::Builder::new().prefix("waypost-").tempdir();
        let mut server = Server {
            launch: self,
            dir: dir.expect("there is room for a temporary folder"),
            child: None,
        };
        server.start();
        server
    }

    /// Starts it, and returns when it is ready.
    pub(crate) async fn start(self) -> Server {
        let mut server = self.spawn();
        server.wait().await;
        server
    }
}

/// Whether a server is unpacked; says so when it is not.
///
/// # Panics
///
/// When it is not, and `WAYPOST_REQUIRE_SERVERS=1`.
pub(crate) fn found(server: &str) -> bool {
    if servers_dir().join(server).join(".installed").exists() {
        return true;
    }
    let line = format!("SKIPPED: {server} not found (tests/servers/install.sh {server})");
    assert!(
        std::env::var("WAYPOST_REQUIRE_SERVERS").map_or(true, |value| value != "1"),
        "{line}"
    );
    // Not `eprintln!`: the test runner would keep that to itself.
    writeln!(std::io::stderr(), "{line}").expect("stderr can be written");
    false
}

/// Where `install.sh` unpacks (`tests/servers/lib.sh` says the same).
pub(crate) fn servers_dir() -> PathBuf {
    let var = |name| std::env::var_os(name).map(PathBuf::from);
    var("SERVERS_DIR").unwrap_or_else(|| {
        var("XDG_CACHE_HOME")
            .or_else(|| Some(var("HOME")?.join(".cache")))
            .expect("HOME is set")
            .join("waypost-servers")
    })
}

/// The folder of the servers' scripts.
pub(crate) fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers")
}

/// A private authority with a certificate for a server on loopback and one for
/// a client: `ca.pem`, `server.pem`, `server.key`, `client.pem`, `client.key`.
pub(crate) fn certificates() -> TempDir {
    let dir = tempfile::tempdir().expect("there is room for a temporary folder");
    let made = Command::new(scripts().join("tls.sh"))
        .env("DIR", dir.path())
        .output()
        .expect("bash is there");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "tls.sh (needs openssl): {said}");
    dir
}

/// A port that nobody listens on, and that no other test of this process got.
///
/// Below the range that the kernel takes outgoing connections' ports from, so
/// that a server which is restarted finds its port free.
pub(crate) fn free_port() -> u16 {
    static TAKEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut taken = TAKEN.lock().expect("no test panics with the ports in hand");
    let taken = taken.get_or_insert_default();
    let mut rng = Rng::from_entropy();
    loop {
        let port = 12_000 + rng.below(20_000) as u16;
        let free = TcpListener::bind(("127.0.0.1", port)).is_ok()
            && UdpSocket::bind(("127.0.0.1", port)).is_ok();
        if free && taken.insert(port) {
            return port;
        }
    }
}

/// A server that runs, or ran. Dropping it kills it.
pub(crate) struct Server {
    launch: Launch,
    dir: TempDir,
    child: Option<Child>,
}

impl Server {
    /// The port that clients talk to.
    pub(crate) fn port(&self) -> u16 {
        self.var_port("PORT")
    }

    /// The port in a variable of its script.
    pub(crate) fn var_port(&self, name: &str) -> u16 {
        let port = self.launch.get(name);
        port.parse().expect("the variable holds a port")
    }

    /// `127.0.0.1:port`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// Its folder.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A command on one of the programs that were unpacked with it, such as
    /// `usr/bin/etcdctl`.
    pub(crate) fn program(&self, path: &str) -> Command {
        let root = servers_dir().join(self.launch.server);
        let mut command = Command::new(root.join(path));
        let lib = format!("{}-linux-gnu", std::env::consts::ARCH);
        let libs = ["usr/lib", "lib"].map(|at| root.join(at).join(&lib).display().to_string());
        command.env("LD_LIBRARY_PATH", libs.join(":"));
        command
    }

    /// Its script with arguments, where that takes some: `zookeeper.sh` runs its
    /// own client on them.
    pub(crate) fn script(&self, words: &[&str]) -> Command {
        let mut command = Command::new("bash");
        command
            .arg(scripts().join(format!("{}.sh", self.launch.script)))
            .args(words)
            .envs(self.launch.vars.iter().map(|(name, value)| (name, value)))
            .env("DIR", self.dir())
            .env("SERVERS_DIR", servers_dir());
        command
    }

    /// What it answers to ZooKeeper's four-letter commands.
    pub(crate) async fn four_letters(&self, ask: &str) -> String {
        probe::exchange(self.port(), ask).await.expect("it answers")
    }

    /// Kills it, as a crash would, and returns when its ports are free.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself, which is as good.
            drop(child.kill());
            child.wait().expect("a child can be waited for");
        }
    }

    /// Stops it in its tracks: connections stay open, nothing is answered.
    pub(crate) async fn pause(&self) {
        self.signal("STOP");
        // A thread that is at work stops a little later.
        let stat = format!("/proc/{}/stat", self.id());
        let deadline = Instant::now() + START;
        loop {
            let stat = fs::read_to_string(&stat).expect("a child has a stat");
            let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            if state.starts_with('T') {
                return;
            }
            assert!(Instant::now() < deadline, "a paused server stops");
            sleep(LOOK).await;
        }
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    /// Sends a signal by name, such as `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.id().to_string();
        let sent = Command::new("bash")
            .args(["-c", "kill -s \"$0\" \"$1\"", name, &id])
            .status();
        assert!(sent.expect("bash is there").success(), "kill -s {name}");
    }

    fn id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Starts it again on the same ports and the same data, and returns when it
    /// is ready.
    pub(crate) async fn restart(&mut self) {
        self.start();
        self.wait().await;
    }

    /// Kills it and takes its data away: what starts next knows nothing.
    pub(crate) fn forget(&mut self) {
        self.kill();
        for entry in fs::read_dir(self.dir()).expect("its folder is there") {
            let path = entry.expect("its folder can be read").path();
            if path.is_dir() {
                fs::remove_dir_all(path).expect("it can be removed");
            } else {
                fs::remove_file(path).expect("it can be removed");
            }
        }
    }

    /// Starts it, and does not wait.
    pub(crate) fn start(&mut self) {
        self.kill();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .expect("its folder can be written");
        let script = scripts().join(format!("{}.sh", self.launch.script));
        let mut command = ends_with_its_parent();
        command
            .arg(script)
            .envs(self.launch.vars.iter().map(|(name, value)| (name, value)))
            .env("DIR", self.dir())
            .env("SERVERS_DIR", servers_dir())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log);
        let child = command.spawn();
        self.child = Some(child.expect("bash is there"));
    }

    /// Returns when it is ready.
    ///
    /// # Panics
    ///
    /// When it ended, or took too long; with the end of what it said.
    pub(crate) async fn wait(&mut self) {
        let deadline = Instant::now() + START;
        while !self.launch.ready.probe(self.port()).await {
            let child = self.child.as_mut().expect("it was started");
            let ended = child.try_wait().expect("a child can be asked");
            let late = Instant::now() > deadline;
            if ended.is_some() || late {
                let mut what = format!("{} is not ready (", self.launch.server);
                match ended {
                    Some(status) => write!(what, "it ended: {status}"),
                    None => write!(what, "{START:?} are over"),
                }
                .expect("a string can be written");
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(15).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                panic!("{what}); it said:\n{}", tail.join("\n"));
            }
            sleep(LOOK).await;
        }
    }

    fn log(&self) -> PathBuf {
        self.dir().join("server.log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A command whose process the kernel kills when the thread that started it is
/// gone, so that a test that is killed leaves nothing behind; where util-linux
/// is missing, only tests that end by themselves do.
fn ends_with_its_parent() -> Command {
    let setpriv = ["/usr/bin/setpriv", "/bin/setpriv"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    match setpriv {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "bash"]);
            command
        }
        None => Command::new("bash"),
    }
}

/// Polls until `test` is true.
///
/// # Panics
///
/// When that takes longer than `within`; the message says what was waited for.
pub(crate) async fn until(what: &str, within: Duration, mut test: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !test().await {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        sleep(LOOK).await;
    }
}

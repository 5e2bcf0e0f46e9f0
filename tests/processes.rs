//! Promises G1 and G2 end to end: servers that are processes of their own and
//! register in a real Consul, and a client that never stops calling.
//!
//! Every server is replaced while calls go on, then the registry is gone for two
//! minutes, in which a server dies, then it is back. No call may be lost.
//!
//! A program of its own instead of a `#[test]`, since it is its servers, too:
//! `processes serve CONSUL_PORT ID`.

mod server_common;

use std::error::Error;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use server_common::{Launch, until};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tower::{Layer as _, ServiceExt as _};
use waypost::client::http::BalanceLayer;
use waypost::registry::consul::Consul;
use waypost::resilience::Retry;
use waypost::server::Lifecycle;
use waypost::{Balancer, Endpoint, ServiceName};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const SERVERS: usize = 4;
const CALLERS: usize = 8;
const OUTAGE: Duration = Duration::from_mins(2);
const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("serve") => serve(&args[2], &args[3]).await,
        Some("--list") => Ok(()),
        _ => no_call_is_lost().await,
    }
}

fn users() -> ServiceName {
    "users".parse().expect("it is a name")
}

fn consul(port: &str) -> Result<Consul> {
    Ok(Consul::builder(format!("http://127.0.0.1:{port}")).build()?)
}

// ---- a server ------------------------------------------------------------------

/// Registers, serves until SIGTERM, leaves as `Lifecycle` has it.
async fn serve(consul_port: &str, id: &str) -> Result<()> {
    let mut told_to_end = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = Endpoint::builder(listener.local_addr()?).id(id).build()?;
    let lifecycle = Lifecycle::new().convergence(Duration::from_secs(1));
    let serving = lifecycle
        .register(&consul(consul_port)?, &users(), endpoint)
        .await?;
    let name = id.to_owned();
    let router = axum::Router::new().route("/", axum::routing::get(|| async { name }));
    let server = axum::serve(listener, router).with_graceful_shutdown(serving.stopping());
    let server = tokio::spawn(server.into_future());
    println!("serving");
    std::io::stdout().flush()?;
    told_to_end.recv().await;
    let goodbye = serving.shutdown().await;
    server.await??;
    if goodbye.is_clean() {
        Ok(())
    } else {
        Err(format!("it did not leave cleanly: {goodbye:?}").into())
    }
}

/// A server's process; killed when dropped.
struct Process {
    id: String,
    child: Child,
}

impl Process {
    /// Returns when it serves and is registered.
    fn start(consul_port: u16, number: usize) -> Result<Self> {
        let id = format!("server-{number}");
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", &consul_port.to_string(), &id])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut said = String::new();
        let out = child.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut said)?;
        let process = Self { id, child };
        (said == "serving\n")
            .then_some(process)
            .ok_or_else(|| format!("a server said {said:?}").into())
    }

    /// SIGTERM, and its end awaited.
    fn stop(mut self) -> Result<()> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        let status = self.child.wait()?;
        (status.success())
            .then_some(())
            .ok_or_else(|| format!("{} ended with {status}", self.id).into())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

// ---- the client ----------------------------------------------------------------

/// Callers that call all the time.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    /// The rest of a caller between two calls, in milliseconds.
    rest: Arc<AtomicU64>,
    callers: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(users: &Balancer) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        // So that a call which a dying server breaks off is sent again.
        let layer = BalanceLayer::new(users.clone()).retry(Retry::default());
        let client = layer.layer(client);
        let (stop, answered, rest) = (Arc::default(), Arc::default(), Arc::default());
        let caller = |_| {
            let client = client.clone();
            let stop: Arc<AtomicBool> = Arc::clone(&stop);
            let answered: Arc<AtomicU64> = Arc::clone(&answered);
            let rest: Arc<AtomicU64> = Arc::clone(&rest);
            tokio::spawn(async move {
                let mut lost = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let request = Request::get("http://users/").body(Full::default());
                    let request = request.expect("the parts are well-formed");
                    let answer = async {
                        let answer = client.clone().oneshot(request).await?;
                        let status = answer.status();
                        answer.into_body().collect().await?;
                        Ok::<_, Box<dyn Error + Send + Sync>>(status)
                    };
                    match answer.await {
                        Ok(StatusCode::OK) => {
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        other => lost.push(format!("{other:?}")),
                    }
                    let rest = rest.load(Ordering::Relaxed);
                    if rest > 0 {
                        tokio::time::sleep(Duration::from_millis(rest)).await;
                    }
                }
                lost
            })
        };
        Self {
            callers: (0..CALLERS).map(caller).collect(),
            stop,
            answered,
            rest,
        }
    }

    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    async fn goes_on(&self, what: &str) {
        let from = self.answered();
        until(what, PATIENCE, async || self.answered() > from + 100).await;
    }

    async fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let lost = join_all(self.callers).await;
        lost.into_iter()
            .flat_map(|lost| lost.expect("no caller panics"))
            .collect()
    }
}

/// The ids that picks are made from.
fn picked(users: &Balancer) -> Vec<String> {
    let endpoints = users.explain().endpoints;
    let picked = endpoints
        .into_iter()
        .filter(waypost::balancer::Verdict::is_picked);
    picked.map(|it| it.id).collect()
}

async fn is_known(users: &Balancer, servers: &[Process]) {
    let mut ids: Vec<&str> = servers.iter().map(|it| it.id.as_str()).collect();
    ids.sort_unstable();
    until("all servers are known", PATIENCE, async || {
        picked(users) == ids
    })
    .await;
}

async fn no_call_is_lost() -> Result<()> {
    let Some(launch) = Launch::of("consul") else {
        return Ok(());
    };
    let mut registry = launch.start().await;
    let port = registry.port();
    let mut next = 0..;
    let start = |next: &mut std::ops::RangeFrom<usize>| {
        Process::start(port, next.next().expect("it never ends"))
    };
    let mut servers = Vec::new();
    for _ in 0..SERVERS {
        servers.push(start(&mut next)?);
    }
    let users = Balancer::builder("users")
        .build(consul(&port.to_string())?)
        .await?;
    is_known(&users, &servers).await;
    let load = Load::start(&users);
    load.goes_on("calls are answered").await;

    // G2, twice: the new one first, then the old one goes.
    let begun = Instant::now();
    for _ in 0..2 * SERVERS {
        servers.push(start(&mut next)?);
        let old = servers.remove(0);
        tokio::task::spawn_blocking(move || old.stop()).await??;
    }
    is_known(&users, &servers).await;
    let restarts = (load.answered(), begun.elapsed());

    // G1: the registry dies, and then a server that nobody can tell of.
    load.rest.store(5, Ordering::Relaxed);
    registry.kill();
    load.goes_on("calls go on without a registry").await;
    drop(servers.remove(0));
    tokio::time::sleep(OUTAGE).await;
    load.goes_on("calls go on after two minutes without one")
        .await;
    let outage = load.answered() - restarts.0;
    registry.restart().await;
    is_known(&users, &servers).await;
    load.goes_on("calls go on").await;

    let lost = load.end().await;
    println!(
        "{} servers replaced under {} calls in {:.1} s, {outage} calls while the registry was \
         gone for {} s: {} lost",
        2 * SERVERS,
        restarts.0,
        restarts.1.as_secs_f64(),
        OUTAGE.as_secs(),
        lost.len(),
    );
    match lost.first() {
        None => Ok(()),
        Some(first) => Err(format!("{} calls lost, the first: {first}", lost.len()).into()),
    }
}

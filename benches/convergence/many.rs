//! 10,000 instances of one service: what the first set and one change cost.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use waypost::registry::{Consul, Etcd};
use waypost::{Balancer, Discover, ServiceName};

use super::PATIENCE;
use super::server_common::{Launch, Server, http_get};

const MANY: usize = 10_000;
const CHANGES: usize = 20;

pub(super) async fn in_consul() {
    let Some(launch) = Launch::of("consul") else {
        return;
    };
    // A server, as in production: one in `-dev` pretty-prints, to twice as much.
    let server = launch.var("EXPECT", "1").start().await;
    let mut agent = Agent::connect(server.port()).await;
    for i in 0..MANY {
        agent.register(i, 1).await;
    }
    let path = "/v1/health/service/many";
    loop {
        let (_, text) = http_get(server.port(), path).await.expect("it answers");
        if text.matches("\"Checks\"").count() == MANY {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let begun = Instant::now();
    let (_, text) = http_get(server.port(), path).await.expect("it answers");
    let alone = begun.elapsed();

    let registry = Consul::builder(format!("http://{}", server.address())).build();
    let registry = registry.expect("the settings are right");
    let seen = read(registry, async |i, weight| agent.register(i, weight).await).await;
    tell("Consul", text.len(), alone, &seen);
}

pub(super) async fn in_etcd() {
    let Some(launch) = Launch::of("etcd") else {
        return;
    };
    let server = launch.start().await;
    // A transaction holds 128 at most.
    for from in (0..MANY).step_by(100) {
        let mut puts = String::new();
        for i in from..from + 100 {
            puts += &put_in_etcd(i, 1);
        }
        etcdctl(&server, &["txn"], &format!("\n{puts}\n\n"));
    }
    let begun = Instant::now();
    let all = etcdctl(&server, &["get", "--prefix", "many/"], "");
    let alone = begun.elapsed();

    let registry = Etcd::builder(format!("http://{}", server.address())).build();
    let registry = registry.expect("the settings are right");
    let change = async |i, weight| {
        let put = format!("\n{}\n\n", put_in_etcd(i, weight));
        etcdctl(&server, &["txn"], &put);
    };
    let seen = read(registry, change).await;
    tell("etcd (its answer by etcdctl)", all.len(), alone, &seen);
}

fn put_in_etcd(i: usize, weight: u32) -> String {
    let (a, b) = (i / 250, i % 250);
    let value = format!(
        r#"{{"Op":0,"Addr":"10.0.{a}.{b}:80","Metadata":{{"waypost":{{"weight":{weight}}}}}}}"#
    );
    // In quotes, as etcdctl reads them.
    format!("put many/many-{i} {value:?}\n")
}

fn etcdctl(server: &Server, words: &[&str], input: &str) -> String {
    let mut child = server
        .program("usr/bin/etcdctl")
        .args(["--endpoints", &server.address()])
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("etcdctl was unpacked");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "etcdctl {words:?}");
    String::from_utf8(output.stdout).expect("etcdctl speaks UTF-8")
}

struct Seen {
    /// The time to it.
    first_set: Duration,
    /// What one change costs of our CPU.
    change: Duration,
    /// And with a balancer that reads it.
    with_balancer: Duration,
}

async fn read(registry: impl Discover, mut change: impl AsyncFnMut(usize, u32)) -> Seen {
    let service: ServiceName = "many".parse().expect("it is a name");
    let begun = Instant::now();
    let mut sets = registry.watch(&service);
    let first = sets.next().await.expect("no end").expect("it answers");
    let first_set = begun.elapsed();
    assert_eq!(first.len(), MANY);
    let mut next = async || drop(sets.next().await.expect("no end").expect("it answers"));
    let cost = cost_of(async |i| change(i, 2).await, &mut next).await;
    drop(sets);

    let balancer = Balancer::builder("many").build(registry).await;
    let balancer = balancer.expect("the service has a name");
    balancer.ready(PATIENCE).await.expect("it answers");
    let mut told = balancer.subscribe();
    let mut before = balancer.current();
    let mut next = async || {
        while balancer.current() == before {
            told.next().await.expect("the balancer lives");
        }
        before = balancer.current();
    };
    let with_balancer = cost_of(async |i| change(i, 3).await, &mut next).await;
    Seen {
        first_set,
        change: cost,
        with_balancer,
    }
}

async fn cost_of(mut change: impl AsyncFnMut(usize), next: &mut impl AsyncFnMut()) -> Duration {
    let mut cost = Duration::ZERO;
    for i in 0..CHANGES {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let before = own_cpu();
        change(i * 400).await;
        next().await;
        cost += own_cpu().saturating_sub(before);
    }
    cost / CHANGES as u32
}

fn tell(what: &str, bytes: usize, alone: Duration, seen: &Seen) {
    let Seen {
        first_set,
        change,
        with_balancer,
    } = seen;
    println!(
        "{what}, {MANY} instances ({:.1} MB): the server's own answer {alone:.0?}, our first set \
         {first_set:.0?}; one change {change:.1?} of our CPU, {with_balancer:.1?} with a balancer",
        bytes as f64 / 1e6,
    );
}

/// User and system time of this process' threads.
fn own_cpu() -> Duration {
    let threads = fs::read_dir("/proc/self/task").expect("Linux tells it");
    let nanoseconds = threads.map(|thread| {
        let path = thread.expect("it can be read").path().join("schedstat");
        // A thread may have ended since.
        let stat = fs::read_to_string(path).unwrap_or_default();
        let on_a_core = stat
            .split(' ')
            .next()
            .and_then(|field| field.parse::<u64>().ok());
        on_a_core.unwrap_or_default()
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// One connection to an agent that is kept for all requests.
struct Agent(TcpStream);

impl Agent {
    async fn connect(port: u16) -> Self {
        Self(
            TcpStream::connect(("127.0.0.1", port))
                .await
                .expect("it listens"),
        )
    }

    async fn register(&mut self, i: usize, weight: u32) {
        let body = format!(
            r#"{{"Name":"many","ID":"many-{i}","Address":"10.0.{}.{}","Port":80,"Weights":{{"Passing":{weight},"Warning":1}}}}"#,
            i / 250,
            i % 250
        );
        let mut ask = String::new();
        let length = body.len();
        write!(ask, "PUT /v1/agent/service/register HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
            .expect("a string can be written");
        self.0.write_all(ask.as_bytes()).await.expect("it takes it");
        let mut answer = Vec::new();
        let mut buffer = [0; 1024];
        while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
            let n = self.0.read(&mut buffer).await.expect("it answers");
            assert!(n > 0, "the agent hung up");
            answer.extend_from_slice(&buffer[..n]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "it is taken");
    }
}

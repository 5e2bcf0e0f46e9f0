//! 10,000 instances of one service: what the first set and one change cost.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use waypost::registry::Consul;
use waypost::{Discover as _, ServiceName};

use super::server_common::{Launch, http_get};

const MANY: usize = 10_000;
const CHANGES: usize = 20;

pub(super) async fn in_consul() {
    let Some(launch) = Launch::of("consul") else {
        return;
    };
    let server = launch.start().await;
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
    let service: ServiceName = "many".parse().expect("it is a name");
    let begun = Instant::now();
    let mut sets = registry.expect("the settings are right").watch(&service);
    let first = sets.next().await.expect("no end").expect("it answers");
    let took = begun.elapsed();
    assert_eq!(first.len(), MANY);

    let mut cost = Duration::ZERO;
    for i in 0..CHANGES {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let before = own_cpu();
        agent.register(i * 400, 2).await;
        sets.next().await.expect("no end").expect("it answers");
        cost += own_cpu().saturating_sub(before);
    }
    println!(
        "Consul, {MANY} instances ({:.1} MB): the server's own answer {alone:.0?}, our first set \
         {took:.0?}; one change {:.1?} of our CPU",
        text.len() as f64 / 1e6,
        cost / CHANGES as u32,
    );
}

/// User and system time of this process, in the kernel's ticks of 10 ms: the
/// mean of many changes is finer.
fn own_cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux tells it");
    let (_, rest) = stat.rsplit_once(") ").expect("the name is in brackets");
    let ticks = rest.split(' ').skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
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

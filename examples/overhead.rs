//! What the client path costs over the bare client, on loopback and in one run:
//! HTTP/1 with connections kept alive, to four servers, with all defaults.
//!
//! The two share their connections, and the bare client calls the servers in the
//! order in which the balanced one was sent to them, so that the way of a call is
//! all that differs. They take turns, a few milliseconds each, and are compared
//! turn by turn, as a machine is never the same for long. Clients and servers share
//! a thread, so that a call is nothing but work.
//!
//! `cargo run --release --example overhead`. It ends with 1 when the cost is
//! beyond the goal: 3 % of throughput and 5 µs at the median.

mod common;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Result, Server};
use http::Uri;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{Layer as _, Service, ServiceExt as _};
use waypost::client::http::BalanceLayer;
use waypost::resilience::Retry;
use waypost::{Balancer, Fixed};

const SERVERS: [&str; 4] = ["0", "1", "2", "3"];
const ROUNDS: usize = 1_500;
const CALLS: usize = 100;

/// Calls each of these, one after the other; how long each took, and who answered.
async fn measure<S, A>(client: &S, uris: impl Iterator<Item = Uri>) -> Result<Turn>
where
    S: Service<http::Request<Full<Bytes>>, Response = http::Response<A>> + Clone,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    A: hyper::body::Body<Data = Bytes> + Unpin,
    A::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let request = |uri| http::Request::get(uri).body(Full::default());
    let requests = uris.map(request).collect::<Result<Vec<_>, _>>()?;
    let mut answers = Vec::with_capacity(CALLS);
    let mut took = Vec::with_capacity(CALLS);
    let mut began = Instant::now();
    for request in requests {
        let answer = client.clone().oneshot(request).await.map_err(Into::into)?;
        let body = answer.into_body().collect().await.map_err(Into::into)?;
        answers.push(body.to_bytes());
        let ended = Instant::now();
        took.push(ended - began);
        began = ended;
    }
    let whose = |name: &Bytes| SERVERS.iter().position(|server| server.as_bytes() == name);
    Ok(Turn {
        took,
        servers: answers.iter().filter_map(whose).collect(),
    })
}

struct Turn {
    took: Vec<Duration>,
    servers: VecDeque<usize>,
}

impl Turn {
    fn whole(&self) -> f64 {
        self.took.iter().sum::<Duration>().as_secs_f64()
    }
}

/// One of those that are compared with the bare client.
#[derive(Default)]
struct Compared {
    took: Vec<Duration>,
    /// The share of the throughput that each round lost, in per cent.
    lost: Vec<f64>,
}

impl Compared {
    fn add(&mut self, turn: Turn, bare: &Turn) {
        self.lost.push((1.0 - bare.whole() / turn.whole()) * 100.0);
        self.took.extend(turn.took);
    }

    /// The median of what was lost, and between what it is with 95 % certainty: of n
    /// rounds, those √n to either side of the middle.
    fn lost(&mut self) -> [f64; 3] {
        self.lost.sort_unstable_by(f64::total_cmp);
        let (middle, aside) = (
            self.lost.len() / 2,
            (self.lost.len() as f64).sqrt() as usize,
        );
        [middle - aside, middle, middle + aside].map(|at| self.lost[at])
    }
}

/// In microseconds.
fn percentile(took: &mut [Duration], share: f64) -> f64 {
    took.sort_unstable();
    took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut servers = Vec::new();
    for name in SERVERS {
        servers.push(Server::start(name).await?);
    }
    let addresses: Vec<_> = servers
        .iter()
        .map(|here| here.address.to_string())
        .collect();
    let users = Balancer::builder("users")
        .build(Fixed::addresses(addresses.iter().map(String::as_str))?)
        .await?;
    let bare = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let layer = BalanceLayer::new(users);
    let once = layer.clone().layer(bare.clone());
    let retrying = layer.retry(Retry::default()).layer(bare.clone());

    let parse = |address: &String| format!("http://{address}/v1/me").parse();
    let direct = addresses
        .iter()
        .map(parse)
        .collect::<Result<Vec<Uri>, _>>()?;
    let same = |servers: VecDeque<usize>| servers.into_iter().map(|server| direct[server].clone());
    let logical: Uri = "http://users/v1/me".parse()?;
    let balanced = || std::iter::repeat_n(logical.clone(), CALLS);
    let order = (0..CALLS).map(|call| call % SERVERS.len()).collect();
    let mut order = measure(&bare, same(order)).await?.servers;

    let mut without = Vec::new();
    let (mut with_retries, mut sent_once) = (Compared::default(), Compared::default());
    for round in 0..ROUNDS {
        // Each is the first, the second and the last in turn.
        let (mut first, mut second, mut third) = (None, None, None);
        for turn in round..round + 3 {
            match turn % 3 {
                0 => first = Some(measure(&bare, same(std::mem::take(&mut order))).await?),
                1 => second = Some(measure(&retrying, balanced()).await?),
                _ => third = Some(measure(&once, balanced()).await?),
            }
        }
        if let (Some(bare), Some(mut retrying), Some(once)) = (first, second, third) {
            order = std::mem::take(&mut retrying.servers);
            with_retries.add(retrying, &bare);
            sent_once.add(once, &bare);
            without.extend(bare.took);
        }
    }

    println!(
        "{} calls each      p50 µs  p99 µs  lost throughput (95 %)",
        without.len()
    );
    let p50 = percentile(&mut without, 0.5);
    println!(
        "bare client       {p50:>9.2} {:>7.1}",
        percentile(&mut without, 0.99)
    );
    let mut beyond = false;
    for (name, compared) in [
        ("with retries", &mut with_retries),
        ("sent once", &mut sent_once),
    ] {
        let own = percentile(&mut compared.took, 0.5);
        let [low, lost, high] = compared.lost();
        println!(
            "{name:<17} {own:>9.2} {:>7.1}  {lost:.2} % ({low:.2} to {high:.2}), {:+.2} µs at p50",
            percentile(&mut compared.took, 0.99),
            own - p50,
        );
        beyond |= lost > 3.0 || own - p50 > 5.0;
    }
    if beyond {
        return Err("beyond the goal of 3 % and 5 µs".into());
    }
    Ok(())
}

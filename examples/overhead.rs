//! What the client path costs over the bare client, on loopback and in one run:
//! HTTP/1 with connections kept alive, the two taking turns so that both see the
//! same machine, and compared turn by turn, as that machine is never the same for
//! long. Client and server share a thread, so that a call is nothing but work.
//!
//! `cargo run --release --example overhead`. It ends with 1 when the cost is
//! beyond the goal: 3 % of throughput and 5 µs at the median.

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Result, Server};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{Layer as _, Service, ServiceExt as _};
use waypost::client::http::BalanceLayer;
use waypost::resilience::Retry;
use waypost::{Balancer, Fixed};

const ROUNDS: usize = 200;
const CALLS: usize = 250;

/// The latencies of some calls, one after the other.
async fn measure<S, A>(client: &S, uri: &str) -> Result<Vec<Duration>>
where
    S: Service<http::Request<Full<Bytes>>, Response = http::Response<A>> + Clone,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    A: hyper::body::Body + Unpin,
    A::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut took = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let request = http::Request::get(uri).body(Full::default())?;
        let began = Instant::now();
        let answer = client.clone().oneshot(request).await.map_err(Into::into)?;
        answer.into_body().collect().await.map_err(Into::into)?;
        took.push(began.elapsed());
    }
    Ok(took)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let server = Server::start("here").await?;
    let address = server.address.to_string();
    let users = Balancer::builder("users")
        .build(Fixed::addresses([address.as_str()])?)
        .await?;
    let bare = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let balanced = BalanceLayer::new(users)
        .retry(Retry::default())
        .layer(bare.clone());
    let direct = format!("http://{address}/v1/me");
    measure(&bare, &direct).await?;
    measure(&balanced, "http://users/v1/me").await?;

    let (mut without, mut with) = (Vec::new(), Vec::new());
    let mut lost = Vec::new();
    for round in 0..ROUNDS {
        // Each begins every other round.
        let mut first = None;
        if round % 2 == 0 {
            first = Some(measure(&bare, &direct).await?);
        }
        let balanced = measure(&balanced, "http://users/v1/me").await?;
        let bare = match first {
            Some(bare) => bare,
            None => measure(&bare, &direct).await?,
        };
        lost.push((1.0 - throughput(&balanced) / throughput(&bare)) * 100.0);
        without.extend(bare);
        with.extend(balanced);
    }
    lost.sort_unstable_by(f64::total_cmp);
    let (rate, balanced_rate) = (throughput(&without), throughput(&with));
    let at = |took: &mut Vec<Duration>, share: f64| {
        took.sort_unstable();
        took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6
    };
    println!("{} calls each       bare    balanced", with.len());
    println!("calls a second  {rate:>9.0}   {balanced_rate:>9.0}");
    for share in [0.5, 0.99] {
        let (bare, balanced) = (at(&mut without, share), at(&mut with, share));
        println!(
            "p{:<2} in µs        {bare:>8.1}   {balanced:>9.1}",
            share * 100.0
        );
    }
    let [low, lost, high] = [1, 2, 3].map(|quarter| lost[ROUNDS * quarter / 4]);
    let added = at(&mut with, 0.5) - at(&mut without, 0.5);
    println!(
        "lost throughput {lost:.1} % (of half the rounds, {low:.1} to {high:.1}), \
         added at the median {added:.1} µs"
    );
    if lost > 3.0 || added > 5.0 {
        return Err("beyond the goal of 3 % and 5 µs".into());
    }
    Ok(())
}

/// Calls a second.
fn throughput(took: &[Duration]) -> f64 {
    took.len() as f64 / took.iter().sum::<Duration>().as_secs_f64()
}

//! hyper-util's client under the tower layer, with retries, a hedge and a
//! deadline; an observer tells what was decided.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::{Result, Server};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{Layer as _, ServiceExt as _};
use waypost::client::http::BalanceLayer;
use waypost::endpoint::ServiceName;
use waypost::event::{CallEvent, Observer};
use waypost::resilience::{Hedge, Retry};
use waypost::{Balancer, Fixed};

#[derive(Clone, Debug, Default)]
struct Count(Arc<AtomicU32>);

impl Observer for Count {
    fn call(&self, _: &ServiceName, event: CallEvent<'_>) {
        if matches!(event, CallEvent::Retried { .. }) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let live = Server::start("live").await?;
    let dead = Server::start("dead").await?.address;
    let addresses = [live.address.to_string(), dead.to_string()];
    let users = Balancer::builder("users")
        .strategy(waypost::strategy::RoundRobin::new())
        .build(Fixed::addresses(addresses.iter().map(String::as_str))?)
        .await?;
    let retried = Count::default();
    let client = BalanceLayer::new(users)
        .retry(Retry::default())
        .hedge(Hedge::after(Duration::from_millis(200)))
        .timeout(Duration::from_secs(10))
        .observe(retried.clone())
        .layer(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());

    for _ in 0..100 {
        let request = http::Request::post("http://users/").body(Full::from("hello"))?;
        let answer = client.clone().oneshot(request).await?;
        answer.into_body().collect().await?;
    }
    let retried = retried.0.load(Ordering::Relaxed);
    println!("100 POSTs answered; {retried} of them met a dead endpoint first and were sent again");
    if retried == 0 {
        return Err("the dead endpoint was never met".into());
    }
    Ok(())
}

//! pingora-load-balancing: `select`, which counts nothing and returns a copy of
//! the backend, and `update`.

use std::collections::{BTreeSet, HashMap};
use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::FutureExt;
use pingora_load_balancing::discovery::ServiceDiscovery;
use pingora_load_balancing::selection::{
    BackendIter, BackendSelection, Consistent, Random, RoundRobin,
};
use pingora_load_balancing::{Backend, Backends, LoadBalancer};

use crate::timing::{Helper, Row};
use crate::{address, waypost};

pub const ROUND_ROBIN: &str = "pingora RoundRobin";
pub const RANDOM: &str = "pingora Random";
const CONSISTENT: &str = "pingora Consistent (ketama)";
pub const UPDATE: &str = "pingora RoundRobin, update (weight)";

/// How many backends a `select` may look at; it takes the first here.
const MAX_ITERATIONS: usize = 256;

/// Answers with the set that was put here.
#[derive(Clone)]
struct Shelf(Arc<Mutex<BTreeSet<Backend>>>);

#[async_trait]
impl ServiceDiscovery for Shelf {
    async fn discover(&self) -> pingora_error::Result<Answer> {
        let set = std::mem::take(&mut *self.0.lock().expect("nobody panics"));
        Ok((set, HashMap::new()))
    }
}

type Answer = (BTreeSet<Backend>, HashMap<u64, bool>);

fn backend(i: usize, weight: usize) -> Backend {
    Backend::new_with_weight(&address(i).to_string(), weight).expect("it is an address")
}

fn backends(n: usize) -> BTreeSet<Backend> {
    (0..n).map(|i| backend(i, 1)).collect()
}

fn balancer<S>(n: usize) -> (LoadBalancer<S>, Shelf)
where
    S: BackendSelection + Send + Sync + 'static,
    S::Iter: BackendIter,
{
    let shelf = Shelf(Arc::new(Mutex::new(backends(n))));
    let balancer = LoadBalancer::from_backends(Backends::new(Box::new(shelf.clone())));
    update(&balancer);
    let mut keys = 0_u64..;
    crate::assert_spread(n, || {
        let key = keys.next().expect("it has no end");
        let backend = balancer.select(&key.to_le_bytes(), MAX_ITERATIONS);
        backend.expect("there are backends").addr.to_string()
    });
    (balancer, shelf)
}

fn update<S>(balancer: &LoadBalancer<S>)
where
    S: BackendSelection + 'static,
    S::Iter: BackendIter,
{
    let updated = balancer.update().now_or_never();
    updated
        .expect("the shelf answers at once")
        .expect("and never fails");
}

fn select<S>(balancer: &LoadBalancer<S>, key: &[u8])
where
    S: BackendSelection + 'static,
    S::Iter: BackendIter,
{
    let backend = balancer.select(black_box(key), MAX_ITERATIONS);
    drop(black_box(backend.expect("there are backends")));
}

pub fn picks(n: usize) -> Vec<Row> {
    let (round_robin, _) = balancer::<RoundRobin>(n);
    let (random, _) = balancer::<Random>(n);
    let (consistent, _) = balancer::<Consistent>(n);
    let mut key = 0_u64;
    vec![
        Row::repeated(ROUND_ROBIN, move || select(&round_robin, b""))
            .like(waypost::ROUND_ROBIN)
            .on(n),
        Row::repeated(RANDOM, move || select(&random, b""))
            .like(waypost::RANDOM)
            .on(n),
        Row::repeated(CONSISTENT, move || {
            key += 1;
            select(&consistent, &key.to_le_bytes());
        })
        .on(n),
    ]
}

pub fn contended(n: usize, helper: &Helper) -> [Row; 2] {
    let (balancer, _) = balancer::<RoundRobin>(n);
    let balancer = Arc::new(balancer);
    Row::pair(ROUND_ROBIN, move || select(&balancer, b""), helper)
        .map(|row| row.like(waypost::ROUND_ROBIN).on(n))
}

/// `update` with a set, made outside of what is timed, in which one backend's
/// weight is another; before each, a select as a thread in service would.
pub fn rebuild(n: usize) -> Row {
    let (balancer, shelf) = balancer::<RoundRobin>(n);
    let mut turn = 0;
    Row::sampled(UPDATE, move |times| {
        let mut took = Duration::ZERO;
        for _ in 0..times {
            select(&balancer, b"");
            let mut next = BTreeSet::clone(&balancer.backends().get_backend());
            next.remove(&backend(n / 2, 1 + turn % 2));
            next.insert(backend(n / 2, 2 - turn % 2));
            turn += 1;
            *shelf.0.lock().expect("nobody panics") = next;
            let begun = Instant::now();
            update(&balancer);
            took += begun.elapsed();
        }
        took
    })
    .like(waypost::APPLY_WEIGHT)
    .on(n)
}

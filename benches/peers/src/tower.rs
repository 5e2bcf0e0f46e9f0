//! tower's p2c `Balance` over services that are always ready and answer at
//! once: `poll_ready`, `call`, and the response taken, which is when the load
//! goes down again.

use std::convert::Infallible;
use std::fmt::Debug;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::FutureExt;
use tower::Service;
use tower::balance::p2c::Balance;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, Load, PeakEwma, PendingRequests};

use crate::timing::{Helper, Row};
use crate::waypost;

pub const PENDING: &str = "tower Balance, PendingRequests";
pub const PENDING_MUTEX: &str = "Mutex<tower Balance>, PendingRequests";
const PEAK_EWMA: &str = "tower Balance, PeakEwma";

/// Answers with its number.
struct Replica(usize);

impl Service<()> for Replica {
    type Response = usize;
    type Error = Infallible;
    type Future = Ready<Result<usize, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(self.0))
    }
}

type Balanced<S> = Balance<ServiceList<Vec<S>>, ()>;

/// What a service needs to be in a [`Balance`], in short.
trait Loaded: Service<(), Response = usize, Error = Infallible> + Load<Metric: Debug> + Unpin {}

impl<S> Loaded for S where
    S: Service<(), Response = usize, Error = Infallible> + Load<Metric: Debug> + Unpin
{
}

fn balance<S: Loaded>(n: usize, wrap: fn(Replica) -> S) -> Balanced<S> {
    let services = (0..n).map(Replica).map(wrap).collect();
    let mut balance = Balance::new(ServiceList::new(services));
    crate::assert_spread(n, || answer(begin(&mut balance)));
    balance
}

fn pending(replica: Replica) -> PendingRequests<Replica> {
    PendingRequests::new(replica, CompleteOnResponse::default())
}

/// The settings are linkerd's: 30 ms to begin with, decaying over 10 s.
fn peak_ewma(replica: Replica) -> PeakEwma<Replica> {
    let (first, decay_ns) = (Duration::from_millis(30), 10e9);
    PeakEwma::new(replica, first, decay_ns, CompleteOnResponse::default())
}

fn begin<S: Loaded>(balance: &mut Balanced<S>) -> <Balanced<S> as Service<()>>::Future {
    let mut context = Context::from_waker(Waker::noop());
    let ready = balance.poll_ready(&mut context);
    assert!(matches!(ready, Poll::Ready(Ok(()))), "all are ready");
    balance.call(())
}

fn answer<F, E: Debug>(response: F) -> usize
where
    F: Future<Output = Result<usize, E>>,
{
    let response = response.now_or_never().expect("it answers at once");
    response.expect("and never fails")
}

/// With a call pending at one of two services, every other call goes to the
/// other: the choice is made by load.
fn assert_it_compares_loads() {
    let mut balance = balance(2, pending);
    let held = begin(&mut balance);
    let others: Vec<usize> = (0..100).map(|_| answer(begin(&mut balance))).collect();
    let held = answer(held);
    assert!(others.iter().all(|&other| other != held), "not p2c");
}

pub fn picks(n: usize) -> Vec<Row> {
    assert_it_compares_loads();
    let mut by_pending = balance(n, pending);
    let mut by_ewma = balance(n, peak_ewma);
    vec![
        Row::repeated(PENDING, move || {
            black_box(answer(begin(&mut by_pending)));
        })
        .like(waypost::P2C)
        .on(n),
        Row::repeated(PEAK_EWMA, move || {
            black_box(answer(begin(&mut by_ewma)));
        })
        .like(waypost::P2C_LATENCY)
        .on(n),
    ]
}

/// `Balance` is used through `&mut`, so threads share it behind a mutex, held
/// for `poll_ready` and `call`; the response is taken outside.
pub fn contended(n: usize, helper: &Helper) -> [Row; 2] {
    let balance = Arc::new(Mutex::new(balance(n, pending)));
    let call = move || {
        let response = begin(&mut balance.lock().expect("nobody panics"));
        black_box(answer(response));
    };
    Row::pair(PENDING_MUTEX, call, helper).map(|row| row.like(waypost::P2C).on(n))
}

//! volo: a picker from its balancer and the picker's first address. Its public
//! balancers are weighted random, measured here, and a consistent hash whose key
//! is a task-local; neither counts calls.

use std::hint::black_box;

use futures::FutureExt;
use volo::context::Endpoint;
use volo::discovery::StaticDiscover;
use volo::loadbalance::LoadBalance;
use volo::loadbalance::random::WeightedRandomBalance;
use volo::net::Address;

use crate::timing::Row;
use crate::{address, waypost};

const WEIGHTED_RANDOM: &str = "volo weighted random";

fn discover(n: usize) -> StaticDiscover {
    (0..n).map(address).collect::<Vec<_>>().into()
}

fn pick<B: LoadBalance<StaticDiscover>>(
    balance: &B,
    service: &Endpoint,
    discover: &StaticDiscover,
) -> Address {
    let picker = balance.get_picker(service, discover).now_or_never();
    let picker = picker.expect("the list is there").expect("and not empty");
    { picker }.next().expect("it has addresses")
}

pub fn picks(n: usize) -> Row {
    let (service, list) = (Endpoint::new("bench".into()), discover(n));
    let random = WeightedRandomBalance::with_discover(&list);
    crate::assert_spread(n, || pick(&random, &service, &list).to_string());
    let row = Row::repeated(WEIGHTED_RANDOM, move || {
        black_box(pick(&random, &service, &list));
    });
    row.like(waypost::RANDOM).on(n)
}

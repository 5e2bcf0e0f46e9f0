//! volo: a picker from its balancer and the picker's first address. Its public
//! balancers are weighted random and consistent hash; neither counts calls.

use std::hint::black_box;

use futures::FutureExt;
use volo::context::Endpoint;
use volo::discovery::StaticDiscover;
use volo::loadbalance::consistent_hash::{ConsistentHashBalance, ConsistentHashOption};
use volo::loadbalance::random::WeightedRandomBalance;
use volo::loadbalance::{LoadBalance, RequestHash};
use volo::net::Address;

use crate::timing::Row;
use crate::{address, waypost};

const WEIGHTED_RANDOM: &str = "volo weighted random";
const CONSISTENT: &str = "volo consistent hash";

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

pub fn picks(n: usize) -> Vec<Row> {
    let (service, list) = (Endpoint::new("bench".into()), discover(n));
    let random = WeightedRandomBalance::with_discover(&list);
    crate::assert_spread(n, || pick(&random, &service, &list).to_string());

    let (mut keyed, keyed_list) = (Endpoint::new("bench".into()), discover(n));
    let consistent = ConsistentHashBalance::new(ConsistentHashOption::default());
    let mut key = 0_u64;
    let mut pick_by_key = move || {
        // Any odd factor spreads successive keys over the ring.
        key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
        keyed.insert(RequestHash(key));
        pick(&consistent, &keyed, &keyed_list)
    };
    crate::assert_spread(n, || pick_by_key().to_string());
    vec![
        Row::repeated(WEIGHTED_RANDOM, move || {
            black_box(pick(&random, &service, &list));
        })
        .like(waypost::RANDOM)
        .on(n),
        Row::repeated(CONSISTENT, move || {
            black_box(pick_by_key());
        })
        .on(n),
    ]
}

//! A balancer with everything on, to be measured.

use std::time::Duration;

use waypost::health::outlier::OutlierEjection;
use waypost::health::slow_start::SlowStart;
use waypost::time::Clock;
use waypost::topology::Topology;
use waypost::{Balancer, Endpoint, EndpointSet, Outcome, Updater};

use crate::common::{endpoint, strategy};

/// A balancer with all that decides who is picked: two zones of which one is
/// the client's, two levels, an endpoint that is ejected and one that ramps up,
/// or has done so.
pub(crate) fn balancer(strategy_name: &str, n: usize, ramping: bool) -> (Balancer, Updater) {
    let (clock, hands) = Clock::manual();
    let (balancer, mut updater) = Balancer::builder("bench")
        .strategy(strategy(strategy_name))
        .latency(false)
        .clock(clock)
        .outlier_ejection(OutlierEjection::connections().base_time(Duration::from_mins(4)))
        .topology(Topology::new().zone("a"))
        .slow_start(SlowStart::new(Duration::from_mins(1)))
        .manual()
        .expect("the settings are right");
    let placed = |i: usize| {
        let zone = if i.is_multiple_of(3) { "a" } else { "b" };
        let builder = Endpoint::builder(endpoint(i).address().clone()).zone(zone);
        let level = u32::from(i % 10 == 9);
        builder.priority(level).build().expect("it is an endpoint")
    };
    let all = EndpointSet::new((0..n).map(placed)).expect("the ids differ");
    // The last comes later, and so has to ramp up.
    updater.apply(all.without(endpoint(n - 2).id()));
    updater.apply(all);
    let victim = balancer.pick().expect("there are some").id().clone();
    let mut failures = 0;
    while failures < 5 {
        let pick = balancer.pick().expect("there are some");
        let is_victim = *pick.id() == victim;
        failures += u32::from(is_victim);
        pick.finish(if is_victim {
            Outcome::NotSent
        } else {
            Outcome::Success
        });
    }
    updater.look();
    hands.advance(Duration::from_secs(if ramping { 20 } else { 100 }));
    updater.look();
    let text = balancer.explain().to_string();
    assert!(text.contains("without an answer"));
    assert_eq!(text.contains("ramping"), ramping);
    (balancer, updater)
}

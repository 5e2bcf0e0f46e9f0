//! The DNS registry, on Knot DNS.
#![cfg(feature = "dns")]

mod server_common;

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use server_common::{Knot, free_port};
use tokio::time::timeout;
use waypost::registry::{Dns, DnsBuilder, Families};
use waypost::{Balancer, Discover, Endpoint, EndpointSet, Error, Outcome, ServiceName, testing};

const PATIENCE: Duration = Duration::from_mins(1);

const RECORDS: &str = "
a A 10.0.0.1
a A 10.0.0.2
six AAAA 2001:db8::1
both A 10.0.0.3
both AAAA 2001:db8::3
alias CNAME a
h1 A 10.0.1.1
h2 A 10.0.1.2
h3 AAAA 2001:db8::13
_http._tcp.s SRV 1 5 8001 h1
_http._tcp.s SRV 1 0 8002 h2
_http._tcp.s SRV 2 0 8003 h3
_http._tcp.s SRV 3 7 8004 missing
_http._tcp.none SRV 0 0 0 .
";

fn ask(knot: &Knot, builder: DnsBuilder) -> Dns {
    let quick = Duration::from_millis(50);
    let builder = builder.servers([knot.at()]).timeout(Duration::from_secs(2));
    builder.refresh(quick, quick * 2).build().unwrap()
}

fn addresses() -> DnsBuilder {
    Dns::addresses("{service}.waypost.test", 80)
}

fn name(service: &str) -> ServiceName {
    service.parse().unwrap()
}

type Sets = BoxStream<'static, Result<EndpointSet, Error>>;

async fn next(sets: &mut Sets) -> Result<EndpointSet, Error> {
    let next = timeout(PATIENCE, sets.next()).await;
    next.expect("in time").expect("it does not end")
}

/// The first set that is as it should be; errors are passed over.
async fn until(sets: &mut Sets, test: impl Fn(&EndpointSet) -> bool) -> EndpointSet {
    loop {
        if let Ok(set) = next(sets).await
            && test(&set)
        {
            return set;
        }
    }
}

/// The first answer. A busy machine may let the time for one pass.
async fn first(sets: &mut Sets) -> EndpointSet {
    until(sets, |_| true).await
}

/// The first error that says so.
async fn error_saying(sets: &mut Sets, says: &str) -> Error {
    loop {
        if let Err(error) = next(sets).await
            && error.to_string().contains(says)
        {
            return error;
        }
    }
}

fn told(set: &EndpointSet) -> Vec<&str> {
    set.iter().map(|one| one.address().as_str()).collect()
}

#[tokio::test]
async fn addresses_of_both_families_keep_the_contract() {
    let Some(knot) = Knot::start(RECORDS).await else {
        return;
    };
    let expected = |addresses: &[&str]| {
        EndpointSet::new(addresses.iter().map(|at| Endpoint::at(*at).unwrap())).unwrap()
    };
    for (service, families, addresses_) in [
        ("a", Families::PreferV4, &["10.0.0.1:80", "10.0.0.2:80"][..]),
        ("alias", Families::PreferV4, &["10.0.0.1:80", "10.0.0.2:80"]),
        ("six", Families::PreferV4, &["[2001:db8::1]:80"]),
        ("both", Families::PreferV4, &["10.0.0.3:80"]),
        ("both", Families::PreferV6, &["[2001:db8::3]:80"]),
        ("a", Families::PreferV6, &["10.0.0.1:80", "10.0.0.2:80"]),
        ("both", Families::Both, &["10.0.0.3:80", "[2001:db8::3]:80"]),
        ("a", Families::Both, &["10.0.0.1:80", "10.0.0.2:80"]),
        ("six", Families::V4, &[]),
        ("missing", Families::Both, &[]),
    ] {
        let dns = ask(&knot, addresses().families(families));
        testing::discover(dns, &name(service), &expected(addresses_), PATIENCE).await;
    }
}

#[tokio::test]
async fn services_bring_port_priority_and_weight() {
    let Some(knot) = Knot::start(RECORDS).await else {
        return;
    };
    let dns = ask(&knot, Dns::srv("_http._tcp.{service}.waypost.test"));
    let set = first(&mut dns.watch(&name("s"))).await;
    let told: Vec<_> = set
        .iter()
        .map(|one| {
            let authority = one.authority().unwrap();
            (
                one.address().as_str(),
                one.priority(),
                one.weight(),
                authority,
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("10.0.1.1:8001", 1, 500, "h1.waypost.test:8001"),
            ("10.0.1.2:8002", 1, 1, "h2.waypost.test:8002"),
            ("[2001:db8::13]:8003", 2, 1, "h3.waypost.test:8003"),
        ],
        "weight 0 is a hundredth of 1 beside others, and 1 among its like"
    );
    let skipped = set.skipped().expect("a target without address is said");
    assert_eq!(skipped.count, 1);
    assert!(skipped.example.to_string().contains("missing.waypost.test"));

    let set = first(&mut dns.watch(&name("none"))).await;
    assert!(set.is_empty(), "the root as target is no service");
}

#[tokio::test]
async fn changes_show_when_the_time_to_live_is_over() {
    let Some(knot) = Knot::start(RECORDS).await else {
        return;
    };
    let dns = ask(&knot, addresses());
    let mut sets = dns.watch(&name("a"));
    let before = first(&mut sets).await;
    knot.zone.change(&["zone-set a 1 A 10.0.0.9"]);
    let after = until(&mut sets, |set| set.len() == 3).await;
    assert!(after.version() > before.version());
    knot.zone.change(&["zone-unset a A 10.0.0.1"]);
    let last = until(&mut sets, |set| set.len() == 2).await;
    assert_eq!(told(&last), ["10.0.0.2:80", "10.0.0.9:80"]);
}

#[tokio::test]
async fn an_answer_too_long_for_udp_comes_whole() {
    let many: Vec<_> = (0..300)
        .map(|i| format!("many A 10.1.{}.{}", i / 250, i % 250))
        .collect();
    let Some(knot) = Knot::start(&(many.join("\n") + "\n")).await else {
        return;
    };
    let set = first(&mut ask(&knot, addresses()).watch(&name("many"))).await;
    assert_eq!(set.len(), 300);
}

#[tokio::test]
async fn a_server_that_hangs_or_is_gone_leaves_the_set_standing() {
    let Some(mut knot) = Knot::start(RECORDS).await else {
        return;
    };
    let dns = ask(&knot, addresses());
    let users = Balancer::builder("a").build(dns.clone()).await.unwrap();
    let mut sets = dns.watch(&name("a"));
    first(&mut sets).await;
    knot.server.pause().await;
    error_saying(&mut sets, "a.waypost.test").await;
    assert_eq!(users.current().len(), 2);
    knot.server.resume();
    until(&mut sets, |set| set.len() == 2).await;
    knot.server.kill();
    assert!(next(&mut sets).await.unwrap_err().is_registry());
    assert_eq!(users.current().len(), 2);
    assert!(users.pick().is_ok());
    knot.server.restart().await;
    until(&mut sets, |set| set.len() == 2).await;
}

#[tokio::test]
async fn no_such_name_is_believed_after_a_while() {
    let Some(knot) = Knot::start(RECORDS).await else {
        return;
    };
    let a_while = Duration::from_millis(300);
    let held = ask(&knot, addresses().hold_negative(a_while));
    let believed = ask(&knot, addresses().hold_negative(Duration::ZERO));
    let (mut held, mut believed) = (held.watch(&name("a")), believed.watch(&name("a")));
    assert_eq!(first(&mut held).await.len(), 2);
    assert_eq!(first(&mut believed).await.len(), 2);
    knot.zone.change(&["zone-unset a"]);
    until(&mut believed, EndpointSet::is_empty).await;
    error_saying(&mut held, "no such record").await;
    until(&mut held, EndpointSet::is_empty).await;
}

#[tokio::test]
async fn what_failed_for_too_long_is_given_up() {
    let Some(mut knot) = Knot::start(RECORDS).await else {
        return;
    };
    let dns = ask(&knot, addresses().hold_failed(Duration::from_millis(200)));
    let mut sets = dns.watch(&name("a"));
    assert_eq!(first(&mut sets).await.len(), 2);
    knot.server.kill();
    until(&mut sets, EndpointSet::is_empty).await;
}

#[tokio::test]
async fn a_server_that_was_never_there_is_an_error_and_not_an_empty_set() {
    let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let dns = addresses()
        .servers([at])
        .timeout(Duration::from_millis(100))
        .build()
        .unwrap();
    let mut sets = dns.watch(&name("a"));
    for _ in 0..3 {
        assert!(next(&mut sets).await.unwrap_err().is_registry());
    }
}

#[tokio::test]
async fn calls_that_fail_are_a_hint_before_the_time_to_live_is_over() {
    let Some(knot) = Knot::start(RECORDS).await else {
        return;
    };
    let hour = Duration::from_hours(1);
    let dns = addresses().servers([knot.at()]).refresh(hour, hour).build();
    let dns = dns.unwrap();
    let mut sets = dns.watch(&name("a"));
    first(&mut sets).await;
    let balancer = Balancer::builder("a").build(dns).await.unwrap();
    balancer.ready(PATIENCE).await.unwrap();
    knot.zone.change(&["zone-unset a A 10.0.0.1"]);
    let calling = async {
        loop {
            balancer.pick().unwrap().finish(Outcome::NotSent);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        _ = until(&mut sets, |set| set.len() == 1) => {}
        () = calling => {}
    }
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let second = Duration::from_secs(1);
    for (builder, field) in [
        (Dns::addresses("", 80), "dns.pattern"),
        (Dns::addresses("a..{service}", 80), "dns.pattern"),
        (addresses().refresh(second, Duration::ZERO), "dns.refresh"),
        (addresses().refresh(Duration::ZERO, second), "dns.refresh"),
        (addresses().timeout(Duration::ZERO), "dns.timeout"),
        (Dns::addresses("{service}", 0), "dns.port"),
    ] {
        let refused = builder.build().unwrap_err();
        assert!(
            refused.is_invalid() && refused.to_string().starts_with(field),
            "{refused}"
        );
    }
}

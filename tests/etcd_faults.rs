//! What comes of etcd when it fails, hangs, lies or is not etcd at all.

mod client_common;
mod grpc_server;
mod hostile;
mod registry_common;
mod server_common;

use std::time::Duration;

use futures::StreamExt as _;
use grpc_server::{Grpc, Reply};
use hostile::{Answer, Hostile};
use registry_common::{
    Hurt, Mode, Moment, asked_per_second, endpoint, error_saying, killed_for_good, no_call_is_lost,
    refusal_saying, set_where, users,
};
use server_common::{Launch, etcd_cluster, http_get, on_both_etcds};
use tokio::time::{Instant, timeout};
use waypost::Discover as _;
use waypost::registry::etcd::{Etcd, EtcdBuilder, Layout};
use waypost::testing::{self, Fault};

/// Generous, as several servers start at once on two cores.
const PATIENCE: Duration = Duration::from_secs(30);
const TTL: Duration = Duration::from_secs(3);

on_both_etcds! {
    keeps_the_laws_of_chaos
    no_call_is_lost_whatever_happens_to_the_server
    no_call_is_lost_while_the_leader_of_three_is_killed
}

/// Soon tired of a server that hangs.
fn at(address: impl std::fmt::Display) -> EtcdBuilder {
    Etcd::builder(format!("http://{address}"))
        .lease_ttl(TTL)
        .request_timeout(Duration::from_secs(1))
}

async fn no_call_is_lost_while_the_leader_of_three_is_killed(version: &'static str) {
    let Some(mut cluster) = etcd_cluster(version).await else {
        return;
    };
    let mut leads = 0;
    for (i, member) in cluster.iter().enumerate() {
        let (_, metrics) = http_get(member.port(), "/metrics").await.unwrap();
        if metrics.contains("etcd_server_is_leader 1") {
            leads = i;
        }
    }
    let mut builder = at(cluster[leads].address());
    for member in &cluster {
        builder = builder.endpoint(format!("http://{}", member.address()));
    }
    let registry = builder.build().unwrap();
    killed_for_good(&registry, &mut cluster[leads]).await;
}

/// Compacts away what comes after everything that was read.
fn compacted(hurt: &Hurt, moment: Moment) {
    if moment == Moment::Heal {
        return;
    }
    let etcdctl = |arguments: &[&str]| {
        let mut etcdctl = hurt.server.program("usr/bin/etcdctl");
        etcdctl.args(["--endpoints", &hurt.server.address()]);
        let output = etcdctl.args(arguments).env("ETCDCTL_API", "3").output();
        let output = output.expect("etcdctl was unpacked");
        assert!(output.status.success(), "etcdctl {arguments:?}");
        String::from_utf8(output.stdout).expect("etcdctl speaks UTF-8")
    };
    hurt.proxy.set(Mode::Cut);
    etcdctl(&["put", "a", "1"]);
    let status = etcdctl(&["put", "a", "2", "-w", "json"]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let revision = status["header"]["revision"].to_string();
    etcdctl(&["compact", "--physical", &revision]);
}

async fn keeps_the_laws_of_chaos(version: &'static str) {
    let Some(launch) = Launch::of(version) else {
        return;
    };
    let hurt = Hurt::new(launch.start().await, TTL, Some(compacted)).await;
    let registry = at(hurt.proxy.address).build().unwrap();
    let tried = testing::chaos(registry, hurt, Duration::from_mins(1)).await;
    assert_eq!(tried, Fault::ALL, "every fault there is");
}

async fn no_call_is_lost_whatever_happens_to_the_server(version: &'static str) {
    let Some(launch) = Launch::of(version) else {
        return;
    };
    let hurt = Hurt::new(launch.start().await, TTL, Some(compacted)).await;
    let registry = at(hurt.proxy.address).build().unwrap();
    assert_eq!(no_call_is_lost(&registry, hurt).await, Fault::ALL);
}

/// What is no gRPC at all.
fn bad_answers() -> Vec<(&'static str, Answer)> {
    let html = "<html>hello</html>";
    vec![
        ("HTTP/1", Answer::new("200 OK", "", html)),
        ("not HTTP", Answer::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec())),
        ("endless", Answer::Endless),
        ("silent", Answer::Silence),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_speaks_no_grpc_is_a_typed_error_that_costs_little() {
    for (name, answer) in bad_answers() {
        let server = Hostile::start(answer).await;
        let registry = at(server.address).user("me", "s3cret").build().unwrap();
        let mut sets = registry.watch(&users());
        let first = timeout(PATIENCE, sets.next()).await;
        let first = first.unwrap_or_else(|_| panic!("{name}: an error comes in time"));
        let error = first.unwrap().expect_err(name);
        let text = error.to_string();
        assert!(error.is_registry(), "{name}: {text}");
        assert!(text.contains(&server.address.to_string()), "{name}: {text}");
        assert!(text.len() < 700 && !text.contains("s3cret"), "{text}");

        let asked = asked_per_second(&mut sets, name, || server.asked()).await;
        assert!(asked <= 40, "{name}: asked {asked} times in a second");
        assert!(server.sent() < (8 << 20) * (server.asked() + 1), "{name}");
    }
}

fn one() -> Reply {
    Reply::range(7, &[("users/a", r#"{"Op":0,"Addr":"10.0.0.1:80"}"#)])
}

/// What comes for `Range` and for `Watch`, and what the error says.
fn wrong_replies() -> Vec<(&'static str, Reply, Reply, &'static str)> {
    vec![
        ("HTML", Reply::Html, Reply::Silent, "Range"),
        ("403", Reply::Http(403), Reply::Silent, "403"),
        ("503", Reply::Http(503), Reply::Silent, "503"),
        ("302", Reply::Http(302), Reply::Silent, "302"),
        (
            "a status",
            Reply::status(14, "no leader"),
            Reply::Silent,
            "no leader",
        ),
        (
            "too much to do",
            Reply::status(8, "too many requests"),
            Reply::Silent,
            "too many",
        ),
        (
            "no method",
            Reply::status(12, "unknown service"),
            Reply::Silent,
            "client port",
        ),
        (
            "garbage",
            Reply::message(b"\xff\xff\xff\xff"),
            Reply::Silent,
            "Range",
        ),
        (
            "nothing in it",
            Reply::message(b""),
            Reply::Silent,
            "no header",
        ),
        (
            "a long message",
            Reply::Raw(b"\0\xff\xff\xff\xff".to_vec()),
            Reply::Silent,
            "max_message",
        ),
        (
            "half a message",
            Reply::Raw(b"\0\0\0\0\x09ab".to_vec()),
            Reply::Silent,
            "Range",
        ),
        ("endless", Reply::Endless, Reply::Silent, "max_message"),
        (
            "silent",
            Reply::Silent,
            Reply::Silent,
            "not answered within",
        ),
        ("a watch that ends", one(), Reply::status(0, ""), "Watch"),
        (
            "a watch that is refused",
            one(),
            Reply::status(14, "no leader"),
            "no leader",
        ),
        (
            "a watch of garbage",
            one(),
            Reply::message(b"\xff\xff"),
            "Watch",
        ),
        ("a watch of nothing", one(), Reply::message(b""), "Watch"),
        (
            "a silent watch",
            one(),
            Reply::Silent,
            "not answered within",
        ),
        ("compacted, always", one(), Reply::compacted(9), "history"),
        (
            "canceled, always",
            one(),
            Reply::canceled("no leader"),
            "no leader",
        ),
        ("another cluster", one(), Reply::created(3), "history"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_that_is_not_etcds_is_a_typed_error_that_costs_little_and_passes() {
    for (name, range, watch, says) in wrong_replies() {
        let server = Grpc::start(range, watch).await;
        let registry = at(server.address).max_message(1 << 20).build().unwrap();
        let mut sets = registry.watch(&users());
        let error = error_saying(&mut sets, name, says).await;
        let text = error.to_string();
        assert!(error.is_registry(), "{name}: {text}");
        assert!(text.contains(&server.address.to_string()), "{name}: {text}");
        assert!(text.len() < 700, "{name}: {text}");

        let (before, begun) = (server.asked(), Instant::now());
        let mut last = None;
        let polled = async {
            loop {
                last = sets.next().await;
            }
        };
        let polled: Result<(), _> = timeout(Duration::from_secs(1), polled).await;
        assert!(polled.is_err());
        let (asked, seconds) = (server.asked() - before, begun.elapsed().as_secs() + 1);
        assert!(
            asked <= 40 * seconds,
            "{name}: asked {asked} times in {seconds} s"
        );
        assert!(server.sent() < server.asked() * (8 << 20), "{name}");

        server.answer(one(), Reply::created(7));
        // Told already when only the watch was still to come, which now succeeds:
        // then there is nothing new to tell.
        let set = match last {
            Some(Ok(set)) if !set.is_empty() => set,
            _ => set_where(&mut sets, name, |set| set.len() == 1).await,
        };
        assert_eq!(set.endpoints()[0].id().as_str(), "a");
    }
}

/// etcd breaks up what is longer than a request may be, also what happened at
/// one revision.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_in_parts_counts_when_its_last_part_is_there() {
    let [a, b, c] = ["users/a", "users/b", "users/c"].map(|key| {
        let value = r#"{"Op":0,"Addr":"10.0.0.1:80"}"#;
        (key, value)
    });
    let parts = Reply::parts(7, &[&[a], &[b], &[c]]);
    let Reply::Raw(bytes) = &parts else {
        unreachable!("it is messages");
    };
    let part = Reply::parts(7, &[&[c]]);
    let Reply::Raw(last) = &part else {
        unreachable!("it is messages");
    };
    let created = Reply::created(7);
    let Reply::Raw(begin) = &created else {
        unreachable!("it is a message");
    };
    let without_last = bytes.len() - (last.len() - begin.len());
    let broken_off = Reply::Ends(bytes[..without_last].to_vec());
    let server = Grpc::start(Reply::range(7, &[]), broken_off).await;
    let registry = at(server.address).build().unwrap();
    let mut sets = registry.watch(&users());
    let mut failed = 0;
    while failed < 3 {
        match sets.next().await.unwrap() {
            Ok(set) => assert!(set.is_empty(), "a part is no answer: {set:?}"),
            // On a busy machine others may come: that nothing came in time.
            Err(error) => failed += usize::from(error.to_string().contains("ends here")),
        }
    }
    server.answer(Reply::range(7, &[]), parts);
    let set = set_where(&mut sets, "all parts", |set| !set.is_empty()).await;
    assert_eq!(set.len(), 3, "all of them at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_without_end_do_not_fill_the_memory() {
    let server = Grpc::start(Reply::range(7, &[]), Reply::Events).await;
    let registry = at(server.address).max_message(1 << 20).build().unwrap();
    let mut sets = registry.watch(&users());
    let failing = async {
        loop {
            match sets.next().await.unwrap() {
                Ok(set) => assert!(set.len() < 100_000),
                Err(error) if error.to_string().contains("more than 1048576 bytes") => return,
                Err(_) => {}
            }
        }
    };
    timeout(Duration::from_mins(1), failing).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_listens_there() {
    let port = server_common::free_port();
    let registry = at(format!("127.0.0.1:{port}")).build().unwrap();
    let read = error_saying(&mut registry.watch(&users()), "nobody", "refused").await;
    let write = refusal_saying(&registry, &users(), endpoint(1), "refused").await;
    for error in [read, write] {
        let text = error.to_string();
        assert!(error.is_registry(), "{text}");
        assert!(text.contains(&port.to_string()), "{text}");
    }
}

#[tokio::test]
async fn bad_settings_are_refused_with_the_field() {
    let at = || Etcd::builder("http://127.0.0.1:2379");
    for (builder, field) in [
        (Etcd::builder("127.0.0.1:2379"), "url"),
        (at().endpoint("http://me:pw@10.0.0.1:2379"), "url"),
        (at().lease_ttl(Duration::from_millis(2_500)), "lease_ttl"),
        (at().lease_ttl(Duration::from_secs(1)), "lease_ttl"),
        (at().request_timeout(Duration::ZERO), "request_timeout"),
        (at().max_message(0), "max_message"),
        (at().prefix("a\n"), "prefix"),
        (
            at().layout(Layout::Plain).ca_certificate("x"),
            "ca_certificate",
        ),
    ] {
        let error = builder.build().unwrap_err();
        let text = error.to_string();
        assert!(
            error.is_invalid() && text.starts_with(field),
            "{field}: {text}"
        );
        assert!(!text.contains("pw"), "{text}");
    }
}

#[test]
fn without_a_runtime_nothing_is_built() {
    let error = Etcd::builder("http://127.0.0.1:2379").build().unwrap_err();
    assert!(error.to_string().contains("runtime"), "{error}");
}

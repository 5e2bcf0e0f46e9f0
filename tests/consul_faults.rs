//! What comes of Consul when it fails, hangs, lies or is not Consul at all.

mod client_common;
mod hostile;
mod registry_common;
mod server_common;

use std::time::Duration;

use futures::StreamExt as _;
use hostile::{Answer, Hostile};
use registry_common::{
    Hurt, Moment, asked_per_second, endpoint, error_saying, killed_for_good, no_call_is_lost,
    refusal_saying, set_where, users,
};
use server_common::{Launch, consul_cluster, http_get, until};
use tokio::time::Instant;
use waypost::registry::consul::{Check, Consul, ConsulBuilder};
use waypost::testing::{self, Fault};
use waypost::{Discover as _, EndpointSet, Error};

const INDEX: &str = "X-Consul-Index: 7\r\n";

fn one_instance() -> String {
    r#"[{"Node":{"Node":"n","Address":"10.0.0.1"},
         "Service":{"ID":"a","Service":"users","Address":"10.0.0.1","Port":80},"Checks":[]}]"#
        .to_owned()
}

fn impatient(url: impl Into<String>) -> ConsulBuilder {
    let builder = Consul::builder(url).request_timeout(Duration::from_millis(300));
    builder.max_body(1 << 20)
}

fn bad_answers(body: &str) -> Vec<(&'static str, Answer, &'static str)> {
    vec![
        (
            "garbage",
            Answer::new("200 OK", INDEX, "<html>hello</html>"),
            "no list of instances",
        ),
        (
            "another shape",
            Answer::new("200 OK", INDEX, r#"{"a":1}"#),
            "no list of instances",
        ),
        (
            "truncated JSON",
            Answer::new("200 OK", INDEX, &body[..body.len() / 2]),
            "no list of instances",
        ),
        ("truncated answer", Answer::truncated(INDEX, body), "failed"),
        (
            "no index",
            Answer::new("200 OK", "", body),
            "X-Consul-Index",
        ),
        (
            "not HTTP",
            Answer::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
            "failed",
        ),
        (
            "500",
            Answer::new("500 Internal Server Error", "", "No cluster leader"),
            "No cluster leader",
        ),
        (
            "429",
            Answer::new("429 Too Many Requests", "", "Resource Exhausted"),
            "429",
        ),
        (
            "403",
            Answer::new("403 Forbidden", "", "ACL not found"),
            "check that the token",
        ),
        (
            "filtered",
            Answer::new(
                "200 OK",
                "X-Consul-Index: 7\r\nX-Consul-Results-Filtered-By-ACLs: true\r\n",
                "[]",
            ),
            "token may not read",
        ),
        (
            "redirect",
            Answer::new("302 Found", "Location: http://127.0.0.1:1/\r\n", ""),
            "302",
        ),
        ("endless", Answer::Endless, "more than 1048576 bytes"),
        ("silent", Answer::Silence, "not answered within"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_answers_are_typed_errors_that_cost_little_and_pass() {
    let body = one_instance();
    let good = || Answer::new("200 OK", INDEX, &body);
    for (name, answer, says) in bad_answers(&body) {
        let server = Hostile::start(answer).await;
        let registry = impatient(server.url()).token("s3cret").build().unwrap();
        let mut sets = registry.watch(&users());
        let error = error_saying(&mut sets, name, says).await;
        let text = error.to_string();
        assert!(error.is_registry(), "{name}: {text}");
        assert!(
            text.contains(&server.address.to_string()),
            "{name} says where: {text}"
        );
        assert!(
            text.len() < 700 && !text.contains("s3cret"),
            "{name}: {text}"
        );

        // While it is polled for a second it asks a few times, not thousands.
        let asked = asked_per_second(&mut sets, name, || server.asked()).await;
        assert!(asked <= 20, "{name}: asked {asked} times in a second");
        // What the sockets of all tries hold comes on top of the bound.
        let most = server.asked() * (8 << 20);
        assert!(
            server.sent() < most,
            "{name}: {} bytes were taken",
            server.sent()
        );

        server.answer(good());
        set_where(&mut sets, name, |set| set.len() == 1).await;
    }
}

/// How soon it was asked so often, at the earliest; while it is, `told` hears what
/// comes of it.
async fn asked_within(
    registry: &Consul,
    server: &Hostile,
    often: u64,
    mut told: impl FnMut(Result<EndpointSet, Error>),
) -> Duration {
    let begun = Instant::now();
    let mut sets = registry.watch(&users());
    let reading = async {
        loop {
            told(sets.next().await.unwrap());
        }
    };
    let enough = until("it is asked", Duration::from_mins(1), async || {
        server.asked() >= often
    });
    tokio::select! {
        () = reading => {}
        () = enough => {}
    }
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_blocks_is_no_busy_loop() {
    let server = Hostile::start(Answer::new("200 OK", INDEX, &one_instance())).await;
    let registry = Consul::builder(server.url()).build().unwrap();
    // The same index and the same list, at once, again and again: seven are read
    // before it is noticed, and from there on one a second.
    let mut told = 0;
    let time = asked_within(&registry, &server, 11, |set| {
        assert_eq!(set.unwrap().len(), 1);
        told += 1;
    })
    .await;
    assert_eq!(told, 1, "nothing is new");
    assert!(time > Duration::from_secs(3), "{time:?}");
}

/// Guards: a rollout of a thousand instances was read a thousand times by each client.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_never_stops_to_change_is_read_five_times_a_second() {
    let server = Hostile::start(Answer::Each(|before| {
        let instance = one_instance().replace("80}", &format!("{}}}", 80 + before));
        Answer::new(
            "200 OK",
            &format!("X-Consul-Index: {}\r\n", 7 + before),
            &instance,
        )
    }))
    .await;
    let registry = Consul::builder(server.url()).build().unwrap();
    let mut changes = 0;
    let time = asked_within(&registry, &server, 40, |set| {
        set.unwrap();
        changes += 1;
    })
    .await;
    // Twenty at once, and five for each of the seconds.
    assert!(time > Duration::from_millis(3_500), "{time:?}");
    assert!(changes >= 38, "{changes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_listens_there() {
    let port = server_common::free_port();
    let registry = Consul::builder(format!("http://127.0.0.1:{port}"));
    let registry = registry.build().unwrap();
    let read = error_saying(&mut registry.watch(&users()), "nobody", "refused").await;
    let written = refusal_saying(&registry, &users(), endpoint(1), "refused").await;
    for error in [read, written] {
        let text = error.to_string();
        assert!(
            error.is_registry() && text.contains(&port.to_string()),
            "{text}"
        );
    }
}

#[tokio::test]
async fn bad_settings_are_refused_with_the_field() {
    let at = || Consul::builder("http://127.0.0.1:8500");
    let second = Duration::from_secs(1);
    for (builder, field) in [
        (Consul::builder("127.0.0.1:8500"), "url"),
        (at().agent("http://me:pw@10.0.0.1:8500"), "url"),
        (at().wait(Duration::from_millis(10)), "wait"),
        (at().wait(Duration::from_mins(11)), "wait"),
        (at().request_timeout(Duration::ZERO), "request_timeout"),
        (at().check(Check::ttl(Duration::from_millis(1))), "check"),
        (at().check(Check::http("health", second)), "check"),
        (
            at().deregister_critical_after(second),
            "deregister_critical_after",
        ),
        (at().max_body(0), "max_body"),
        (at().token("a\nb"), "token"),
    ] {
        let error = builder.build().unwrap_err();
        assert!(
            error.is_invalid() && error.to_string().starts_with(field),
            "{field}: {error}"
        );
        assert!(!error.to_string().contains("pw"), "{error}");
    }
}

fn short(url: String) -> ConsulBuilder {
    let builder = Consul::builder(url).check(Check::ttl(TTL));
    builder
        .request_timeout(Duration::from_secs(1))
        .wait(Duration::from_secs(2))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_lost_while_the_leader_of_three_is_killed() {
    let Some(mut cluster) = consul_cluster().await else {
        return;
    };
    let (_, leader) = http_get(cluster[0].port(), "/v1/status/leader")
        .await
        .unwrap();
    let leads = cluster
        .iter()
        .position(|server| leader.contains(&format!(":{}\"", server.var_port("RPC_PORT"))))
        .unwrap();
    let others: Vec<usize> = (0..3).filter(|&i| i != leads).collect();
    let url = |i: usize| format!("http://{}", cluster[i].address());
    let registry = short(url(others[0])).agent(url(others[1])).build().unwrap();
    killed_for_good(&registry, &mut cluster[leads]).await;
}

const TTL: Duration = Duration::from_secs(3);

/// Restores what was saved before the index rose: the entries are the same, and the index that
/// clients wait on is a lower one.
fn restored(hurt: &Hurt, moment: Moment) {
    let saved = hurt.server.dir().join("saved");
    let saved = saved.to_str().unwrap();
    let consul = |arguments: &[&str]| {
        let at = format!("-http-addr=http://{}", hurt.server.address());
        let (words, rest) = arguments.split_at(2);
        let mut consul = hurt.server.program("usr/bin/consul");
        let output = consul.args(words).arg(at).args(rest).output();
        let output = output.expect("consul was unpacked");
        assert!(output.status.success(), "consul {arguments:?}: {output:?}");
    };
    match moment {
        Moment::Hurt => {
            consul(&["snapshot", "save", saved]);
            for service in ["chaos-indexreset", "users"] {
                let name = format!("-name={service}");
                consul(&["services", "register", &name, "-id=other", "-port=1"]);
                consul(&["services", "deregister", "-id=other"]);
            }
        }
        Moment::Heal => consul(&["snapshot", "restore", saved]),
    }
}

async fn hurt() -> Option<(Consul, Hurt)> {
    let server = Launch::of("consul")?.var("EXPECT", "1").start().await;
    let hurt = Hurt::new(server, TTL, Some(restored)).await;
    let registry = short(format!("http://{}", hurt.proxy.address));
    Some((registry.build().unwrap(), hurt))
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_laws_of_chaos() {
    let Some((registry, hurt)) = hurt().await else {
        return;
    };
    let tried = testing::chaos(registry, hurt, Duration::from_mins(1)).await;
    assert_eq!(tried, Fault::ALL, "every fault there is");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_lost_whatever_happens_to_the_server() {
    let Some((registry, hurt)) = hurt().await else {
        return;
    };
    assert_eq!(no_call_is_lost(&registry, hurt).await, Fault::ALL);
}

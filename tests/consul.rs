//! Consul as it runs: the contract, what others wrote and read, restarts,
//! clusters, tokens and certificates.

mod client_common;
mod registry_common;
mod server_common;

use std::fs;
use std::time::Duration;

use registry_common::{
    endpoint, error_saying, full, goes_on_in_another_runtime, refusal_saying, registered,
    set_where, users,
};
use server_common::{Launch, Server, certificates, consul_cluster, http_get, until};
use waypost::registry::consul::{Check, Consistency, Consul, ConsulBuilder};
use waypost::{Discover, Endpoint, Registry, Status, testing};

/// Generous, as several servers start at once on two cores.
const PATIENCE: Duration = Duration::from_secs(20);

async fn consul() -> Option<Server> {
    Some(Launch::of("consul")?.start().await)
}

fn at(server: &Server) -> ConsulBuilder {
    Consul::builder(format!("http://{}", server.address()))
}

fn cli(server: &Server, arguments: &[&str]) -> String {
    let output = server
        .program("usr/bin/consul")
        .args(arguments)
        .env("CONSUL_HTTP_ADDR", server.address())
        .output()
        .expect("consul was unpacked");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "consul {arguments:?}: {said}");
    String::from_utf8(output.stdout).expect("consul speaks UTF-8")
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_contract_of_registries() {
    let Some(server) = consul().await else { return };
    testing::registry(at(&server).build().unwrap(), PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_ended_is_not_the_end() {
    let Some(launch) = Launch::of("consul") else {
        return;
    };
    let server = launch.start().await;
    let address = server.address();
    goes_on_in_another_runtime(move || {
        Consul::builder(format!("http://{address}"))
            .build()
            .unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_an_endpoint_comes_back() {
    let Some(server) = consul().await else { return };
    let registry = at(&server).build().unwrap();
    let full = full();
    let none = endpoint(1).with_weight(0);
    let named = Endpoint::at("users-7.internal:80").unwrap();
    let mut held = Vec::new();
    for endpoint in [&full, &none, &named] {
        held.push(registered(&registry, endpoint.clone()).await);
    }
    let mut sets = registry.watch(&users());
    let set = set_where(&mut sets, "all show", |set| set.len() == 3).await;
    for endpoint in [&full, &none, &named] {
        assert_eq!(**set.get(endpoint.id()).unwrap(), *endpoint);
    }
}

#[tokio::test]
async fn what_consul_would_refuse_or_change_is_refused_with_the_field() {
    let registry = Consul::builder("http://127.0.0.1:1").build().unwrap();
    let at = || Endpoint::builder("10.0.0.1:80");
    for (builder, field) in [
        (Endpoint::builder("unix:/run/a"), "endpoint.address"),
        (at().metadata("a.b", "c"), "endpoint.metadata key"),
        (
            at().metadata("waypost-weight", "9"),
            "endpoint.metadata key",
        ),
        (at().metadata("a", "x".repeat(513)), "endpoint.metadata"),
    ] {
        let refused = registry.register(&users(), builder.build().unwrap()).await;
        let error = refused.unwrap_err();
        assert!(
            error.is_invalid() && error.to_string().starts_with(field),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cli_sees_ours_and_we_see_the_clis() {
    let Some(server) = consul().await else { return };
    let registry = at(&server).announce_tag("blue").build().unwrap();
    let ours = registered(&registry, endpoint(1)).await;
    until(
        "the CLI lists our service and its tag",
        PATIENCE,
        async || {
            cli(&server, &["catalog", "services", "-tags"])
                .lines()
                .any(|line| line.split_whitespace().eq(["users", "blue"]))
        },
    )
    .await;

    cli(
        &server,
        &[
            "services",
            "register",
            "-name=users",
            "-id=theirs",
            "-address=10.1.2.3",
            "-port=80",
            "-tag=a",
            "-tag=b",
            "-meta=version=v1",
        ],
    );
    // Without an address of its own: the node's.
    cli(
        &server,
        &[
            "services",
            "register",
            "-name=users",
            "-id=bare",
            "-port=81",
        ],
    );
    // Without a port, nothing can be called.
    cli(
        &server,
        &["services", "register", "-name=users", "-id=portless"],
    );
    let mut sets = registry.watch(&users());
    let set = set_where(&mut sets, "ours and theirs", |set| {
        set.len() == 3 && set.skipped().is_some()
    })
    .await;
    assert!(set.get(endpoint(1).id()).is_some());
    let find = |id: &str| {
        set.iter()
            .find(|it| it.id().as_str().ends_with(id))
            .unwrap()
    };
    let theirs = find("/theirs");
    assert_eq!(theirs.address().as_str(), "10.1.2.3:80");
    assert_eq!(&*theirs.metadata()["consul.tags"], "a,b");
    assert_eq!(&*theirs.metadata()["version"], "v1");
    assert!(theirs.takes_calls());
    assert_eq!(find("/bare").address().as_str(), "127.0.0.1:81");
    let skipped = set.skipped().unwrap();
    assert_eq!(skipped.count, 1);
    assert!(
        skipped.example.to_string().contains("port"),
        "{}",
        skipped.example
    );

    cli(
        &server,
        &["maint", "-enable", "-service=theirs", "-reason=test"],
    );
    set_where(&mut sets, "maintenance drains", |set| {
        set.iter()
            .any(|it| it.id().as_str().ends_with("/theirs") && it.status() == Status::Draining)
    })
    .await;

    ours.deregister().await.unwrap();
    until("the CLI sees that ours left", PATIENCE, async || {
        let (_, text) = http_get(server.port(), "/v1/catalog/service/users")
            .await
            .unwrap();
        !text.contains("waypost-entry")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_can_be_narrowed() {
    let Some(server) = consul().await else { return };
    for (id, tag, version) in [("1", "a", "v1"), ("2", "b", "v2")] {
        let (id, tag) = (format!("-id={id}"), format!("-tag={tag}"));
        let meta = format!("-meta=version={version}");
        let fixed = [
            "services",
            "register",
            "-name=users",
            "-address=10.0.0.1",
            "-port=80",
        ];
        cli(&server, &[&fixed[..], &[&id, &tag, &meta]].concat());
    }
    let passing = at(&server).passing(true);
    let down = passing.clone().build().unwrap();
    let starting = endpoint(3).with_status(Status::Draining);
    let _drains = registered(&down, starting).await;
    for (what, builder, expected) in [
        ("all", at(&server), 3),
        ("passing", passing, 2),
        ("tag", at(&server).tag("a"), 1),
        (
            "two tags that no instance has both",
            at(&server).tag("a").tag("b"),
            0,
        ),
        (
            "filter",
            at(&server).filter("Service.Meta.version == \"v2\""),
            1,
        ),
        (
            "datacenter",
            at(&server).datacenter("dc1").near("_agent"),
            3,
        ),
        (
            "node without that metadata",
            at(&server).node_meta("a", "b"),
            0,
        ),
        ("stale", at(&server).consistency(Consistency::Stale), 3),
        (
            "consistent",
            at(&server).consistency(Consistency::Consistent),
            3,
        ),
    ] {
        let registry = builder.build().unwrap();
        let mut sets = registry.watch(&users());
        set_where(&mut sets, what, |set| set.len() == expected).await;
    }
    let elsewhere = at(&server).datacenter("nowhere").build().unwrap();
    let mut sets = elsewhere.watch(&users());
    let error = error_saying(&mut sets, "another datacenter", "datacenter").await;
    assert!(error.is_registry(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_consul_runs_decides() {
    let Some(server) = consul().await else { return };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let alive = Endpoint::builder(listener.local_addr().unwrap()).id("alive");
    let dead = Endpoint::builder("127.0.0.1:1").id("dead");
    let registry = at(&server)
        .check(Check::tcp(Duration::from_secs(1)))
        .build()
        .unwrap();
    let mut held = Vec::new();
    for endpoint in [alive, dead] {
        held.push(registered(&registry, endpoint.build().unwrap()).await);
    }
    let mut sets = registry.watch(&users());
    set_where(&mut sets, "the one that is alive shows", |set| {
        set.len() == 1 && set.endpoints()[0].id().as_str() == "alive"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_forgot_everything_is_told_again() {
    let Some(mut server) = consul().await else {
        return;
    };
    let registry = at(&server)
        .check(Check::ttl(Duration::from_secs(3)))
        .build()
        .unwrap();
    let registration = registered(&registry, endpoint(1)).await;
    let mut sets = registry.watch(&users());
    set_where(&mut sets, "it shows", |set| set.len() == 1).await;
    // `-dev` keeps all in memory: it comes back with indices that begin anew.
    server.kill();
    // Who asks all the time sees that; an index of before would wait at the new one.
    error_saying(&mut sets, "the watch of before", "").await;
    until("the registration says so", PATIENCE, async || {
        !registration.state().is_registered()
    })
    .await;
    server.restart().await;
    let other = at(&server).build().unwrap();
    let mut seen_by_others = other.watch(&users());
    set_where(&mut seen_by_others, "it is entered again", |set| {
        set.len() == 1
    })
    .await;
    let _new = registered(&registry, endpoint(2)).await;
    set_where(&mut sets, "the old watch follows the new indices", |set| {
        set.len() == 2
    })
    .await;
    until("the registration is well again", PATIENCE, async || {
        registration.state().is_registered()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_agent_takes_over() {
    let Some(launch) = Launch::of("consul") else {
        return;
    };
    let mut first = launch.start().await;
    let second = Launch::of("consul").unwrap().start().await;
    let builder = at(&first).agent(format!("http://{}", second.address()));
    let registry = builder
        .check(Check::ttl(Duration::from_secs(3)))
        .build()
        .unwrap();
    let _held = registered(&registry, endpoint(1)).await;
    let mut sets = registry.watch(&users());
    set_where(&mut sets, "it shows", |set| set.len() == 1).await;
    first.kill();
    let other = at(&second).build().unwrap();
    let mut at_second = other.watch(&users());
    set_where(&mut at_second, "it is entered at the second", |set| {
        set.len() == 1
    })
    .await;
    let _new = registered(&other, endpoint(2)).await;
    set_where(&mut sets, "the watch goes on at the second", |set| {
        set.len() == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_sent_and_never_shown() {
    const TOKEN: &str = "5ec3e7b0-1111-2222-3333-444455556666";
    const WRONG: &str = "bad00000-1111-2222-3333-444455556666";
    let Some(launch) = Launch::of("consul") else {
        return;
    };
    let server = launch
        .var("EXPECT", "1")
        .var("ACL_TOKEN", TOKEN)
        .start()
        .await;
    let right = at(&server).token(TOKEN).build().unwrap();
    // The token is made when the leader has been elected, some moments later.
    let _held = registered(&right, endpoint(1)).await;
    let mut sets = right.watch(&users());
    set_where(&mut sets, "the token reads", |set| set.len() == 1).await;

    let wrong = at(&server).token(WRONG).build().unwrap();
    let write = refusal_saying(&wrong, &users(), endpoint(2), "403").await;
    let read = error_saying(&mut wrong.watch(&users()), "a wrong token", "403").await;
    for error in [write, read] {
        let text = format!("{error} {error:?}");
        assert!(
            error.is_registry() && text.contains("403") && text.contains("token"),
            "{text}"
        );
        assert!(
            text.contains(&server.address()) && !text.contains(WRONG),
            "{text}"
        );
    }
    let shown = format!("{wrong:?} {:?}", at(&server).token(WRONG));
    assert!(!shown.contains(WRONG), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_checked_on_both_sides() {
    let Some(launch) = Launch::of("consul") else {
        return;
    };
    let (pki, other) = (certificates(), certificates());
    let port = server_common::free_port();
    let _server = launch
        .var("TLS_DIR", pki.path().display().to_string())
        .var("HTTPS_PORT", port.to_string())
        .start()
        .await;
    let read = |file: &str| fs::read(pki.path().join(file)).unwrap();
    let https = || Consul::builder(format!("https://127.0.0.1:{port}"));
    let right = https()
        .ca_certificate(read("ca.pem"))
        .client_certificate(read("client.pem"), read("client.key"))
        .build()
        .unwrap();
    let _held = registered(&right, endpoint(1)).await;
    set_where(&mut right.watch(&users()), "TLS works", |set| {
        set.len() == 1
    })
    .await;

    let stranger = fs::read(other.path().join("ca.pem")).unwrap();
    let no_client = https().ca_certificate(read("ca.pem"));
    let not_trusted = https()
        .ca_certificate(stranger)
        .client_certificate(read("client.pem"), read("client.key"));
    for (builder, why) in [(no_client, "ertificate"), (not_trusted, "certificate")] {
        let registry = builder.build().unwrap();
        let error = error_saying(&mut registry.watch(&users()), why, why).await;
        let text = error.to_string();
        assert!(error.is_registry(), "{text}");
        assert!(text.contains(&port.to_string()), "{text}");
    }
    let error = https().ca_certificate("nonsense").build().unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("ca_certificate"));
    let error = https()
        .client_certificate(read("client.pem"), "x")
        .build()
        .unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("client_certificate"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_leader_of_three_is_killed() {
    let Some(mut cluster) = consul_cluster().await else {
        return;
    };
    let (_, leader) = http_get(cluster[0].port(), "/v1/status/leader")
        .await
        .unwrap();
    let rpc = leader
        .trim_matches('"')
        .rsplit(':')
        .next()
        .unwrap()
        .to_owned();
    let leads = cluster
        .iter()
        .position(|server| server.var_port("RPC_PORT").to_string() == rpc)
        .unwrap();
    let rest: Vec<usize> = (0..3).filter(|&i| i != leads).collect();
    let build = |i: usize| {
        let builder = at(&cluster[i]).agent(format!("http://{}", cluster[rest[1]].address()));
        builder
            .check(Check::ttl(Duration::from_secs(30)))
            .build()
            .unwrap()
    };
    let registry = build(rest[0]);
    let stale = at(&cluster[rest[0]])
        .consistency(Consistency::Stale)
        .build()
        .unwrap();
    let mut held = Vec::new();
    for i in 1..=10 {
        held.push(registered(&registry, endpoint(i)).await);
    }
    let mut sets = registry.watch(&users());
    set_where(&mut sets, "all show", |set| set.len() == 10).await;

    cluster[leads].kill();
    // Without a leader: any server still reads.
    let mut reads = stale.watch(&users());
    set_where(&mut reads, "stale reads go on", |set| set.len() == 10).await;
    // An agent takes an entry at once and tells the others when it can.
    let _after = registered(&registry, endpoint(11)).await;
    let mut fewest = usize::MAX;
    set_where(&mut sets, "writes resume", |set| {
        fewest = fewest.min(set.len());
        set.len() == 11
    })
    .await;
    assert!(fewest >= 10, "no set ever lacked a registration: {fewest}");
    assert!(held.iter().all(|it| it.state().is_registered()));
}

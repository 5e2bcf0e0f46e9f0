//! etcd 3.5 and 3.4 as they run: the contract, what others wrote and read,
//! leases, clusters, users and certificates.

mod client_common;
mod registry_common;
mod server_common;

use std::fs;
use std::time::Duration;

use registry_common::{
    Mode, Proxy, endpoint, error_saying, full, goes_on_in_another_runtime,
    lives_as_long_as_its_process, refusal_saying, registered, set_where, users,
};
use server_common::{Launch, Server, certificates, etcd_cluster, http_get, on_both_etcds, until};
use waypost::registry::etcd::{Etcd, EtcdBuilder, Layout};
use waypost::{Discover as _, Endpoint, EndpointSet, Error, Registry as _, testing};

/// Generous, as several servers start at once on two cores.
const PATIENCE: Duration = Duration::from_secs(30);
/// Long enough for a machine that stands still for a while.
const TTL: Duration = Duration::from_secs(9);
/// For entries that shall lapse.
const SHORT: Duration = Duration::from_secs(3);

on_both_etcds! {
    keeps_the_contract_of_registries
    every_field_of_an_endpoint_comes_back
    etcdctl_sees_ours_and_we_see_etcdctls
    services_and_prefixes_are_kept_apart
    an_entry_lives_as_long_as_its_process
    a_runtime_that_ended_is_not_the_end
    a_lease_that_was_revoked_is_granted_anew
    what_was_compacted_away_is_read_anew
    a_watch_that_broke_off_goes_on
    more_than_one_answer_holds_comes_in_parts
    a_cluster_that_forgot_everything_is_told_again
    users_and_passwords_are_checked_and_never_shown
    certificates_are_checked_on_both_sides
    nothing_is_lost_when_the_leader_of_three_is_killed
}

fn at(address: impl std::fmt::Display) -> EtcdBuilder {
    Etcd::builder(format!("http://{address}"))
        .lease_ttl(TTL)
        .request_timeout(Duration::from_secs(9))
}

fn etcdctl(server: &Server, arguments: &[&str]) -> String {
    let output = server
        .program("usr/bin/etcdctl")
        .args(["--endpoints", &server.address()])
        .args(arguments)
        .env("ETCDCTL_API", "3")
        .output()
        .expect("etcdctl was unpacked");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "etcdctl {arguments:?}: {said}");
    String::from_utf8(output.stdout).expect("etcdctl speaks UTF-8")
}

fn revision(server: &Server) -> String {
    let status = etcdctl(server, &["get", "nothing", "-w", "json"]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    status["header"]["revision"].to_string()
}

async fn keeps_the_contract_of_registries(version: &'static str) {
    let Some(launch) = Launch::of(version) else {
        return;
    };
    let server = launch.start().await;
    for layout in [Layout::Grpc, Layout::Plain] {
        let registry = at(server.address()).layout(layout).build().unwrap();
        testing::registry(registry, PATIENCE).await;
    }
    let left = etcdctl(&server, &["get", "--prefix", "", "--keys-only"]);
    assert_eq!(left.trim(), "", "it is left as it was found");
}

async fn every_field_of_an_endpoint_comes_back(version: &'static str) {
    let Some(launch) = Launch::of(version) else {
        return;
    };
    let server = launch.start().await;
    let full = full();
    let none = endpoint(1).with_weight(0);
    let socket = Endpoint::at("unix:/run/users.sock").unwrap();
    for layout in [Layout::Grpc, Layout::Plain] {
        let registry = at(server.address()).layout(layout).build().unwrap();
        let mut held = Vec::new();
        for endpoint in [&full, &none, &socket] {
            held.push(registered(&registry, endpoint.clone()).await);
        }
        let mut sets = registry.watch(&users());
        let set = set_where(&mut sets, "all show", |set| set.len() == 3).await;
        for endpoint in [&full, &none, &socket] {
            assert_eq!(**set.get(endpoint.id()).unwrap(), *endpoint, "{layout:?}");
        }
    }
}

async fn etcdctl_sees_ours_and_we_see_etcdctls(version: &'static str) {
    let Some(launch) = Launch::of(version) else {
        return;
    };
    let server = launch.start().await;
    let registry = at(server.address()).build().unwrap();
    let here = Endpoint::at("10.0.0.1:80").unwrap();
    let ours = registered(&registry, here).await;
    let found = etcdctl(&server, &["get", "--prefix", "users/"]);
    let (key, value) = found.trim().split_once('\n').unwrap();
    assert_eq!(key, "users/10.0.0.1:80");
    let value: serde_json::Value = serde_json::from_str(value).unwrap();
    let go = serde_json::json!({ "Op": 0, "Addr": "10.0.0.1:80", "Metadata": null });
    assert_eq!(value, go, "as Go's naming/endpoints writes it");

    let theirs = r#"{"Op":0,"Addr":"10.0.0.2:80","Metadata":{"version":"v1"}}"#;
    etcdctl(&server, &["put", "users/theirs", theirs]);
    etcdctl(&server, &["put", "users/broken", "hello"]);
    let mut sets = registry.watch(&users());
    let set = set_where(&mut sets, "ours and theirs", |set| set.len() == 2).await;
    let find = |id: &str| set.iter().find(|it| it.id().as_str() == id).unwrap();
    assert_eq!(find("theirs").address().as_str(), "10.0.0.2:80");
    assert_eq!(&*find("theirs").metadata()["version"], "v1");
    let skipped = set.skipped().expect("what is malformed is counted");
    assert_eq!(skipped.count, 1);
    assert!(skipped.example.to_string().contains("broken"));

    etcdctl(&server, &["put", "users/broken", theirs]);
    set_where(&mut sets, "mended", |set| set.len() == 3).await;
    etcdctl(&server, &["del", "users/theirs"]);
    set_where(&mut sets, "deleted", |set| set.len() == 2).await;
    ours.deregister().await.unwrap();
    set_where(&mut sets, "left", |set| set.len() == 1).await;
    let keys = etcdctl(&server, &["get", "--prefix", "users/", "--keys-only"]);
    assert_eq!(keys.trim(), "users/broken");
    assert!(
        etcdctl(&server, &["lease", "list"]).contains("found 0 leases"),
        "the lease went, too"
    );
}

async fn services_and_prefixes_are_kept_apart(version: &'static str) {
    let Some(launch) = Launch::of(version) else {
        return;
    };
    let server = launch.start().await;
    let prefixed = at(server.address()).prefix("prod/").build().unwrap();
    let bare = at(server.address()).build().unwrap();
    let _a = registered(&prefixed, endpoint(1)).await;
    let user = "user".parse().unwrap();
    let mut held = None;
    until("it is registered", PATIENCE, async || {
        held = bare.register(&user, endpoint(2)).await.ok();
        held.is_some()
    })
    .await;
    let _c = registered(&bare, endpoint(3)).await;
    for (registry, service, expected) in [
        (&prefixed, &users(), 1),
        (&bare, &user, 2),
        (&bare, &users(), 3),
    ] {
        let set = set_where(&mut registry.watch(service), "a set", |_| true).await;
        assert_eq!(set.endpoints().len(), 1);
        assert_eq!(set.endpoints()[0].id(), endpoint(expected).id());
    }
}

async fn an_entry_lives_as_long_as_its_process(version: &'static str) {
    let Some(launch) = Launch::of(version) else {
        return;
    };
    let server = launch.start().await;
    let address = server.address();
    let build = move || at(&address).lease_ttl(SHORT).build().unwrap();
    lives_as_long_as_its_process(build, SHORT).await;
}

/// Guards: no call was ever answered again.
async fn a_runtime_that_ended_is_not_the_end(version: &'static str) {
    let Some(launch) = Launch::of(version) else {
        return;
    };
    let server = launch.start().await;
    let address = server.address();
    goes_on_in_another_runtime(move || at(address).build().unwrap()).await;
}

async fn a_lease_that_was_revoked_is_granted_anew(version: &'static str) {
    let Some(launch) = Launch::of(version) else {
        return;
    };
    let server = launch.start().await;
    let short = at(server.address()).lease_ttl(SHORT);
    let registry = short.build().unwrap();
    let held = registered(&registry, endpoint(1)).await;
    let shows = async |what: &str| {
        set_where(&mut registry.watch(&users()), what, |set| set.len() == 1).await;
    };
    shows("it shows").await;
    // It may be back before anybody sees that it went.
    for _ in 0..3 {
        let leases = || {
            let listed = etcdctl(&server, &["lease", "list"]);
            let leases = listed.lines().skip(1).map(|line| line.trim().to_owned());
            leases.collect::<Vec<_>>()
        };
        let before = leases();
        for lease in &before {
            etcdctl(&server, &["lease", "revoke", lease]);
        }
        until("another lease is granted", PATIENCE, async || {
            leases().iter().any(|lease| !before.contains(lease))
        })
        .await;
        shows("it is back").await;
    }
    etcdctl(&server, &["del", "users/users-1"]);
    shows("it was deleted and is back").await;
    until("the registration says so", PATIENCE, async || {
        held.state().is_registered()
    })
    .await;
    let other = registered(&registry, endpoint(1).with_weight(7)).await;
    until("the later registration stands", PATIENCE, async || {
        matches!(held.state(), waypost::RegistrationState::Lost)
    })
    .await;
    assert!(other.state().is_registered());
}

async fn what_was_compacted_away_is_read_anew(version: &'static str) {
    let Some(launch) = Launch::of(version) else {
        return;
    };
    let server = launch.start().await;
    let proxy = Proxy::start(server.address()).await;
    let registry = at(proxy.address).build().unwrap();
    for i in 0..5 {
        put(&server, i);
    }
    let mut sets = registry.watch(&users());
    set_where(&mut sets, "all show", |set| set.len() == 5).await;
    proxy.set(Mode::Cut);
    let error = error_saying(&mut sets, "it is cut off", "").await;
    assert!(error.is_registry(), "{error}");
    etcdctl(&server, &["del", "users/users-0"]);
    put(&server, 7);
    put(&server, 7);
    etcdctl(&server, &["compact", "--physical", &revision(&server)]);
    proxy.set(Mode::Open);
    let set = set_where(&mut sets, "what happened in between", |set| {
        set.get(endpoint(7).id()).is_some()
    })
    .await;
    assert_eq!(set.len(), 5, "one came, one went: {set:?}");
    put(&server, 8);
    set_where(&mut sets, "the watch goes on", |set| set.len() == 6).await;

    // A watch that is open is not hurt by a compaction.
    put(&server, 9);
    etcdctl(&server, &["compact", "--physical", &revision(&server)]);
    put(&server, 10);
    set_where(&mut sets, "both show", |set| set.len() == 8).await;
}

async fn a_watch_that_broke_off_goes_on(version: &'static str) {
    let Some(launch) = Launch::of(version) else {
        return;
    };
    let server = launch.start().await;
    let proxy = Proxy::start(server.address()).await;
    let registry = at(proxy.address).build().unwrap();
    put(&server, 0);
    let mut sets = registry.watch(&users());
    set_where(&mut sets, "it shows", |set| set.len() == 1).await;
    for i in 1..5 {
        proxy.set(Mode::Cut);
        let address = proxy.address.to_string();
        error_saying(&mut sets, "it is cut off", &address).await;
        put(&server, i);
        proxy.set(Mode::Open);
        set_where(&mut sets, "what happened in between", |set| {
            set.len() == usize::from(i) + 1
        })
        .await;
    }
}

/// etcd breaks answers of a watch up that are longer than 1.5 MiB.
async fn more_than_one_answer_holds_comes_in_parts(version: &'static str) {
    let Some(launch) = Launch::of(version) else {
        return;
    };
    let server = launch.start().await;
    let proxy = Proxy::start(server.address()).await;
    let registry = at(proxy.address).build().unwrap();
    let mut sets = registry.watch(&users());
    set_where(&mut sets, "nobody", EndpointSet::is_empty).await;
    proxy.set(Mode::Cut);
    error_saying(&mut sets, "it is cut off", "").await;
    let long = "x".repeat(100_000);
    for i in 0..32 {
        let value = format!(r#"{{"Addr":"10.0.0.1:{}","Long":"{long}"}}"#, 80 + i);
        etcdctl(&server, &["put", &format!("users/{i}"), &value]);
    }
    proxy.set(Mode::Open);
    set_where(&mut sets, "all of them", |set| set.len() == 32).await;
}

/// What etcdctl writes has no lease.
fn put(server: &Server, i: u16) {
    let endpoint = endpoint(i);
    let value = format!(r#"{{"Op":0,"Addr":"{}"}}"#, endpoint.address());
    etcdctl(
        server,
        &["put", &format!("users/{}", endpoint.id()), &value],
    );
}

async fn a_cluster_that_forgot_everything_is_told_again(version: &'static str) {
    let Some(launch) = Launch::of(version) else {
        return;
    };
    let mut server = launch.start().await;
    let registry = at(server.address()).build().unwrap();
    for i in 10..20 {
        put(&server, i);
    }
    let held = registered(&registry, endpoint(1)).await;
    let mut sets = registry.watch(&users());
    set_where(&mut sets, "all show", |set| set.len() == 11).await;
    server.forget();
    until("the registration says so", PATIENCE, async || {
        !held.state().is_registered()
    })
    .await;
    server.restart().await;
    // The new one has the cluster id of the old one, and smaller revisions.
    set_where(&mut sets, "ours alone is there", |set| {
        set.len() == 1 && set.endpoints()[0].id() == endpoint(1).id()
    })
    .await;
    put(&server, 2);
    set_where(&mut sets, "the old watch follows", |set| set.len() == 2).await;
    until("the registration is well again", PATIENCE, async || {
        held.state().is_registered()
    })
    .await;
}

async fn users_and_passwords_are_checked_and_never_shown(version: &'static str) {
    const PASSWORD: &str = "correct-horse";
    let Some(launch) = Launch::of(version) else {
        return;
    };
    let mut server = launch.start().await;
    for words in [
        "user add root:root-password",
        "user grant-role root root",
        "user add waypost:correct-horse",
        "role add discovery",
        "role grant-permission discovery readwrite users/ users0",
        "user grant-role waypost discovery",
        "auth enable",
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        etcdctl(&server, &words);
    }
    let address = server.address();
    let right = at(&address).user("waypost", PASSWORD).build().unwrap();
    let held = registered(&right, endpoint(1)).await;
    let mut sets = right.watch(&users());
    set_where(&mut sets, "the user reads", |set| set.len() == 1).await;

    let orders = "orders".parse().unwrap();
    let refused = |error: Error| {
        let text = format!("{error} {error:?}");
        assert!(error.is_registry(), "{text}");
        assert!(text.contains(&address), "it says where: {text}");
        assert!(!text.contains("-horse"), "{text}");
    };
    for (builder, service, says) in [
        (at(&address), &users(), "give a user"),
        (
            at(&address).user("waypost", "wrong-horse"),
            &users(),
            "check the user",
        ),
        (
            at(&address).user("nobody", PASSWORD),
            &users(),
            "check the user",
        ),
        (
            at(&address).user("waypost", PASSWORD),
            &orders,
            "permission denied",
        ),
    ] {
        assert!(!format!("{builder:?}").contains("-horse"));
        let registry = builder.build().unwrap();
        assert!(!format!("{registry:?}").contains("-horse"));
        refused(error_saying(&mut registry.watch(service), says, says).await);
        refused(refusal_saying(&registry, service, endpoint(2), says).await);
    }

    // Tokens live in the member's memory: after a restart they are unknown, and
    // one of many watches asks for another.
    let watching = (0..50).map(|_| {
        let mut sets = right.watch(&users());
        tokio::spawn(async move {
            set_where(&mut sets, "it goes on", |set| set.len() == 2).await;
        })
    });
    let watching: Vec<_> = watching.collect();
    server.kill();
    server.restart().await;
    until("the registration is well again", PATIENCE, async || {
        held.state().is_registered()
    })
    .await;
    let _new = registered(&right, endpoint(3)).await;
    set_where(&mut sets, "the watch got a new token", |set| set.len() == 2).await;
    for watch in watching {
        watch.await.unwrap();
    }
    let (_, metrics) = http_get(server.port(), "/metrics").await.unwrap();
    let logins = metrics.lines().filter(|line| {
        line.starts_with("grpc_server_started_total") && line.contains("\"Authenticate\"")
    });
    let logins: f64 = logins
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert!((1.0..=5.0).contains(&logins), "{logins}");
}

async fn certificates_are_checked_on_both_sides(version: &'static str) {
    let Some(launch) = Launch::of(version) else {
        return;
    };
    let (pki, other) = (certificates(), certificates());
    let mut server = launch
        .var("TLS_DIR", pki.path().display().to_string())
        .ready(server_common::Ready::Accepts)
        .spawn();
    server.wait().await;
    let read = |file: &str| fs::read(pki.path().join(file)).unwrap();
    let https = || Etcd::builder(format!("https://{}", server.address())).lease_ttl(TTL);
    let right = https()
        .ca_certificate(read("ca.pem"))
        .client_certificate(read("client.pem"), read("client.key"))
        .build()
        .unwrap();
    // It accepts before it has elected itself.
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
    let plain = at(server.address());
    for (builder, why) in [
        (no_client, "ertificate"),
        (not_trusted, "certificate"),
        (plain, "Range"),
    ] {
        let registry = builder.build().unwrap();
        let error = error_saying(&mut registry.watch(&users()), why, why).await;
        let text = error.to_string();
        assert!(error.is_registry(), "{text}");
        assert!(text.contains(&server.address()), "{text}");
    }
    let error = https().ca_certificate("nonsense").build().unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("ca_certificate"));
}

async fn nothing_is_lost_when_the_leader_of_three_is_killed(version: &'static str) {
    let Some(mut cluster) = etcd_cluster(version).await else {
        return;
    };
    let mut leads = None;
    for (i, member) in cluster.iter().enumerate() {
        let (_, metrics) = http_get(member.port(), "/metrics").await.unwrap();
        if metrics.contains("etcd_server_is_leader 1") {
            leads = Some(i);
        }
    }
    let leads = leads.expect("one leads");
    let rest: Vec<usize> = (0..3).filter(|&i| i != leads).collect();
    // The leader comes first, so that clients have to turn.
    let all = at(cluster[leads].address())
        .endpoint(format!("http://{}", cluster[rest[0]].address()))
        .endpoint(format!("http://{}", cluster[rest[1]].address()));
    let registry = all
        .clone()
        .lease_ttl(Duration::from_secs(30))
        .build()
        .unwrap();
    let mut held = Vec::new();
    for i in 1..=10 {
        held.push(registered(&registry, endpoint(i)).await);
    }
    let mut sets = registry.watch(&users());
    set_where(&mut sets, "all show", |set| set.len() == 10).await;

    cluster[leads].kill();
    // No leader yet: reads go on.
    let fresh = all.build().unwrap();
    let mut reads = fresh.watch(&users());
    set_where(&mut reads, "reads go on", |set| set.len() == 10).await;
    let mut after = None;
    until("writes resume", PATIENCE, async || {
        after = registry.register(&users(), endpoint(11)).await.ok();
        after.is_some()
    })
    .await;
    let mut fewest = usize::MAX;
    set_where(&mut sets, "the watch goes on", |set| {
        fewest = fewest.min(set.len());
        set.len() == 11
    })
    .await;
    assert!(fewest >= 10, "no set ever lacked a registration: {fewest}");

    // The second member goes, too: nothing can be agreed on, and what is left
    // still tells what it has.
    cluster[rest[0]].kill();
    let alone = at(cluster[rest[1]].address()).request_timeout(Duration::from_secs(3));
    let alone = alone.build().unwrap();
    let mut reads = alone.watch(&users());
    set_where(&mut reads, "a member alone is read", |set| set.len() == 11).await;
    for i in [leads, rest[0]] {
        cluster[i].start();
    }
    for i in [leads, rest[0]] {
        cluster[i].wait().await;
    }
    until("every registration is well", PATIENCE, async || {
        held.iter().all(|it| it.state().is_registered())
    })
    .await;
    let mut sets = alone.watch(&users());
    set_where(&mut sets, "all are there", |set| set.len() == 11).await;
}

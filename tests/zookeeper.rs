//! ZooKeeper as it runs: the contract, what others wrote and read, sessions,
//! ensembles, users.

mod client_common;
mod registry_common;
mod server_common;

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use registry_common::{
    Mode, Proxy, endpoint, error_saying, full, goes_on_in_another_runtime,
    lives_as_long_as_its_process, refusal_saying, registered, set_where, users,
};
use server_common::{
    Launch, Server, certificates, found, free_port, scripts, servers_dir, until, zookeeper_cluster,
};
use tempfile::TempDir;
use waypost::registry::zookeeper::{ZooKeeper, ZooKeeperBuilder};
use waypost::{Discover as _, Endpoint, EndpointSet, RegistrationState, Registry as _, testing};

/// Generous, as several servers start at once on two cores.
const PATIENCE: Duration = Duration::from_secs(30);
/// Long enough for a machine that stands still for a while.
const SESSION: Duration = Duration::from_secs(9);
/// For sessions that shall expire.
const SHORT: Duration = Duration::from_secs(3);

fn at(address: impl Into<String>) -> ZooKeeperBuilder {
    ZooKeeper::builder(address)
        .session_timeout(SESSION)
        .request_timeout(SESSION)
}

/// ZooKeeper's own client, in Java.
fn zk_cli(server: &Server, words: &[&str]) -> String {
    let output = server.script(words).output().expect("bash is there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "zkCli {words:?}: {said}");
    String::from_utf8(output.stdout).expect("zkCli speaks UTF-8")
}

fn instance(id: &str, port: u16) -> String {
    format!(
        r#"{{"name":"users","id":"{id}","address":"10.0.0.2","port":{port},"sslPort":null,"payload":null,"registrationTimeUTC":1,"serviceType":"STATIC","uriSpec":null}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_contract_of_registries() {
    let Some(launch) = Launch::of("zookeeper") else {
        return;
    };
    let server = launch.start().await;
    for base in ["/services", "/", "/deep/er"] {
        let registry = at(server.address()).base_path(base).build().unwrap();
        testing::registry(registry, PATIENCE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_ended_is_not_the_end() {
    let Some(launch) = Launch::of("zookeeper") else {
        return;
    };
    let server = launch.start().await;
    let address = server.address();
    goes_on_in_another_runtime(move || at(address).build().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_an_endpoint_comes_back() {
    let Some(launch) = Launch::of("zookeeper") else {
        return;
    };
    let server = launch.start().await;
    let full = full();
    let none = endpoint(1).with_weight(0);
    let dots = Endpoint::builder("a.example:80").id("..").build().unwrap();
    let registry = at(server.address()).build().unwrap();
    let mut held = Vec::new();
    for endpoint in [&full, &none, &dots] {
        held.push(registered(&registry, endpoint.clone()).await);
    }
    let mut sets = registry.watch(&users());
    let set = set_where(&mut sets, "all show", |set| set.len() == 3).await;
    for endpoint in [&full, &none, &dots] {
        assert_eq!(**set.get(endpoint.id()).unwrap(), *endpoint);
    }
    let socket = Endpoint::at("unix:/run/users.sock").unwrap();
    let refused = registry.register(&users(), socket).await.unwrap_err();
    assert!(refused.is_invalid(), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn zk_cli_sees_ours_and_we_see_zk_clis() {
    let Some(launch) = Launch::of("zookeeper") else {
        return;
    };
    let server = launch.start().await;
    let registry = at(server.address()).build().unwrap();
    let here = Endpoint::at("10.0.0.1:80").unwrap();
    let ours = registered(&registry, here).await;
    let found = zk_cli(&server, &["get", "/services/users/10.0.0.1:80"]);
    let found = found.lines().find(|line| line.starts_with('{'));
    let found: serde_json::Value = serde_json::from_str(found.expect("there is JSON")).unwrap();
    for (field, value) in [
        ("name", "users".into()),
        ("id", "10.0.0.1:80".into()),
        ("address", "10.0.0.1".into()),
        ("port", 80.into()),
        ("payload", serde_json::Value::Null),
        ("serviceType", "DYNAMIC".into()),
    ] {
        assert_eq!(found[field], value, "{field}");
    }

    let mut sets = registry.watch(&users());
    set_where(&mut sets, "ours", |set| set.len() == 1).await;
    zk_cli(
        &server,
        &["create", "/services/users/theirs", &instance("theirs", 80)],
    );
    zk_cli(&server, &["create", "/services/users/broken", "hello"]);
    let is_there = |set: &EndpointSet| set.len() == 2 && set.skipped().is_some();
    let set = set_where(&mut sets, "ours and theirs", is_there).await;
    let theirs = set.iter().find(|it| it.id().as_str() == "theirs").unwrap();
    assert_eq!(theirs.address().as_str(), "10.0.0.2:80");
    let skipped = set.skipped().expect("what is malformed is counted");
    assert_eq!(skipped.count, 1);
    assert!(skipped.example.to_string().contains("broken"));

    zk_cli(
        &server,
        &["set", "/services/users/broken", &instance("mended", 81)],
    );
    set_where(&mut sets, "mended", |set| set.len() == 3).await;
    zk_cli(&server, &["delete", "/services/users/theirs"]);
    set_where(&mut sets, "deleted", |set| set.len() == 2).await;
    ours.deregister().await.unwrap();
    set_where(&mut sets, "left", |set| set.len() == 1).await;
    let left = zk_cli(&server, &["ls", "/services/users"]);
    assert!(left.contains("[broken]"), "{left}");
}

/// Curator's service discovery, in Java, on that server.
fn curator(server: &Server, words: &[&str]) -> Command {
    let mut command = Command::new("bash");
    let script = scripts().join("curator.sh");
    command.arg(script).args(words);
    command.env("PORT", server.port().to_string());
    command.env("SERVERS_DIR", servers_dir());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn curator_sees_ours_and_we_see_curators() {
    let (Some(launch), true) = (Launch::of("zookeeper"), found("curator")) else {
        return;
    };
    let server = launch.start().await;
    let registry = at(server.address()).build().unwrap();
    let plain = Endpoint::at("10.0.0.1:80").unwrap();
    let full = Endpoint::builder("users-2.internal:8080").id("größe/2");
    let full = full.weight(7).zone("eu-1a").metadata("version", "v2");
    let full = full.build().unwrap();
    let _plain = registered(&registry, plain).await;
    let _full = registered(&registry, full).await;
    let output = curator(&server, &["list", "users"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let listed = String::from_utf8(output.stdout).unwrap();
    let line = |id: &str| listed.lines().find_map(|line| line.strip_prefix(id));
    assert_eq!(line("10.0.0.1:80 "), Some("10.0.0.1 80 null"), "{listed}");
    let full = line("größe/2 ").unwrap_or_else(|| panic!("{listed}"));
    assert!(full.starts_with("users-2.internal 8080 "), "{listed}");
    assert!(full.contains("version=v2"), "{listed}");

    let mut sets = registry.watch(&users());
    let mut theirs = curator(&server, &["register", "users", "theirs", "81"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let set = set_where(&mut sets, "theirs shows", |set| set.len() == 3).await;
    let found = set.get(&"theirs".parse().unwrap()).unwrap();
    assert_eq!(found.address().as_str(), "10.0.0.9:81");
    // Its input ends, and it takes the entry out.
    drop(theirs.stdin.take());
    set_where(&mut sets, "theirs left", |set| set.len() == 2).await;
    assert!(theirs.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_lives_as_long_as_its_process() {
    let Some(launch) = Launch::of("zookeeper") else {
        return;
    };
    let server = launch.start().await;
    let address = server.address();
    let build = move || at(&*address).session_timeout(SHORT).build().unwrap();
    lives_as_long_as_its_process(build, SHORT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_the_last_that_needs_it() {
    let Some(launch) = Launch::of("zookeeper") else {
        return;
    };
    // So long that the test would not see it expire.
    let server = launch.start().await;
    let long = || at(server.address()).session_timeout(Duration::from_mins(1));
    let registry = long().build().unwrap();
    let watching = long().build().unwrap();
    let mut sets = watching.watch(&users());
    let held = registered(&registry, endpoint(1)).await;
    set_where(&mut sets, "it shows", |set| set.len() == 1).await;
    drop(registry);
    drop(held);
    set_where(&mut sets, "it left", EndpointSet::is_empty).await;
    until("one session is left", PATIENCE, async || {
        sessions(&server).await == 1
    })
    .await;
    drop((watching, sets));
    until("no session is left", PATIENCE, async || {
        sessions(&server).await == 0
    })
    .await;
}

/// As the four letters `dump` tell.
async fn sessions(server: &Server) -> usize {
    let told = server.four_letters("dump").await;
    let (_, told) = told.split_once("Session Sets").unwrap_or_default();
    told.lines()
        .take_while(|line| !line.starts_with("ephemeral"))
        .filter(|line| line.trim_start().starts_with("0x"))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_deleted_is_entered_again_and_a_newer_one_stands() {
    let Some(launch) = Launch::of("zookeeper") else {
        return;
    };
    let server = launch.start().await;
    let registry = at(server.address()).build().unwrap();
    let held = registered(&registry, endpoint(1)).await;
    let mut sets = registry.watch(&users());
    set_where(&mut sets, "it shows", |set| set.len() == 1).await;
    // It may be back before anybody sees that it went.
    let deleting = tokio::task::spawn_blocking(move || {
        zk_cli(&server, &["delete", "/services/users/users-1"]);
        server
    });
    let server = deleting.await.unwrap();
    let mut sets = registry.watch(&users());
    set_where(&mut sets, "it is back", |set| set.len() == 1).await;
    until("the registration says so", PATIENCE, async || {
        held.state().is_registered()
    })
    .await;

    // Another process.
    let elsewhere = at(server.address()).build().unwrap();
    let heavier = endpoint(1).with_weight(7);
    let mut fewest = usize::MAX;
    let other = registered(&elsewhere, heavier).await;
    set_where(&mut sets, "the other stands", |set| {
        fewest = fewest.min(set.len());
        set.iter().any(|it| it.weight() == 7)
    })
    .await;
    assert_eq!(fewest, 1, "it was replaced at once");
    until("the first knows", PATIENCE, async || {
        matches!(held.state(), RegistrationState::Lost)
    })
    .await;
    held.deregister().await.unwrap();
    assert!(other.state().is_registered());
    let set = set_where(&mut registry.watch(&users()), "a set", |_| true).await;
    assert_eq!(set.len(), 1, "who was replaced takes nothing out");
}

/// The server is alive and the way to it is cut for longer than the session
/// lasts: it expires, and a new one takes its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_expired_is_begun_anew() {
    let Some(launch) = Launch::of("zookeeper") else {
        return;
    };
    let server = launch.start().await;
    let proxy = Proxy::start(server.address()).await;
    let short = at(proxy.address.to_string()).session_timeout(SHORT);
    let registry = short.build().unwrap();
    let _held = registered(&registry, endpoint(1)).await;
    let direct = at(server.address()).build().unwrap();
    let mut seen = direct.watch(&users());
    set_where(&mut seen, "it shows", |set| set.len() == 1).await;
    let mut sets = registry.watch(&users());
    set_where(&mut sets, "it shows", |set| set.len() == 1).await;
    for round in 2..4 {
        proxy.set(Mode::Cut);
        let error = error_saying(&mut sets, "it is cut off", "").await;
        assert!(error.is_registry(), "{error}");
        set_where(&mut seen, "it went with its session", EndpointSet::is_empty).await;
        let _other = registered(&direct, endpoint(round)).await;
        proxy.set(Mode::Open);
        set_where(&mut seen, "it is back", |set| set.len() == 2).await;
        set_where(&mut sets, "the watch is, too", |set| set.len() == 2).await;
    }
}

/// The session outlives its connection: nothing is entered anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_broke_off_is_made_again_in_the_same_session() {
    let Some(launch) = Launch::of("zookeeper") else {
        return;
    };
    let server = launch.start().await;
    let proxy = Proxy::start(server.address()).await;
    let long = |address: String| at(address).session_timeout(PATIENCE).build();
    let registry = long(proxy.address.to_string()).unwrap();
    let _held = registered(&registry, endpoint(1)).await;
    let before = server.four_letters("dump").await;
    let mut sets = registry.watch(&users());
    set_where(&mut sets, "it shows", |set| set.len() == 1).await;
    let direct = long(server.address()).unwrap();
    for i in 2..6 {
        proxy.set(Mode::Cut);
        error_saying(&mut sets, "it is cut off", "").await;
        let other = registered(&direct, endpoint(i)).await;
        proxy.set(Mode::Open);
        set_where(&mut sets, "what happened in between", |set| set.len() == 2).await;
        other.deregister().await.unwrap();
        set_where(&mut sets, "and what does now", |set| set.len() == 1).await;
    }
    let after = server.four_letters("dump").await;
    // Each session is followed by what it owns.
    let owner = |dump: &str| {
        let (owners, _) = dump.split_once("/services/users/users-1").unwrap();
        let owner = owners.lines().rfind(|line| line.starts_with("0x"));
        owner.expect("somebody owns it").to_owned()
    };
    assert_eq!(owner(&before), owner(&after), "the session is the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_passwords_are_checked_and_never_shown() {
    let Some(launch) = Launch::of("zookeeper") else {
        return;
    };
    let server = launch.start().await;
    let with = |password: &str| at(server.address()).digest("waypost", password);
    let builder = with("correct-horse");
    assert!(!format!("{builder:?}").contains("-horse"));
    let right = builder.build().unwrap();
    assert!(!format!("{right:?}").contains("-horse"));
    let _held = registered(&right, endpoint(1)).await;
    for stranger in [with("wrong-horse"), at(server.address())] {
        let stranger = stranger.build().unwrap();
        let mut sets = stranger.watch(&users());
        set_where(&mut sets, "all may read", |set| set.len() == 1).await;
        for i in [1, 2] {
            let error = refusal_saying(&stranger, &users(), endpoint(i), "NoAuth").await;
            let text = format!("{error} {error:?}");
            assert!(error.is_registry(), "{text}");
            assert!(text.contains(&server.address()), "{text}");
            assert!(!text.contains("-horse"), "{text}");
        }
    }
    // What may not be read is counted.
    zk_cli(
        &server,
        &["create", "/services/secret", "x", "world:anyone:cdrwa"],
    );
    let secret = "secret".parse().unwrap();
    zk_cli(
        &server,
        &["create", "/services/secret/a", "x", "digest:a:b:c"],
    );
    let set = set_where(&mut right.watch(&secret), "a set", |_| true).await;
    let skipped = set.skipped().expect("it is counted");
    assert!(
        skipped.example.to_string().contains("NoAuth"),
        "{skipped:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_checked_on_both_sides() {
    let Some(launch) = Launch::of("zookeeper") else {
        return;
    };
    let (pki, other) = (certificates(), certificates());
    let launch = launch.var("TLS_PORT", free_port().to_string());
    let folder = pki.path().display().to_string();
    let mut server = launch.var("TLS_DIR", folder).start().await;
    let address = format!("127.0.0.1:{}", server.var_port("TLS_PORT"));
    until("it listens for TLS, too", PATIENCE, async || {
        tokio::net::TcpStream::connect(&*address).await.is_ok()
    })
    .await;
    let read = |pki: &TempDir, file: &str| fs::read(pki.path().join(file)).unwrap();
    let with = |authority: &TempDir, client: &TempDir| {
        at(&*address)
            .ca_certificate(read(authority, "ca.pem"))
            .client_certificate(read(client, "client.pem"), read(client, "client.key"))
    };
    let right = with(&pki, &pki).build().unwrap();
    testing::registry(right.clone(), PATIENCE).await;
    let held = registered(&right, endpoint(1)).await;
    let plain = at(server.address()).build().unwrap();
    let mut sets = plain.watch(&users());
    set_where(&mut sets, "who reads plain text sees it", |set| {
        set.len() == 1
    })
    .await;
    server.restart().await;
    until("the session goes on in TLS", PATIENCE, async || {
        held.state().is_registered()
    })
    .await;

    for (name, builder, why) in [
        ("a stranger's server", with(&other, &pki), "certificate"),
        ("a stranger as the client", with(&pki, &other), ""),
        (
            "nobody",
            at(&*address).ca_certificate(read(&pki, "ca.pem")),
            "",
        ),
        (
            "the machine's authorities",
            at(&*address).tls(),
            "certificate",
        ),
        ("no TLS", at(&*address), ""),
        (
            "TLS to who has none",
            at(server.address()).ca_certificate(read(&pki, "ca.pem")),
            "",
        ),
    ] {
        let registry = builder.build().unwrap();
        let error = error_saying(&mut registry.watch(&users()), name, why).await;
        let text = error.to_string();
        assert!(error.is_registry(), "{name}: {text}");
        assert!(text.contains("127.0.0.1:"), "{name}: {text}");
    }
    let error = at(&*address)
        .ca_certificate("nonsense")
        .build()
        .unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("ca_certificate"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_leader_of_three_is_killed() {
    let Some(mut cluster) = zookeeper_cluster().await else {
        return;
    };
    let mut leads = None;
    for (i, member) in cluster.iter().enumerate() {
        if member.four_letters("srvr").await.contains("Mode: leader") {
            leads = Some(i);
        }
    }
    let leads = leads.expect("one leads");
    let rest: Vec<usize> = (0..3).filter(|&i| i != leads).collect();
    let mut all = at(cluster[leads].address()).session_timeout(PATIENCE);
    for &i in &rest {
        all = all.server(cluster[i].address());
    }
    let registry = all.build().unwrap();
    let mut held = Vec::new();
    for i in 1..=10 {
        held.push(registered(&registry, endpoint(i)).await);
    }
    let mut sets = registry.watch(&users());
    set_where(&mut sets, "all show", |set| set.len() == 10).await;
    cluster[leads].kill();
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
    cluster[leads].restart().await;
    until("every registration is well", PATIENCE, async || {
        held.iter().all(|it| it.state().is_registered())
    })
    .await;
}

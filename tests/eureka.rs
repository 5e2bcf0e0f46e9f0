//! Eureka, against a strict stand-in that two clients of others' making prove.

mod client_common;
mod eureka_server;
mod registry_common;
mod server_common;
mod tls_common;

use std::process::{Command, Output};
use std::time::Duration;

use eureka_server::EurekaServer;
use registry_common::{endpoint, error_saying, full, refusal_saying, registered, set_where, users};
use server_common::{found, servers_dir, until};
use tls_common::{Authority, Front};
use tokio::time::Instant;
use waypost::registry::eureka::{Eureka, EurekaBuilder};
use waypost::{
    Balancer, Discover, Endpoint, EndpointSet, Outcome, RegistrationState, ServiceName, Status,
    testing,
};

const PATIENCE: Duration = Duration::from_secs(20);
const LEASE: Duration = Duration::from_secs(6);

/// Patient with a machine that stands still for a while.
fn at(url: impl Into<String>) -> EurekaBuilder {
    let builder = Eureka::builder(url).fetch_interval(Duration::from_millis(50));
    builder
        .lease(Duration::from_secs(1), LEASE)
        .request_timeout(Duration::from_secs(9))
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_contract_of_registries() {
    let server = EurekaServer::start().await;
    testing::registry(at(server.url()).build().unwrap(), PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_checked_on_both_sides() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = EurekaServer::start().await;
    let front = Front::start(authority.mutual(&["127.0.0.1"]), server.address).await;
    let port = front.address.port().to_string();
    let https = || at(format!("https://127.0.0.1:{port}/eureka"));
    let me = authority.identity(&["me"]);
    let right = https()
        .ca_certificate(authority.root_pem.as_str())
        .client_certificate(me.cert_pem.as_str(), me.key_pem.as_str());
    testing::registry(right.build().unwrap(), PATIENCE).await;

    let no_client = https().ca_certificate(authority.root_pem.as_str());
    let not_trusted = https()
        .ca_certificate(other.root_pem.as_str())
        .client_certificate(me.cert_pem.as_str(), me.key_pem.as_str());
    let elsewhere = at(format!("https://localhost:{port}/eureka"))
        .ca_certificate(authority.root_pem.as_str())
        .client_certificate(me.cert_pem.as_str(), me.key_pem.as_str());
    for builder in [no_client, not_trusted, elsewhere] {
        let registry = builder.build().unwrap();
        let says = "ertificate";
        let read = error_saying(&mut registry.watch(&users()), says, says).await;
        let written = refusal_saying(&registry, &users(), endpoint(1), says).await;
        for error in [read, written] {
            let text = error.to_string();
            assert!(error.is_registry(), "{text}");
            assert!(text.contains(&port), "{text}");
        }
    }
    for (builder, field) in [
        (https().ca_certificate("nonsense"), "ca_certificate"),
        (
            https().client_certificate(me.cert_pem, "x"),
            "client_certificate",
        ),
    ] {
        let error = builder.build().unwrap_err();
        assert!(
            error.is_invalid() && error.to_string().contains(field),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_an_endpoint_comes_back() {
    let server = EurekaServer::start().await;
    let registry = at(server.url()).build().unwrap();
    let full = full().with_weight(0);
    let named = Endpoint::at("users-7.internal:80").unwrap();
    let _full = registered(&registry, full.clone()).await;
    let _named = registered(&registry, named.clone()).await;
    let mut sets = registry.watch(&users());
    let set = set_where(&mut sets, "both show", |set| set.len() == 2).await;
    for endpoint in [full, named] {
        assert_eq!(**set.get(endpoint.id()).unwrap(), endpoint);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_changed_is_fetched_until_the_counts_differ() {
    let server = EurekaServer::start().await;
    let registry = at(server.url()).build().unwrap();
    let _one = registered(&registry, endpoint(1)).await;
    let mut sets = registry.watch(&users());
    set_where(&mut sets, "it shows", |set| set.len() == 1).await;
    let _two = registered(&registry, endpoint(2)).await;
    set_where(&mut sets, "a delta shows it", |set| set.len() == 2).await;
    assert!(server.asked("GET /apps/delta") >= 1);
    let full = server.asked("GET /apps") - server.asked("GET /apps/");
    assert_eq!(full, 1, "everything was fetched once");

    server.lossy(true);
    let _three = registered(&registry, endpoint(3)).await;
    set_where(&mut sets, "a lost change is found by the counts", |set| {
        set.len() == 3
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_services_are_one_reader() {
    let server = EurekaServer::start().await;
    let registry = Eureka::builder(server.url()).build().unwrap();
    for i in 0..20 {
        let service: ServiceName = format!("service-{i}").parse().unwrap();
        let mut sets = registry.watch(&service);
        set_where(&mut sets, "an answer", EndpointSet::is_empty).await;
    }
    assert_eq!(server.asked("GET /apps"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_was_forgotten_or_overridden() {
    let server = EurekaServer::start().await;
    let registry = at(server.url()).build().unwrap();
    let held = registered(&registry, endpoint(1)).await;
    let mut sets = registry.watch(&users());
    set_where(&mut sets, "it shows", |set| set.len() == 1).await;
    server.forget();
    until("it is registered again", PATIENCE, async || {
        server.instance("USERS", "users-1").is_some()
    })
    .await;
    let id = endpoint(1).id().clone();
    registry
        .override_status(&users(), &id, Some(Status::Draining))
        .await
        .unwrap();
    set_where(&mut sets, "the override shows", |set| {
        set.iter().all(|it| it.status() == Status::Draining) && set.len() == 1
    })
    .await;
    registry.override_status(&users(), &id, None).await.unwrap();
    set_where(&mut sets, "it is gone", |set| {
        set.iter().all(|it| it.status() == Status::Up) && set.len() == 1
    })
    .await;
    // Renewed for longer than its lease lasts.
    let (begun, renewed) = (Instant::now(), server.asked("PUT /apps/USERS/users-1"));
    until("renewals go on", 2 * PATIENCE, async || {
        begun.elapsed() > LEASE && server.asked("PUT /apps/USERS/users-1") > renewed + 4
    })
    .await;
    server.evict();
    assert!(server.instance("USERS", "users-1").is_some());
    held.deregister().await.unwrap();
    assert!(server.instance("USERS", "users-1").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_fail_are_a_hint_before_the_interval_is_over() {
    let server = EurekaServer::start().await;
    let hour = Duration::from_hours(1);
    let registry = at(server.url()).fetch_interval(hour).build().unwrap();
    let _old = registered(&registry, endpoint(1)).await;
    let balancer = Balancer::builder("users").build(registry.clone()).await;
    let balancer = balancer.unwrap();
    balancer.ready(PATIENCE).await.unwrap();
    let _new = registered(&registry, endpoint(2)).await;
    let begun = Instant::now();
    until("the new one is found", PATIENCE, async || {
        balancer.pick().unwrap().finish(Outcome::NotSent);
        balancer.current().len() == 2
    })
    .await;
    // More come after a second each.
    let asked = server.asked("GET /apps/delta") as u64;
    let most = 2 + begun.elapsed().as_secs();
    assert!((1..=most).contains(&asked), "{asked} of {most}");
}

/// Guards: where a process before had a clock that was ahead, its successor was
/// never seen, and took itself for replaced.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_clock_wrote_that_was_ahead_is_replaced() {
    let server = EurekaServer::start().await;
    let registry = at(server.url()).build().unwrap();
    let crashed = registered(&registry, endpoint(1)).await;
    server.ahead();
    let mut held = registered(&registry, endpoint(1).with_weight(7)).await;
    let mut sets = registry.watch(&users());
    let weighs = |weight| move |set: &EndpointSet| set.iter().all(|it| it.weight() == weight);
    set_where(&mut sets, "the new one shows", |set| {
        set.len() == 1 && weighs(7)(set)
    })
    .await;
    until("the old one knows", PATIENCE, async || {
        matches!(crashed.state(), RegistrationState::Lost)
    })
    .await;
    server.ahead();
    held.set_weight(8).await.unwrap();
    set_where(&mut sets, "its change shows, too", weighs(8)).await;
    let beats = server.asked("PUT /apps/USERS/users-1");
    until("it is renewed", PATIENCE, async || {
        server.asked("PUT /apps/USERS/users-1") > beats + 2
    })
    .await;
    assert!(held.state().is_registered());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_server_takes_over() {
    let (first, second) = (EurekaServer::start().await, EurekaServer::start().await);
    let registry = at(first.url()).server(second.url()).build().unwrap();
    let _held = registered(&registry, endpoint(1)).await;
    let mut sets = registry.watch(&users());
    set_where(&mut sets, "it shows", |set| set.len() == 1).await;
    first.broken(Some(503));
    until("it is registered at the second", PATIENCE, async || {
        second.instance("USERS", "users-1").is_some()
    })
    .await;
    let asked = first.asked("");
    let other = at(second.url()).build().unwrap();
    let _two = registered(&other, endpoint(2)).await;
    set_where(&mut sets, "the second is read", |set| set.len() == 2).await;
    assert!(first.asked("") <= asked + 2, "the first is in quarantine");
}

fn ran(command: &mut Command) -> Output {
    let output = command.output().expect("it can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{command:?}: {said} {told}");
    output
}

/// What the client was proven to do: it read ours, registered its own with a
/// port that we read, renewed it, and took it out.
async fn proves(server: &EurekaServer, id: &'static str, mut client: Command) {
    let registry = at(server.url()).build().unwrap();
    let _ours = registered(&registry, endpoint(1)).await;
    let mut sets = registry.watch(&"theirs".parse().unwrap());
    let running = tokio::task::spawn_blocking(move || ran(&mut client));
    let set = set_where(&mut sets, "we see theirs", |set| set.len() == 1).await;
    assert_eq!(set.endpoints()[0].address().as_str(), "127.0.0.1:8123");
    assert!(set.endpoints()[0].takes_calls());
    let output = running.await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("saw 127.0.0.1:9001 UP"),
        "it sees ours: {said}"
    );
    assert!(
        server.asked(&format!("PUT /apps/THEIRS/{id}")) >= 1,
        "it renewed"
    );
    set_where(&mut sets, "it left", EndpointSet::is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_for_node_registers_renews_and_reads() {
    if !found("eureka-js-client") {
        return;
    }
    let server = EurekaServer::start().await;
    let script = r"
        const { Eureka } = require('eureka-js-client');
        const client = new Eureka({
          instance: { app: 'theirs', instanceId: 'js-1', hostName: 'localhost', ipAddr: '127.0.0.1',
            port: { '$': 8123, '@enabled': true }, vipAddress: 'theirs',
            dataCenterInfo: { '@class': 'com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo', name: 'MyOwn' } },
          eureka: { host: '127.0.0.1', port: +process.env.EUREKA_PORT, servicePath: '/eureka/apps/',
            heartbeatInterval: 200, registryFetchInterval: 200 },
        });
        client.logger.level('error');
        client.start(error => {
          if (error) { console.error(error); process.exit(1); }
          const [it] = client.getInstancesByAppId('users');
          console.log(`saw ${it.ipAddr}:${it.port.$} ${it.status}`);
          setTimeout(() => client.stop(() => process.exit(0)), 1500);
        });";
    let mut node = Command::new("node");
    node.args(["-e", script])
        .env("EUREKA_PORT", server.address.port().to_string())
        .env(
            "NODE_PATH",
            servers_dir().join("eureka-js-client/node_modules"),
        );
    proves(&server, "js-1", node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_for_python_registers_renews_and_reads() {
    if !found("py-eureka-client") {
        return;
    }
    let server = EurekaServer::start().await;
    let script = r#"
import os, time
import py_eureka_client.eureka_client as eureka
client = eureka.init(eureka_server=os.environ["EUREKA_URL"], app_name="theirs", instance_id="py-1",
                     instance_ip="127.0.0.1", instance_host="localhost", instance_port=8123,
                     renewal_interval_in_secs=1, duration_in_secs=3)
it = client.applications.get_application("users").up_instances[0]
print(f"saw {it.ipAddr}:{it.port.port} {it.status}")
time.sleep(2.5)
eureka.stop()
"#;
    let mut python = Command::new("python3");
    python
        .args(["-c", script])
        .env("EUREKA_URL", server.url())
        .env("PYTHONPATH", servers_dir().join("py-eureka-client"));
    proves(&server, "py-1", python).await;
}

//! What comes of ZooKeeper when it fails, hangs, lies or is not ZooKeeper at
//! all.

mod client_common;
mod registry_common;
mod server_common;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use registry_common::{
    Hurt, asked_per_second, endpoint, error_saying, killed_for_good, no_call_is_lost,
    refusal_saying, registered, set_where, users,
};
use server_common::{Launch, zookeeper_cluster};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use waypost::registry::zookeeper::{ZooKeeper, ZooKeeperBuilder};
use waypost::testing::{self, Fault};
use waypost::{Discover as _, Endpoint, EndpointSet, Registry as _};

/// Generous, as several servers start at once on two cores.
const PATIENCE: Duration = Duration::from_secs(30);
const SESSION: Duration = Duration::from_secs(3);

/// Soon tired of a server that hangs.
fn at(address: impl Into<String>) -> ZooKeeperBuilder {
    ZooKeeper::builder(address)
        .session_timeout(SESSION)
        .request_timeout(Duration::from_secs(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_lost_while_the_leader_of_three_is_killed() {
    let Some(mut cluster) = zookeeper_cluster().await else {
        return;
    };
    let mut leads = 0;
    for (i, member) in cluster.iter().enumerate() {
        if member.four_letters("srvr").await.contains("Mode: leader") {
            leads = i;
        }
    }
    let mut builder = at(cluster[leads].address());
    for member in &cluster {
        builder = builder.server(member.address());
    }
    let registry = builder.build().unwrap();
    killed_for_good(&registry, &mut cluster[leads]).await;
}

/// All but the index: there is none that clients wait on.
fn has_all(tried: &[Fault]) {
    let all = Fault::ALL
        .into_iter()
        .filter(|fault| *fault != Fault::IndexReset);
    assert_eq!(tried, all.collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_laws_of_chaos() {
    let Some(launch) = Launch::of("zookeeper") else {
        return;
    };
    let hurt = Hurt::new(launch.start().await, SESSION, None).await;
    let registry = at(hurt.proxy.address.to_string()).build().unwrap();
    has_all(&testing::chaos(registry, hurt, Duration::from_mins(1)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_lost_whatever_happens_to_the_server() {
    let Some(launch) = Launch::of("zookeeper") else {
        return;
    };
    let hurt = Hurt::new(launch.start().await, SESSION, None).await;
    let registry = at(hurt.proxy.address.to_string()).build().unwrap();
    has_all(&no_call_is_lost(&registry, hurt).await);
}

/// A message: its length and what is in it.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&length.to_be_bytes()[..], message].concat()
}

/// A session of 30 s, with the number 7.
fn session() -> Vec<u8> {
    let parts: [&[u8]; 6] = [
        &0_u32.to_be_bytes(),
        &30_000_u32.to_be_bytes(),
        &7_u64.to_be_bytes(),
        &16_u32.to_be_bytes(),
        &[1; 16],
        &[0],
    ];
    framed(&parts.concat())
}

fn reply(xid: i32, rest: &[u8]) -> Vec<u8> {
    let parts: [&[u8]; 4] = [&xid.to_be_bytes(), &[0; 8], &[0; 4], rest];
    framed(&parts.concat())
}

/// A server that says one thing after another, each when it was asked.
#[derive(Clone)]
struct Script {
    says: Vec<Vec<u8>>,
    then: Then,
}

#[derive(Clone, Copy)]
enum Then {
    HangsUp,
    IsSilent,
    NeverEnds,
}

struct Fake {
    address: SocketAddr,
    asked: Arc<AtomicU64>,
    /// Bytes of what never ends that were taken.
    sent: Arc<AtomicU64>,
    serving: JoinHandle<()>,
}

impl Fake {
    async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, sent): (Arc<AtomicU64>, Arc<AtomicU64>) = Default::default();
        let (count, bytes) = (asked.clone(), sent.clone());
        let serving = tokio::spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                open.spawn(play(stream, script.clone(), bytes.clone()));
            }
        });
        Self {
            address,
            asked,
            sent,
            serving,
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Until the other side hangs up, which is an error here.
async fn play(mut stream: TcpStream, script: Script, sent: Arc<AtomicU64>) -> io::Result<()> {
    for say in script.says {
        frame(&mut stream).await?;
        stream.write_all(&say).await?;
    }
    match script.then {
        Then::HangsUp => Ok(()),
        Then::IsSilent => loop {
            stream.read_u8().await?;
        },
        Then::NeverEnds => loop {
            sent.fetch_add(1 << 14, Ordering::Relaxed);
            stream.write_all(&[0x20; 1 << 14]).await?;
        },
    }
}

/// What comes when somebody connects, and what the error says.
fn wrong_answers() -> Vec<(&'static str, Script, &'static str)> {
    let script = |says: &[Vec<u8>], then| Script {
        says: says.to_vec(),
        then,
    };
    let first = |say: &[u8]| script(&[say.to_vec()], Then::HangsUp);
    let after = |say: &[u8]| script(&[session(), say.to_vec()], Then::IsSilent);
    vec![
        ("HTTP", first(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "bytes"),
        ("SSH", first(b"SSH-2.0-OpenSSH_9.2\r\n"), "bytes"),
        ("negative", first(&[0xff; 64]), "no message"),
        ("nothing in it", first(&framed(b"")), "cannot be read"),
        ("half of it", first(&session()[..20]), "hung up"),
        (
            "expired, always",
            script(&[framed(&[0; 37])], Then::IsSilent),
            "no session",
        ),
        ("endless", script(&[], Then::NeverEnds), "bytes"),
        ("silent", script(&[], Then::IsSilent), "no session within"),
        ("hangs up", script(&[], Then::HangsUp), "broke off"),
        ("a session that ends", first(&session()), "broke off"),
        (
            "a silent session",
            script(&[session()], Then::IsSilent),
            "not answered",
        ),
        (
            "an endless session",
            script(&[session()], Then::NeverEnds),
            "bytes",
        ),
        ("a long message", after(b"\x7f\xff\xff\xff"), "max_message"),
        ("less than an answer", after(&framed(b"ab")), "less than"),
        (
            "what was not asked",
            after(&reply(99, b"")),
            "was not asked",
        ),
        ("an event of garbage", after(&reply(-1, b"\xff")), "event"),
        (
            "a list of garbage",
            after(&reply(1, b"\xff\xff\xff\xf0\xff")),
            "getChildren",
        ),
        (
            "a list that lies",
            after(&reply(1, b"\x7f\xff\xff\xff")),
            "getChildren",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_zookeeper_is_a_typed_error_that_costs_little() {
    for (name, script, says) in wrong_answers() {
        let server = Fake::start(script).await;
        let registry = at(server.address.to_string()).max_message(1 << 20);
        let mut sets = registry.build().unwrap().watch(&users());
        let error = error_saying(&mut sets, name, says).await;
        let text = error.to_string();
        assert!(error.is_registry(), "{name}: {text}");
        assert!(text.contains(&server.address.to_string()), "{name}: {text}");
        assert!(text.len() < 700, "{text}");

        let count = || server.asked.load(Ordering::Relaxed);
        let asked = asked_per_second(&mut sets, name, count).await;
        assert!(asked <= 30, "{name}: asked {asked} times in a second");
        let sent = server.sent.load(Ordering::Relaxed);
        assert!(sent < count() * (16 << 20), "{name}: {sent}");
    }
}

/// On one thread, the session is over each time before somebody who waits for it
/// sees it.
#[tokio::test]
async fn sessions_that_end_at_once_are_told_as_what_they_are() {
    let script = Script {
        says: vec![session()],
        then: Then::HangsUp,
    };
    let server = Fake::start(script).await;
    let registry = at(server.address.to_string()).build().unwrap();
    let mut sets = registry.watch(&users());
    error_saying(&mut sets, "a session that ends", "broke off").await;
}

/// A server that hangs once it is asked to create a node, and goes on when it is
/// asked for it: who registered was told an error, and the session lives on.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_entered_without_an_answer_is_taken_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (deleted, mut is_deleted) = tokio::sync::mpsc::unbounded_channel();
    let serving: JoinHandle<io::Result<()>> = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        frame(&mut stream).await?;
        stream.write_all(&session()).await?;
        let mut created = None;
        loop {
            let asked = frame(&mut stream).await?;
            let number = |at: usize| i32::from_be_bytes(asked[at..at + 4].try_into().unwrap());
            let (xid, op) = (number(0), number(4));
            match (op, &created) {
                // getData of what is not there.
                (4, None) => {
                    let parts: [&[u8]; 3] =
                        [&xid.to_be_bytes(), &[0; 8], &(-101_i32).to_be_bytes()];
                    stream.write_all(&framed(&parts.concat())).await?;
                }
                // create2: a path, and the data.
                (15, _) => {
                    let path = 12 + number(8) as usize;
                    let data = path + 4 + number(path) as usize;
                    created = Some((xid, asked[8..path].to_vec(), asked[path..data].to_vec()));
                }
                (4, Some((before, path, data))) => {
                    let stat = [0; 68];
                    let answer = reply(*before, &[path, &stat[..]].concat());
                    stream.write_all(&answer).await?;
                    let answer = reply(xid, &[data, &stat[..]].concat());
                    stream.write_all(&answer).await?;
                }
                (2, _) => drop(deleted.send(asked[12..12 + number(8) as usize].to_vec())),
                _ => stream.write_all(&reply(xid, b"")).await?,
            }
        }
    });
    // It is connected to in any case.
    let patient = at(address.to_string()).request_timeout(Duration::from_secs(4));
    let registry = patient.build().unwrap();
    let here = Endpoint::at("10.0.0.1:80").unwrap();
    let error = registry.register(&users(), here).await.unwrap_err();
    assert!(error.to_string().contains("not answered"), "{error}");
    let path = timeout(PATIENCE, is_deleted.recv()).await;
    let path = path.expect("it is taken out").unwrap();
    assert_eq!(path, b"/services/users/10.0.0.1:80");
    serving.abort();
}

async fn frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u32().await?;
    let mut frame = vec![0; length as usize];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_refused_is_told_and_not_shown() {
    let refused: [&[u8]; 3] = [&(-4_i32).to_be_bytes(), &[0; 8], &(-115_i32).to_be_bytes()];
    let script = Script {
        says: vec![session(), framed(&refused.concat())],
        then: Then::IsSilent,
    };
    let server = Fake::start(script).await;
    let registry = at(server.address.to_string()).digest("me", "s3cret");
    let mut sets = registry.build().unwrap().watch(&users());
    let error = error_saying(&mut sets, "a wrong password", "AuthFailed").await;
    assert!(!error.to_string().contains("s3cret"), "{error}");
}

/// A service that has more than is kept.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_without_end_do_not_fill_the_memory() {
    let Some(launch) = Launch::of("zookeeper") else {
        return;
    };
    let server = launch.start().await;
    let writer = at(server.address()).session_timeout(PATIENCE);
    let writer = writer.build().unwrap();
    let mut held = Vec::new();
    for i in 0..20 {
        let endpoint = Endpoint::builder(format!("10.0.0.1:{}", 80 + i));
        let endpoint = endpoint.metadata("k", "x".repeat(500)).build().unwrap();
        held.push(registered(&writer, endpoint).await);
    }
    let reader = at(server.address()).max_message(10_000).build().unwrap();
    let mut sets = reader.watch(&users());
    error_saying(&mut sets, "too many", "more than 10000 bytes").await;
    held.truncate(10);
    set_where(&mut sets, "fewer fit", |set| set.len() == 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_listens_there_and_then_something_does() {
    let Some(launch) = Launch::of("zookeeper") else {
        return;
    };
    let port = launch.get("PORT").to_owned();
    let registry = at(format!("127.0.0.1:{port}")).build().unwrap();
    let mut sets = registry.watch(&users());
    let read = error_saying(&mut sets, "nobody", "refused").await;
    let write = refusal_saying(&registry, &users(), endpoint(1), "refused").await;
    for error in [read, write] {
        let text = error.to_string();
        assert!(error.is_registry(), "{text}");
        assert!(text.contains(&port), "{text}");
    }
    let _server = launch.start().await;
    set_where(&mut sets, "it is there", EndpointSet::is_empty).await;
    let _held = registered(&registry, endpoint(1)).await;
    set_where(&mut sets, "and is written", |set| set.len() == 1).await;
}

#[tokio::test]
async fn bad_settings_are_refused_with_the_field() {
    let at = || ZooKeeper::builder("127.0.0.1:2181");
    for (builder, field) in [
        (ZooKeeper::builder("127.0.0.1"), "server"),
        (at().server("http://127.0.0.1:2181"), "server"),
        (at().server("a:1,b:2"), "server"),
        (at().server("unix:/a"), "server"),
        (at().base_path("services"), "base_path"),
        (at().base_path("/a/"), "base_path"),
        (at().base_path("/a/../b"), "base_path"),
        (at().base_path("/a\n"), "base_path"),
        (
            at().session_timeout(Duration::from_millis(1)),
            "session_timeout",
        ),
        (
            at().session_timeout(Duration::from_hours(2)),
            "session_timeout",
        ),
        (at().request_timeout(Duration::ZERO), "request_timeout"),
        (at().max_message(0), "max_message"),
        (at().digest("", "pw"), "digest"),
        (at().digest("a:b", "pw"), "digest"),
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
    let error = ZooKeeper::builder("127.0.0.1:2181").build().unwrap_err();
    assert!(error.to_string().contains("runtime"), "{error}");
}

//! What comes of DNS servers that refuse, lie, or are no DNS servers at all.
#![cfg(feature = "dns")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use waypost::Discover as _;
use waypost::registry::{Dns, Families};

const PATIENCE: Duration = Duration::from_secs(30);

/// What comes back for every question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    /// That the name has the address 10.0.0.1.
    Good,
    Silence,
    Garbage,
    /// Less than a head.
    Short,
    /// The question itself.
    Echo,
    /// To another question.
    OtherId,
    /// A status, such as 2, SERVFAIL (RFC 1035 4.1.1).
    Status(u8),
    /// A count of answers that are not there.
    CountLies,
    /// A name that points to itself.
    Loops,
    /// Ask by TCP, where there is a length and nothing else.
    HalfByTcp,
    /// Ask by TCP, where messages come that nobody asked for, without end.
    EndlessByTcp,
}

struct Server {
    address: SocketAddr,
    says: Arc<Mutex<Says>>,
    asked: Arc<AtomicU64>,
    _serving: JoinSet<()>,
}

impl Server {
    async fn start(says: Says) -> Self {
        // The port must be free in both.
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (tcp, udp);
            }
        };
        let address = udp.local_addr().unwrap();
        let says = Arc::new(Mutex::new(says));
        let asked: Arc<AtomicU64> = Arc::default();
        let mut serving = JoinSet::new();
        let (told, count) = (Arc::clone(&says), Arc::clone(&asked));
        serving.spawn(async move {
            let mut question = [0; 4096];
            while let Ok((n, from)) = udp.recv_from(&mut question).await {
                count.fetch_add(1, Ordering::Relaxed);
                let says = *told.lock().unwrap();
                if let Some(answer) = answer(says, &question[..n]) {
                    drop(udp.send_to(&answer, from).await);
                }
            }
        });
        let told = Arc::clone(&says);
        serving.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = tcp.accept().await {
                let says = *told.lock().unwrap();
                open.spawn(by_tcp(says, stream));
            }
        });
        Self {
            address,
            says,
            asked,
            _serving: serving,
        }
    }
}

fn answer(says: Says, question: &[u8]) -> Option<Vec<u8>> {
    // The question alone, without what EDNS adds to it.
    let name: usize = question[12..].iter().position(|&byte| byte == 0)?;
    let asked = question.get(12..12 + name + 5)?;
    let is_a = asked.ends_with(&[0, 1, 0, 1]);
    let with = |id: [u8; 2], flags: u8, status: u8, answers: u8, rest: &[u8]| {
        let head = [
            id[0],
            id[1],
            0x80 | flags,
            0x80 | status,
            0,
            1,
            0,
            answers,
            0,
            0,
            0,
            0,
        ];
        Some([&head, asked, rest].concat())
    };
    let id = [question[0], question[1]];
    // The name as in the question, type A, class IN, a time to live of 0.
    let address = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 10, 0, 0, 1];
    match says {
        Says::Good if is_a => with(id, 1, 0, 1, &address),
        Says::Good => with(id, 1, 0, 0, &[]),
        Says::Silence => None,
        Says::Garbage => Some(vec![0xff; 64]),
        Says::Short => Some(vec![id[0], id[1], 0x81]),
        Says::Echo => Some(question.to_vec()),
        Says::OtherId => with([id[0] ^ 1, id[1]], 1, 0, 1, &address),
        Says::Status(status) => with(id, 1, status, 0, &[]),
        Says::CountLies => with(id, 1, 0, 200, &address),
        Says::Loops => {
            let itself = u8::try_from(12 + asked.len()).ok()?;
            with(id, 1, 0, 1, &[&[0xc0, itself], &address[2..]].concat())
        }
        Says::HalfByTcp | Says::EndlessByTcp => with(id, 3, 0, 0, &[]),
    }
}

async fn by_tcp(says: Says, mut stream: TcpStream) {
    let mut question = [0; 4096];
    while stream.read(&mut question).await.is_ok_and(|n| n > 0) {
        if says == Says::HalfByTcp {
            drop(stream.write_all(&[0xff, 0xff, 1]).await);
            return;
        }
        let message = [&[0, 64][..], &[0xaa; 64]].concat();
        while says == Says::EndlessByTcp && stream.write_all(&message).await.is_ok() {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_answers_are_typed_errors_that_cost_little_and_pass() {
    for says in [
        Says::Silence,
        Says::Garbage,
        Says::Short,
        Says::Echo,
        Says::OtherId,
        Says::Status(1),
        Says::Status(2),
        Says::Status(4),
        Says::Status(5),
        Says::CountLies,
        Says::Loops,
        Says::HalfByTcp,
        Says::EndlessByTcp,
    ] {
        let server = Server::start(says).await;
        let tenth = Duration::from_millis(100);
        let dns = Dns::addresses("{service}.waypost.test", 80)
            .servers([server.address])
            .families(Families::V4)
            .timeout(tenth)
            .refresh(tenth, tenth)
            .build()
            .unwrap();
        let mut sets = dns.watch(&"users".parse().unwrap());
        let first = timeout(PATIENCE, sets.next()).await;
        let first = first.unwrap_or_else(|_| panic!("{says:?}: an error comes in time"));
        let error = match first.unwrap() {
            Err(error) => error,
            Ok(set) => panic!("{says:?}: {set:?}"),
        };
        let text = error.to_string();
        assert!(error.is_registry(), "{says:?}: {text}");
        assert!(text.contains("users.waypost.test"), "{says:?}: {text}");
        assert!(text.len() < 700, "{says:?}: {text}");

        let (before, begun) = (server.asked.load(Ordering::Relaxed), Instant::now());
        let polled = async { while sets.next().await.unwrap().is_err() {} };
        let polled = timeout(Duration::from_secs(1), polled).await;
        assert!(polled.is_err(), "{says:?}");
        let asked = server.asked.load(Ordering::Relaxed) - before;
        let seconds = begun.elapsed().as_secs() + 1;
        assert!(
            asked <= 60 * seconds,
            "{says:?}: asked {asked} times in {seconds} s"
        );

        *server.says.lock().unwrap() = Says::Good;
        let recovered = async {
            loop {
                if let Some(Ok(set)) = sets.next().await {
                    return set;
                }
            }
        };
        let set = timeout(PATIENCE, recovered).await;
        let set = set.unwrap_or_else(|_| panic!("{says:?}: it is well again"));
        assert_eq!(set.len(), 1, "{says:?}");
    }
}

/// Guards: a first question that was lost was asked again when the least time
/// between two of them was over, and until then the service was unknown.
#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_asked_again_before_the_time_of_an_answer_is_over() {
    let server = Server::start(Says::Silence).await;
    let hour = Duration::from_hours(1);
    let dns = Dns::addresses("{service}.waypost.test", 80)
        .servers([server.address])
        .families(Families::V4)
        .timeout(Duration::from_millis(100))
        .refresh(hour, hour)
        .build()
        .unwrap();
    let mut sets = dns.watch(&"users".parse().unwrap());
    assert!(sets.next().await.unwrap().is_err());
    *server.says.lock().unwrap() = Says::Good;
    let good = async { while sets.next().await.unwrap().is_err() {} };
    timeout(PATIENCE, good).await.expect("it is asked again");
}

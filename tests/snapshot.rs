//! Sets on disk: what is written is read, what is damaged is refused.
#![cfg(feature = "snapshot")]

use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;
use waypost::registry::Snapshotted;
use waypost::rng::Rng;
use waypost::{
    Balancer, Discover, Endpoint, EndpointSet, Error, Fixed, InMemory, ServiceName, testing,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A registry that is down, or hangs.
struct Broken {
    hangs: bool,
}

impl Discover for Broken {
    fn watch(&self, _: &ServiceName) -> BoxStream<'static, Result<EndpointSet, Error>> {
        let down = async { Err(Error::registry("registry", "down")) };
        if self.hangs {
            stream::pending().boxed()
        } else {
            stream::once(down).chain(stream::pending()).boxed()
        }
    }
}

/// A registry that says what it is told to say, to its one watcher.
struct Puppet(Mutex<Option<mpsc::UnboundedReceiver<Item>>>);

type Item = Result<EndpointSet, Error>;

impl Puppet {
    fn new() -> (Self, mpsc::UnboundedSender<Item>) {
        let (say, heard) = mpsc::unbounded_channel();
        (Self(Mutex::new(Some(heard))), say)
    }
}

impl Discover for Puppet {
    fn watch(&self, _: &ServiceName) -> BoxStream<'static, Item> {
        let heard = self.0.lock().unwrap().take().expect("it has one watcher");
        stream::unfold(heard, |mut heard| async {
            let item = heard.recv().await?;
            Some((item, heard))
        })
        .boxed()
    }
}

fn down() -> Item {
    Err(Error::registry("registry", "down"))
}

/// A set of endpoints with these ports.
fn set(ports: &[u16]) -> EndpointSet {
    let at = |port| Endpoint::at(format!("10.0.0.1:{port}")).unwrap();
    EndpointSet::new(ports.iter().map(at)).unwrap()
}

/// All that is told within so long, in virtual time.
async fn told_within(sets: &mut BoxStream<'static, Item>, time: Duration) -> Vec<Item> {
    let mut told = Vec::new();
    let listen = async {
        while let Some(item) = sets.next().await {
            told.push(item);
        }
    };
    timeout(time, listen).await.expect_err("it does not end");
    told
}

fn users() -> ServiceName {
    "users".parse().unwrap()
}

fn fixed() -> Fixed {
    Fixed::addresses(["10.0.0.1:80", "10.0.0.2:80"]).unwrap()
}

/// A folder with a snapshot of two endpoints.
async fn written() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let snapshotted = Snapshotted::new(fixed(), folder.path()).unwrap();
    let mut sets = snapshotted.watch(&users());
    assert_eq!(sets.next().await.unwrap().unwrap().len(), 2);
    let on_disk = async {
        while snapshotted.read(&users()).unwrap().is_none() {
            // It is written while the stream is polled.
            assert!(sets.next().now_or_never().is_none());
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, on_disk)
        .await
        .expect("it is written in time");
    folder
}

#[tokio::test]
async fn it_keeps_the_contracts_of_what_is_below() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Snapshotted::new(InMemory::new(), folder.path()).unwrap();
    testing::registry(registry, PATIENCE).await;
}

#[tokio::test]
async fn a_process_that_starts_while_its_registry_is_down_serves() {
    let folder = written().await;
    for hangs in [false, true] {
        let snapshotted = Snapshotted::new(Broken { hangs }, folder.path()).unwrap();
        let users = Balancer::builder("users").build(snapshotted).await.unwrap();
        users.ready(PATIENCE).await.unwrap();
        assert_eq!(users.current().len(), 2);
        let told = async {
            while !users.discovery().is_stale() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, told)
            .await
            .expect("it says that it is stale");
    }
}

#[tokio::test]
async fn the_registry_s_first_answer_takes_over() {
    let folder = written().await;
    let fixed = Fixed::addresses(["10.0.0.2:80", "10.0.0.3:80"]).unwrap();
    let snapshotted = Snapshotted::new(fixed, folder.path()).unwrap();
    let first = snapshotted.watch(&users()).next().await.unwrap().unwrap();
    let told: Vec<_> = first.iter().map(|one| one.address().as_str()).collect();
    assert_eq!(told, ["10.0.0.2:80", "10.0.0.3:80"]);
}

#[tokio::test]
async fn without_a_snapshot_the_registry_s_error_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let snapshotted = Snapshotted::new(Broken { hangs: false }, folder.path()).unwrap();
    let error = snapshotted
        .watch(&users())
        .next()
        .await
        .unwrap()
        .unwrap_err();
    assert!(error.to_string().contains("down"), "{error}");
}

#[tokio::test]
async fn every_damage_is_refused_and_said() {
    let folder = written().await;
    let snapshotted = Snapshotted::new(Broken { hangs: false }, folder.path()).unwrap();
    let path = snapshotted.path(&users());
    let good = fs::read(&path).unwrap();
    let mut rng = Rng::seeded(3);
    for _ in 0..500 {
        let mut bytes = good.clone();
        let at = rng.below(bytes.len() as u32) as usize;
        match rng.below(3) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes.truncate(at),
            _ => bytes.insert(at, rng.bits() as u8),
        }
        fs::write(&path, &bytes).unwrap();
        let refused = snapshotted.read(&users()).unwrap_err();
        assert!(
            refused.is_registry() && refused.to_string().contains("snapshot"),
            "{refused}"
        );
    }
    let mut sets = snapshotted.watch(&users());
    let told = [sets.next().await, sets.next().await].map(|told| told.unwrap().unwrap_err());
    assert!(
        told[0].to_string().contains("it is"),
        "why it is not used: {}",
        told[0]
    );
    assert!(
        told[1].to_string().contains("down"),
        "and the registry's error: {}",
        told[1]
    );
}

#[tokio::test]
async fn another_service_s_file_is_refused() {
    let folder = written().await;
    let snapshotted = Snapshotted::new(fixed(), folder.path()).unwrap();
    let other = "other".parse().unwrap();
    fs::copy(snapshotted.path(&users()), snapshotted.path(&other)).unwrap();
    let refused = snapshotted.read(&other).unwrap_err();
    assert!(refused.to_string().contains("`users`"), "{refused}");
}

#[test]
fn names_that_a_file_system_takes_for_one_have_files_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let snapshotted = Snapshotted::new(fixed(), folder.path()).unwrap();
    let long = |end: &str| format!("{}{end}", "a".repeat(200)).parse().unwrap();
    let names: [ServiceName; 4] = [users(), "Users".parse().unwrap(), long("b"), long("c")];
    let mut files: Vec<_> = names
        .iter()
        .map(|name| snapshotted.path(name))
        .map(|path| path.file_name().unwrap().to_string_lossy().to_lowercase())
        .collect();
    files.sort();
    files.dedup();
    assert_eq!(files.len(), 4);
    assert!(files.iter().all(|name| name.len() < 255));
}

#[test]
fn a_folder_that_cannot_be_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let refused = Snapshotted::new(fixed(), file.path().join("below")).unwrap_err();
    assert!(refused.is_registry(), "{refused}");
}

/// Guards: a registry that lost its entries one after the other within a second
/// left an empty file behind.
#[tokio::test(start_paused = true)]
async fn what_was_known_before_nothing_is_what_stays_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, say) = Puppet::new();
    let snapshotted = Snapshotted::new(registry, folder.path()).unwrap();
    let mut sets = snapshotted.watch(&users());
    say.send(Ok(set(&[1, 2, 3]))).unwrap();
    told_within(&mut sets, Duration::from_millis(500)).await;
    for ports in [&[1, 2][..], &[]] {
        say.send(Ok(set(ports))).unwrap();
    }
    told_within(&mut sets, Duration::from_mins(1)).await;
    assert_eq!(snapshotted.read(&users()).unwrap(), Some(set(&[1, 2])));
}

/// Guards: what had not changed for a day was too old to be used, though the
/// registry had stood by it until a moment before.
#[tokio::test(start_paused = true)]
async fn what_the_registry_stands_by_grows_no_older_than_an_hour() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, say) = Puppet::new();
    let snapshotted = Snapshotted::new(registry, folder.path()).unwrap();
    let mut sets = snapshotted.watch(&users());
    let path = snapshotted.path(&users());
    say.send(Ok(set(&[1]))).unwrap();
    told_within(&mut sets, Duration::from_mins(1)).await;
    for (said, is_renewed) in [
        (None, true),
        (Some(down()), false),
        (Some(Ok(set(&[1]))), true),
        (Some(Ok(set(&[]))), false),
    ] {
        fs::remove_file(&path).unwrap();
        if let Some(item) = said {
            say.send(item).unwrap();
        }
        told_within(&mut sets, Duration::from_mins(61)).await;
        assert_eq!(path.exists(), is_renewed);
        fs::write(&path, b"").unwrap();
    }
}

/// Guards: a disk that failed made a balancer take what it had for fresh, though
/// the registry was away.
#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_says_nothing_of_the_registry() {
    let folder = written().await;
    let (registry, say) = Puppet::new();
    let snapshotted = Snapshotted::new(registry, folder.path()).unwrap();
    let mut sets = snapshotted.watch(&users());
    say.send(down()).unwrap();
    let told = told_within(&mut sets, Duration::from_secs(2)).await;
    let stored = told[0].as_ref().unwrap().version();
    folder.close().unwrap();
    say.send(Ok(set(&[1]))).unwrap();
    let told = told_within(&mut sets, Duration::from_millis(500)).await;
    let [Ok(one), Err(disk), Ok(again)] = &told[..] else {
        panic!("{told:?}");
    };
    assert!(disk.to_string().contains("cannot be written"), "{disk}");
    assert!(one.version() > stored);
    assert_eq!(again.version(), one.version(), "it is the same set");
    say.send(Ok(set(&[2]))).unwrap();
    say.send(down()).unwrap();
    let told = told_within(&mut sets, Duration::from_secs(2)).await;
    let [Ok(_), Err(registry), Err(disk)] = &told[..] else {
        panic!("{told:?}");
    };
    assert!(registry.to_string().contains("down"), "{registry}");
    assert!(disk.to_string().contains("cannot be written"), "{disk}");
}

#[test]
fn what_a_killed_writer_left_is_cleared_up_and_no_other_s() {
    let folder = tempfile::tempdir().unwrap();
    let old = std::time::SystemTime::now() - Duration::from_hours(2);
    for (name, time, stays) in [
        (".writing-1-0", Some(old), false),
        (".writing-now", None, true),
        ("users-1.snapshot", Some(old), true),
    ] {
        let path = folder.path().join(name);
        let file = fs::File::create(&path).unwrap();
        if let Some(time) = time {
            file.set_modified(time).unwrap();
        }
        Snapshotted::new(fixed(), folder.path()).unwrap();
        assert_eq!(path.exists(), stays, "{name}");
    }
}

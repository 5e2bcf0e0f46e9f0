//! Sets on disk: what is written is read, what is damaged is refused.
#![cfg(feature = "snapshot")]

use std::fs;
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use tempfile::TempDir;
use tokio::time::timeout;
use waypost::registry::Snapshotted;
use waypost::rng::Rng;
use waypost::{Balancer, Discover, EndpointSet, Error, Fixed, InMemory, ServiceName, testing};

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

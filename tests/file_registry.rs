//! The file registry, on real files.
#![cfg(feature = "file")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tempfile::TempDir;
use tokio::time::timeout;
use waypost::registry::File;
use waypost::rng::Rng;
use waypost::{Balancer, Discover, Endpoint, EndpointSet, Error, testing};

const PATIENCE: Duration = Duration::from_secs(30);

const TOML: &str = r#"
[[services.users]]
address = "10.0.0.1:80"
weight = 2
locality = { zone = "a" }

[[services.users]]
address = "10.0.0.2:80"
"#;
const JSON: &str = r#"{"services": {"users": [
    {"address": "10.0.0.1:80", "weight": 2, "locality": {"zone": "a"}},
    {"address": "10.0.0.2:80"}]}}"#;
const YAML: &str = "
services:
  users:
    - address: 10.0.0.1:80
      weight: 2
      locality: {zone: a}
    - address: 10.0.0.2:80
";

type Sets = BoxStream<'static, Result<EndpointSet, Error>>;

struct Rig {
    folder: TempDir,
    path: PathBuf,
    sets: Sets,
}

impl Rig {
    fn new(name: &str, content: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        let sets = watch(&path);
        Self { folder, path, sets }
    }

    async fn set(&mut self) -> EndpointSet {
        self.next().await.expect("it is good")
    }

    async fn next(&mut self) -> Result<EndpointSet, Error> {
        let next = timeout(PATIENCE, self.sets.next()).await;
        next.expect("in time").expect("it does not end")
    }
}

fn watch(path: &Path) -> Sets {
    File::open(path).unwrap().watch(&"users".parse().unwrap())
}

fn json(ports: &[u16]) -> String {
    let entries: Vec<_> = ports
        .iter()
        .map(|port| format!(r#"{{"address": "10.0.0.1:{port}"}}"#))
        .collect();
    format!(r#"{{"services": {{"users": [{}]}}}}"#, entries.join(","))
}

fn replace(path: &Path, content: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, content).unwrap();
    fs::rename(&beside, path).unwrap();
}

#[tokio::test]
async fn all_formats_say_the_same_and_keep_the_contract() {
    let expected = EndpointSet::new([
        Endpoint::builder("10.0.0.1:80")
            .weight(2)
            .zone("a")
            .build()
            .unwrap(),
        Endpoint::at("10.0.0.2:80").unwrap(),
    ])
    .unwrap();
    for (name, content) in [
        ("e.toml", TOML),
        ("e.json", JSON),
        ("e.yaml", YAML),
        ("e.yml", YAML),
    ] {
        let rig = Rig::new(name, content);
        let file = File::open(&rig.path).unwrap();
        testing::discover(file, &"users".parse().unwrap(), &expected, PATIENCE).await;
    }
}

#[tokio::test]
async fn another_ending_is_refused() {
    for path in ["endpoints", "endpoints.ini", "/"] {
        let refused = File::open(path).unwrap_err();
        assert!(
            refused.is_invalid() && refused.to_string().contains(".toml"),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn a_file_replaced_by_a_rename_is_read_again_and_shares_what_stayed() {
    let mut rig = Rig::new("e.json", &json(&[1, 2]));
    let before = rig.set().await;
    replace(&rig.path, &json(&[1, 2, 3]));
    let after = rig.set().await;
    assert_eq!(after.len(), 3);
    assert!(after.version() > before.version());
    assert!(std::sync::Arc::ptr_eq(
        &before.endpoints()[0],
        &after.endpoints()[0]
    ));
    replace(&rig.path, &json(&[]));
    assert!(rig.set().await.is_empty());
}

#[tokio::test]
async fn a_file_written_in_place_is_read_again() {
    let mut rig = Rig::new("e.json", &json(&[1]));
    assert_eq!(rig.set().await.len(), 1);
    fs::write(&rig.path, json(&[1, 2])).unwrap();
    loop {
        // It may be seen empty, which is wrong, while it is written.
        if rig.next().await.is_ok_and(|set| set.len() == 2) {
            break;
        }
    }
}

/// Kubernetes mounts a `ConfigMap` as links through `..data`, which is swapped
/// by a rename: nothing ever happens to the file's own name.
#[cfg(unix)]
#[tokio::test]
async fn a_swapped_data_link_is_followed() {
    use std::os::unix::fs::symlink;

    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (version, ports) in [("..1", &[1][..]), ("..2", &[1, 2])] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("e.json"), json(ports)).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/e.json", at("e.json")).unwrap();
    let mut sets = watch(&at("e.json"));
    let next = timeout(PATIENCE, sets.next()).await.unwrap();
    assert_eq!(next.unwrap().unwrap().len(), 1);
    symlink("..2", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    let next = timeout(PATIENCE, sets.next()).await.unwrap();
    assert_eq!(next.unwrap().unwrap().len(), 2);
}

#[tokio::test]
async fn a_wrong_file_keeps_the_last_good_set_and_says_why_and_where() {
    let mut rig = Rig::new("e.json", &json(&[1]));
    let users = Balancer::builder("users")
        .build(File::open(&rig.path).unwrap())
        .await
        .unwrap();
    rig.set().await;
    for (content, why) in [
        ("", "EOF"),
        (r#"{"services": {"users": ["#, "line 1 column 24"),
        ("{}", "services"),
        (
            "{\"services\": {\"users\": [\n{\"address\": \"10.0.0.1\"}]}}",
            "line 2",
        ),
        (
            r#"{"services": {"users": [{"address": "10.0.0.1:1", "wight": 3}]}}"#,
            "wight",
        ),
        (r#"{"services": {}, "extra": 1}"#, "extra"),
        (r#"{"services": {"users": [], "users": []}}"#, "twice"),
        (
            r#"{"services": {"users": [{"address":"a:1"},{"address":"a:1"}]}}"#,
            "a:1",
        ),
    ] {
        replace(&rig.path, content);
        let error = rig.next().await.unwrap_err();
        assert!(error.is_registry());
        let text = error.to_string();
        assert!(
            text.contains(why) && text.contains("e.json"),
            "{content}: {text}"
        );
    }
    assert_eq!(
        users.current().len(),
        1,
        "the last good set goes on serving"
    );
    fs::remove_file(&rig.path).unwrap();
    assert!(
        rig.next()
            .await
            .unwrap_err()
            .to_string()
            .contains("cannot be read")
    );
    assert!(users.pick().is_ok());
    replace(&rig.path, &json(&[1]));
    assert_eq!(
        rig.set().await.len(),
        1,
        "the same set says that it is well again"
    );
}

#[tokio::test]
async fn toml_and_yaml_say_where_too() {
    for (name, content, why) in [
        (
            "e.toml",
            "[[services.users]]\naddress = 5",
            "line 2 column 11",
        ),
        (
            "e.toml",
            "[[services.users]]\naddress = \"a:1\"\nx = 1",
            "line 3 column 1",
        ),
        (
            "e.yaml",
            "services:\n  users:\n    - address: [1]",
            "line 3",
        ),
        (
            "e.yaml",
            "services: {users: [{address: 'a:1', x: 1}]}",
            "unknown field `x`",
        ),
    ] {
        let mut rig = Rig::new(name, content);
        let text = rig.next().await.unwrap_err().to_string();
        assert!(text.contains(why), "{content}: {text}");
    }
}

#[tokio::test]
async fn a_file_and_its_folder_may_come_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("later/e.json");
    let mut sets = watch(&path);
    let first = timeout(PATIENCE, sets.next()).await.unwrap();
    assert!(first.unwrap().is_err());
    fs::create_dir(path.parent().unwrap()).unwrap();
    replace(&path, &json(&[1]));
    loop {
        let next = timeout(PATIENCE, sets.next()).await.expect("in time");
        if next.unwrap().is_ok_and(|set| set.len() == 1) {
            break;
        }
    }
}

/// Whatever is in the file, the reader says something and lives on.
#[tokio::test]
async fn mutilated_files_are_refused_or_read_and_never_fatal() {
    let mut rng = Rng::seeded(5);
    for (name, content) in [("e.toml", TOML), ("e.json", JSON), ("e.yaml", YAML)] {
        let mut rig = Rig::new(name, content);
        rig.set().await;
        for round in 0..20 {
            let mut bytes = content.as_bytes().to_vec();
            for _ in 0..=rng.below(8) {
                let at = rng.below(bytes.len() as u32) as usize;
                match rng.below(3) {
                    0 => bytes[at] = rng.bits() as u8,
                    1 if bytes.len() > 1 => drop(bytes.remove(at)),
                    _ => bytes.truncate(at + 1),
                }
            }
            fs::write(rig.folder.path().join("new"), &bytes).unwrap();
            fs::rename(rig.folder.path().join("new"), &rig.path).unwrap();
            // The same set or error again is not told; the good file after it
            // shows that the reader lives.
            let port = 1_000 + round;
            let good = match name {
                "e.toml" => format!("[[services.users]]\naddress = \"10.0.0.9:{port}\""),
                _ => json(&[port]),
            };
            replace(&rig.path, &good);
            let id = format!(":{port}");
            loop {
                if let Ok(set) = rig.next().await
                    && set.iter().any(|one| one.address().as_str().ends_with(&id))
                {
                    break;
                }
            }
        }
    }
}

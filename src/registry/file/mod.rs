//! Endpoints from a file that is read again whenever it changes.
//!
//! The file names services and their endpoints, in TOML, JSON or YAML by its
//! ending, with the fields of [`Endpoint`](crate::Endpoint)'s serde form:
//!
//! ```toml
//! [[services.users]]
//! address = "10.0.0.1:80"
//! weight = 2
//!
//! [[services.users]]
//! address = "10.0.0.2:80"
//! locality = { zone = "eu-1a" }
//! ```
//!
//! Its folder is watched, not the file, so that it may be replaced by a rename
//! or by Kubernetes' swap of the `..data` link of a `ConfigMap`. A file that is
//! gone, half written, or wrong in whatever way is refused whole, and the last
//! good one goes on serving. Unknown keys are wrong, and so is a file without
//! `services`, as a file that is just being written is.
//!
//! ```
//! use waypost::Balancer;
//! use waypost::registry::File;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("endpoints.json");
//! std::fs::write(&path, r#"{"services": {"users": [{"address": "10.0.0.1:80"}]}}"#)?;
//!
//! let users = Balancer::builder("users").build(File::open(&path)?).await?;
//! assert_eq!(users.pick()?.address().as_str(), "10.0.0.1:80");
//! # Ok(()) }
//! ```

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod parse;
mod reader;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::sync::watch;

use self::reader::Reader;
use super::Discover;
use crate::endpoint::{EndpointSet, ServiceName};
use crate::error::Error;
use crate::format::Format;

/// What the file said last: the sets, or why they cannot be known.
type Loaded = Result<Sets, Error>;
type Sets = Arc<BTreeMap<ServiceName, EndpointSet>>;

/// A file of services and their endpoints. Clones share one reader, which ends
/// with the last of them and of their streams.
///
/// A service that the file does not name is empty. A change shows within some
/// 20 ms where the system tells of changes (inotify, `FSEvents`, ...), and
/// within 5 s elsewhere, such as on network drives.
#[derive(Clone)]
pub struct File {
    path: PathBuf,
    reader: Arc<Reader>,
}

impl File {
    /// Opens a file, by its ending: `.toml`, `.json`, `.yaml` or `.yml`. It may
    /// come into being later.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when the path has another ending;
    /// [`Error::is_registry`] when the thread that reads cannot be started.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref().to_path_buf();
        let format = Format::of("file.path", &path)?;
        let reader = Arc::new(Reader::start(path.clone(), format)?);
        Ok(Self { path, reader })
    }
}

impl Discover for File {
    fn watch(&self, service: &ServiceName) -> BoxStream<'static, Result<EndpointSet, Error>> {
        let mut loaded = self.reader.subscribe();
        loaded.mark_changed();
        let follower = Follower {
            loaded,
            _reader: Arc::clone(&self.reader),
            service: service.clone(),
            told: None,
        };
        stream::unfold(follower, |mut follower| async {
            let item = follower.next().await?;
            Some((item, follower))
        })
        .boxed()
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// One reader of one service.
struct Follower {
    loaded: watch::Receiver<Option<Loaded>>,
    _reader: Arc<Reader>,
    service: ServiceName,
    /// The version that was yielded last, if no error was since.
    told: Option<u64>,
}

impl Follower {
    async fn next(&mut self) -> Option<Result<EndpointSet, Error>> {
        loop {
            self.loaded.changed().await.ok()?;
            let loaded = self.loaded.borrow_and_update().clone();
            match loaded {
                None => {}
                Some(Err(error)) => {
                    self.told = None;
                    return Some(Err(error));
                }
                Some(Ok(sets)) => {
                    let set = sets.get(&self.service).cloned();
                    let set = set.unwrap_or_else(EndpointSet::empty);
                    if self.told.replace(set.version()) != Some(set.version()) {
                        return Some(Ok(set));
                    }
                }
            }
        }
    }
}

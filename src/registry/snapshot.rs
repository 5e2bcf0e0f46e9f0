//! The last known sets on disk, so that a process which starts while its
//! registry is down still serves.
//!
//! Each service has a file of its own. It is written beside and renamed over
//! the old one, so that there is always a whole one; its first line names the
//! format, its version, and the checksum of the rest. A file that is not as it
//! was written is refused, said, and otherwise ignored.
//!
//! What is on disk is used only until the registry's first answer, and comes
//! with an error that says so, so that a balancer calls it stale. It is written
//! when it changes, and once an hour while the registry goes on standing by it:
//! what is older than a day is refused, since addresses have other tenants by
//! then.
//!
//! ```
//! use waypost::registry::Snapshotted;
//! use waypost::{Balancer, Endpoint, Fixed, InMemory, Registry};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let registry = Snapshotted::new(Fixed::addresses(["10.0.0.1:80"])?, folder.path())?;
//! let users = Balancer::builder("users").build(registry).await?;
//! assert!(users.pick().is_ok());
//! # Ok(()) }
//! ```

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

use std::fs;
use std::future::pending;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use super::{Discover, Registration, Registry};
use crate::endpoint::{Endpoint, EndpointSet, ServiceName};
use crate::error::Error;
use crate::hash::key_hash;
use crate::rng::Rng;

/// A source whose sets are kept on disk.
#[derive(Clone, Debug)]
pub struct Snapshotted<D> {
    inner: D,
    folder: Arc<Path>,
}

/// Names the format; the number rises when it changes.
const MAGIC: &str = "waypost-snapshot 1";

/// 10,000 endpoints with all fields are some 5 MB.
const LARGEST: u64 = 64 << 20;

/// How long the registry has for its first answer before the disk's is used:
/// longer than a healthy one takes, and much shorter than
/// [`first_answer`](crate::BalancerBuilder::first_answer).
const FIRST_ANSWER: Duration = Duration::from_secs(1);

/// Between two writes: a storm of changes must not become one of the disk.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// What stays as it is is written again this often, so that its age is the
/// time since the registry last stood by it: small against [`OLDEST`].
const RENEW_EVERY: Duration = Duration::from_hours(1);

/// What a file that is being written is called at first.
const WRITING: &str = ".writing-";

/// When such a file was left behind by a process that is gone.
const LEFT_BEHIND: Duration = Duration::from_hours(1);

impl<D> Snapshotted<D> {
    /// Keeps the sets of `inner` in `folder`, which is made if it is missing.
    ///
    /// # Errors
    ///
    /// [`Error::is_registry`] when the folder cannot be made or written to.
    pub fn new(inner: D, folder: impl AsRef<Path>) -> Result<Self, Error> {
        let folder: Arc<Path> = folder.as_ref().into();
        let probe = temporary(&folder);
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&probe, b""))
            .and_then(|()| fs::remove_file(&probe))
            .map_err(|error| {
                let origin = format!("snapshots in {}", folder.display());
                Error::registry_because(origin, format!("it cannot be written: {error}"), error)
            })?;
        clear_up(&folder);
        Ok(Self { inner, folder })
    }

    /// The file of a service. Service names hold nothing that a file system
    /// minds but their case, which some do not tell apart, and their length.
    #[must_use]
    pub fn path(&self, service: &ServiceName) -> PathBuf {
        let name = service.as_str();
        let short: String = name.chars().take(100).collect();
        let hash = key_hash(name.as_bytes());
        self.folder.join(format!("{short}-{hash:016x}.snapshot"))
    }

    /// Reads what is on disk of a service; none when nothing is.
    ///
    /// # Errors
    ///
    /// [`Error::is_registry`] when the file cannot be read, is another
    /// service's or of another version, or is not as it was written.
    pub fn read(&self, service: &ServiceName) -> Result<Option<EndpointSet>, Error> {
        read(&self.path(service), service)
    }
}

impl<D: Discover> Discover for Snapshotted<D> {
    fn watch(&self, service: &ServiceName) -> BoxStream<'static, Result<EndpointSet, Error>> {
        let follower = Follower {
            sets: self.inner.watch(service),
            path: self.path(service),
            service: service.clone(),
            start: Some(Instant::now() + FIRST_ANSWER),
            stored: None,
            told: None,
            last: None,
            is_well: false,
            unwritten: None,
            written: None,
            writing: None,
            pending: Vec::new(),
        };
        stream::unfold(follower, |mut follower| async {
            let item = follower.next().await?;
            Some((item, follower))
        })
        .boxed()
    }

    fn is_authoritative(&self) -> bool {
        self.inner.is_authoritative()
    }

    fn look_again(&self, service: &ServiceName) {
        self.inner.look_again(service);
    }
}

impl<R: Registry> Registry for Snapshotted<R> {
    fn register<'a>(
        &'a self,
        service: &'a ServiceName,
        endpoint: Endpoint,
    ) -> BoxFuture<'a, Result<Registration, Error>> {
        self.inner.register(service, endpoint)
    }
}

type Item = Result<EndpointSet, Error>;

struct Follower {
    sets: BoxStream<'static, Item>,
    path: PathBuf,
    service: ServiceName,
    /// Until when the registry's first answer is waited for; none once it, or
    /// the disk's, is there.
    start: Option<Instant>,
    /// What was told from the disk, and then its successors.
    stored: Option<EndpointSet>,
    /// What was told last of what the registry said.
    told: Option<EndpointSet>,
    /// The same, as the registry said it.
    last: Option<EndpointSet>,
    /// Whether that was the registry's last word.
    is_well: bool,
    /// What is to be written. "Nothing" is what a registry says that forgot;
    /// what it knew before is the better start, and is never replaced by it.
    unwritten: Option<EndpointSet>,
    /// When a file was begun last.
    written: Option<Instant>,
    writing: Option<JoinHandle<io::Result<()>>>,
    /// What is to be told before anything else, last first.
    pending: Vec<Item>,
}

enum Event {
    Item(Option<Item>),
    Late,
    Write,
    Written(io::Result<()>),
}

impl Follower {
    async fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.pending.pop() {
                return Some(item);
            }
            match self.event().await {
                Event::Item(None) => return None,
                Event::Item(Some(Ok(set))) => {
                    self.start = None;
                    return Some(Ok(self.take(set)));
                }
                Event::Item(Some(Err(error))) => {
                    self.is_well = false;
                    if self.start.take().is_some() {
                        self.load(error).await;
                    } else {
                        return Some(Err(error));
                    }
                }
                Event::Late => {
                    self.start = None;
                    let reason = format!("the registry has not answered within {FIRST_ANSWER:?}");
                    self.load(Error::registry(self.origin(), reason)).await;
                }
                Event::Write => self.write(),
                Event::Written(done) => {
                    self.writing = None;
                    if let Err(error) = done {
                        // Serving goes on; the next change tries again.
                        let reason = format!("it cannot be written: {error}");
                        let error = Error::registry_because(self.origin(), reason, error);
                        // The set after it says that the registry is well.
                        let told = self.told.clone().filter(|_| self.is_well);
                        self.pending.extend(told.map(Ok));
                        return Some(Err(error));
                    }
                }
            }
        }
    }

    async fn event(&mut self) -> Event {
        let late = async {
            match self.start {
                Some(late) => sleep_until(late).await,
                None => pending().await,
            }
        };
        let due = self.next_write();
        let write = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => pending().await,
            }
        };
        let written = async {
            match &mut self.writing {
                Some(writing) => writing.await.unwrap_or_else(|error| Err(error.into())),
                None => pending().await,
            }
        };
        tokio::select! {
            item = self.sets.next() => Event::Item(item),
            done = written => Event::Written(done),
            () = write => Event::Write,
            () = late => Event::Late,
        }
    }

    /// Tells what is on disk, and why.
    async fn load(&mut self, why: Error) {
        let (path, service) = (self.path.clone(), self.service.clone());
        let stored = spawn_blocking(move || read(&path, &service)).await;
        match stored {
            Ok(Ok(Some(set))) => {
                self.stored = Some(set.clone());
                self.pending = vec![Err(why), Ok(set)];
            }
            Ok(Err(refused)) => self.pending = vec![Err(why), Err(refused)],
            Ok(Ok(None)) | Err(_) => self.pending = vec![Err(why)],
        }
    }

    /// A set of the registry, as the successor of the disk's.
    fn take(&mut self, set: EndpointSet) -> EndpointSet {
        let told = match &self.stored {
            None => set.clone(),
            Some(stored) => {
                let skipped = set.skipped().cloned();
                let next = stored.next_shared(set.iter().map(Arc::clone));
                let next = next.with_skipped(skipped);
                self.stored = Some(next.clone());
                next
            }
        };
        if !set.is_empty() && self.last.as_ref() != Some(&set) {
            self.unwritten = Some(set.clone());
        }
        self.last = Some(set);
        self.is_well = true;
        self.told = Some(told.clone());
        told
    }

    /// When the next file is to be begun.
    fn next_write(&self) -> Option<Instant> {
        if self.writing.is_some() {
            return None;
        }
        let stands = || self.is_well && self.last.as_ref().is_some_and(|set| !set.is_empty());
        let pause = match &self.unwritten {
            Some(_) => WRITE_EVERY,
            None if stands() => RENEW_EVERY,
            None => return None,
        };
        Some(
            self.written
                .map_or_else(Instant::now, |written| written + pause),
        )
    }

    fn write(&mut self) {
        let Some(set) = self.unwritten.take().or_else(|| self.last.clone()) else {
            return;
        };
        self.written = Some(Instant::now());
        let (path, service) = (self.path.clone(), self.service.clone());
        self.writing = Some(spawn_blocking(move || write(&path, &service, &set)));
    }

    fn origin(&self) -> String {
        origin(&self.path)
    }
}

/// What is behind the first line.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    service: String,
    /// Seconds since 1970.
    saved: u64,
    set: EndpointSet,
}

/// What is older is no help: addresses have other tenants by then. As long as
/// DNS may fail (RFC 8767).
const OLDEST: Duration = Duration::from_hours(24);

fn origin(path: &Path) -> String {
    format!("snapshot {}", path.display())
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

fn read(path: &Path, service: &ServiceName) -> Result<Option<EndpointSet>, Error> {
    let refused = |reason: String| Error::registry(origin(path), reason);
    let mut content = Vec::new();
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused(format!("it cannot be read: {error}"))),
    };
    file.take(LARGEST + 1)
        .read_to_end(&mut content)
        .map_err(|error| refused(format!("it cannot be read: {error}")))?;
    if content.len() as u64 > LARGEST {
        return Err(refused(format!("it is larger than {} MB", LARGEST >> 20)));
    }
    parse(&content, service).map(Some).map_err(refused)
}

/// The set of a service in a snapshot; the `Err` says what is wrong.
fn parse(content: &[u8], service: &ServiceName) -> Result<EndpointSet, String> {
    let body = body(content)?;
    let stored: Stored = serde_json::from_slice(body)
        .map_err(|error| format!("it cannot be understood: {error}"))?;
    if stored.service != service.as_str() {
        return Err(format!("it is of service `{}`", stored.service));
    }
    if now().saturating_sub(stored.saved) > OLDEST.as_secs() {
        return Err(format!("it is older than {OLDEST:?}"));
    }
    Ok(stored.set)
}

/// What is behind the first line, if that is as it should be.
fn body(content: &[u8]) -> Result<&[u8], &'static str> {
    let end = content.iter().position(|&byte| byte == b'\n');
    let (head, body) = content.split_at(end.ok_or("it is no snapshot")?);
    let body = &body[1..];
    let head = str::from_utf8(head).map_err(|_| "it is no snapshot")?;
    let (magic, sum) = head.rsplit_once(' ').ok_or("it is no snapshot")?;
    if magic != MAGIC {
        return Err("it is no snapshot of this version");
    }
    if sum != checksum(body) {
        return Err("it is not as it was written: its checksum differs");
    }
    Ok(body)
}

fn checksum(body: &[u8]) -> String {
    format!("{:016x}", key_hash(body))
}

/// A snapshot, whole.
fn content_of(service: &ServiceName, set: &EndpointSet) -> io::Result<Vec<u8>> {
    let stored = Stored {
        service: service.as_str().to_owned(),
        saved: now(),
        set: set.clone(),
    };
    let body = serde_json::to_vec(&stored)?;
    let mut content = format!("{MAGIC} {}\n", checksum(&body)).into_bytes();
    content.extend(body);
    Ok(content)
}

/// Writes beside and renames over, so that there is always a whole file, also
/// after a crash.
fn write(path: &Path, service: &ServiceName, set: &EndpointSet) -> io::Result<()> {
    let content = content_of(service, set)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let beside = temporary(folder);
    let written = fs::File::create(&beside).and_then(|mut file| {
        file.write_all(&content)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    });
    if written.is_err() {
        // It may not even be there; the error that counts is the first.
        drop(fs::remove_file(&beside));
    }
    written?;
    // The new name lasts when the folder does. Only Unix opens folders.
    if cfg!(unix) {
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// A name that no other writer has: processes in containers share a folder and
/// their process numbers.
fn temporary(folder: &Path) -> PathBuf {
    let number = Rng::from_entropy().bits();
    folder.join(format!("{WRITING}{number:016x}"))
}

/// Takes out what processes left behind that were killed while they wrote.
fn clear_up(folder: &Path) {
    let Ok(files) = fs::read_dir(folder) else {
        return;
    };
    for file in files.flatten() {
        let is_ours = file.file_name().to_string_lossy().starts_with(WRITING);
        let modified = file.metadata().and_then(|file| file.modified());
        let age = modified.ok().and_then(|time| time.elapsed().ok());
        if is_ours && age.is_some_and(|age| age > LEFT_BEHIND) {
            // Another process may do the same.
            drop(fs::remove_file(file.path()));
        }
    }
}

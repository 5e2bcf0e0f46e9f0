//! The thread that reads the file, and what wakes it.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::watch;

use super::parse::{Services, parse};
use super::{Loaded, Sets};
use crate::endpoint::EndpointSet;
use crate::error::Error;
use crate::format::Format;

/// A change is read when nothing has happened for this long: what is written
/// in place comes in pieces.
const SETTLE: Duration = Duration::from_millis(10);
/// And after this many pieces in any case.
const PIECES: usize = 20;

/// Where the system tells of no changes, the file is looked at this often.
const LOOK: Duration = Duration::from_secs(5);

/// 10,000 endpoints with all fields are some 5 MB.
const LARGEST: u64 = 64 << 20;

#[derive(Debug)]
pub(super) struct Reader {
    loaded: watch::Receiver<Option<Loaded>>,
    wake: Sender<Wake>,
}

enum Wake {
    Changed,
    Stop,
}

impl Drop for Reader {
    fn drop(&mut self) {
        // It has ended already only if it panicked.
        drop(self.wake.send(Wake::Stop));
    }
}

impl Reader {
    pub(super) fn start(path: PathBuf, format: Format) -> Result<Self, Error> {
        let (wake, woken) = channel();
        let (tell, loaded) = watch::channel(None);
        let origin = format!("file {}", path.display());
        let task = Task {
            path,
            format,
            origin: origin.clone(),
            tell,
            content: None,
            sets: Sets::default(),
            wake: wake.clone(),
        };
        thread::Builder::new()
            .name("waypost-file".into())
            .spawn(move || task.run(&woken))
            .map_err(|error| {
                Error::registry_because(origin, "its reader's thread cannot be started", error)
            })?;
        Ok(Self { loaded, wake })
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Loaded>> {
        self.loaded.clone()
    }
}

struct Task {
    path: PathBuf,
    format: Format,
    origin: String,
    tell: watch::Sender<Option<Loaded>>,
    /// What was read last, so that the same is not parsed again.
    content: Option<String>,
    /// The last good ones.
    sets: Sets,
    wake: Sender<Wake>,
}

impl Task {
    fn run(mut self, woken: &Receiver<Wake>) {
        let mut watcher = None;
        loop {
            if watcher.is_none() {
                // Before the file is read, so that no change falls between.
                watcher = self.watcher();
            }
            if !self.folder().exists() {
                // A folder that comes back is another one.
                watcher = None;
            }
            self.read();
            match woken.recv_timeout(LOOK) {
                Ok(Wake::Changed) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
            for _ in 0..PIECES {
                match woken.recv_timeout(SETTLE) {
                    Ok(Wake::Changed) => {}
                    Err(RecvTimeoutError::Timeout) => break,
                    Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        }
    }

    fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        }
    }

    /// Tells of all that happens in the folder; none where that cannot be had,
    /// and the file is looked at from time to time.
    fn watcher(&self) -> Option<RecommendedWatcher> {
        let wake = self.wake.clone();
        let told = move |event: notify::Result<notify::Event>| {
            // Our own reading is an event, too.
            if !matches!(&event, Ok(event) if event.kind.is_access()) {
                // The reader is ending when nobody takes it.
                drop(wake.send(Wake::Changed));
            }
        };
        let mut watcher = notify::recommended_watcher(told).ok()?;
        watcher
            .watch(self.folder(), RecursiveMode::NonRecursive)
            .ok()?;
        Some(watcher)
    }

    fn read(&mut self) {
        let content = self.content();
        if let (Ok(now), Some(before)) = (&content, &self.content)
            && now == before
        {
            return;
        }
        let parsed = content.as_deref().map_err(Clone::clone);
        let parsed = parsed.and_then(|text| parse(self.format, text));
        self.content = content.ok();
        let loaded = match parsed {
            Ok(services) => {
                self.follow(services);
                Ok(Arc::clone(&self.sets))
            }
            Err(reason) => Err(Error::registry(&self.origin, reason)),
        };
        let is_known = |loaded: &Loaded| {
            let before = self.tell.borrow();
            matches!((loaded, &*before), (Err(new), Some(Err(old)))
                if new.to_string() == old.to_string())
        };
        if !is_known(&loaded) {
            self.tell.send_replace(Some(loaded));
        }
    }

    fn content(&self) -> Result<String, String> {
        let told = |error: std::io::Error| format!("it cannot be read: {error}");
        let file = fs::File::open(&self.path).map_err(told)?;
        let mut content = Vec::new();
        file.take(LARGEST + 1)
            .read_to_end(&mut content)
            .map_err(told)?;
        if content.len() as u64 > LARGEST {
            return Err(format!("it is larger than {} MB", LARGEST >> 20));
        }
        String::from_utf8(content).map_err(|error| format!("it is no UTF-8: {error}"))
    }

    /// Makes the sets that follow the ones before. A service that is not named
    /// any more is empty, and its versions go on.
    fn follow(&mut self, mut services: Services) {
        for service in self.sets.keys() {
            services.entry(service.clone()).or_default();
        }
        let next = services.into_iter().map(|(service, endpoints)| {
            let before = self.sets.get(&service).cloned();
            let before = before.unwrap_or_else(EndpointSet::empty);
            // The parser refuses ids that are there twice.
            let set = before.next(endpoints).unwrap_or(before);
            (service, set)
        });
        self.sets = Arc::new(next.collect());
    }
}

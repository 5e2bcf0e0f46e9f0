//! Measures many rows so that a noisy machine hits all of them alike.
//!
//! Every row is sampled once in a round, and there are as many rounds as the
//! time allows: a slow second of the machine is then one bad sample of each
//! row, not all samples of one. A row keeps its fastest and its median sample.
//! The fastest is the better estimate of the work itself where one thread runs
//! undisturbed; with two threads it is the round in which they met least, so
//! there the median counts.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Does an operation that many times and tells how long that took.
type Sampler = Box<dyn FnMut(u64) -> Duration>;

/// One line of the table.
pub struct Row {
    pub name: String,
    /// Endpoints; none for the floors.
    pub n: Option<usize>,
    pub threads: u32,
    /// The row of waypost, with the same `n` and threads, that does this work.
    pub like: Option<&'static str>,
    sampler: Sampler,
    operations: u64,
    /// Nanoseconds per operation and thread, ordered once all are taken.
    samples: Vec<f64>,
}

impl Row {
    /// A row whose every sample is timed by `sampler`, which may prepare things
    /// outside of what it times.
    pub fn sampled(name: &str, sampler: impl FnMut(u64) -> Duration + 'static) -> Self {
        Self {
            name: name.to_owned(),
            n: None,
            threads: 1,
            like: None,
            sampler: Box::new(sampler),
            operations: 1,
            samples: Vec::new(),
        }
    }

    /// A row of an operation that one thread does over and over.
    pub fn repeated(name: &str, mut operation: impl FnMut() + 'static) -> Self {
        Self::sampled(name, move |times| timed(times, &mut operation))
    }

    /// Two rows of an operation that one thread does over and over, and that
    /// two do at once.
    pub fn pair<O>(name: &str, operation: O, helper: &Helper) -> [Self; 2]
    where
        O: Fn() + Clone + Send + 'static,
    {
        let (alone, helper) = (operation.clone(), helper.clone());
        let mut both = Self::sampled(name, move |times| helper.both(times, &operation));
        both.threads = 2;
        [Self::repeated(name, alone), both]
    }

    #[must_use]
    pub fn on(mut self, n: usize) -> Self {
        self.n = Some(n);
        self
    }

    /// The same work as that row of waypost's.
    #[must_use]
    pub fn like(mut self, name: &'static str) -> Self {
        self.like = Some(name);
        self
    }

    pub fn fastest(&self) -> f64 {
        self.samples[0]
    }

    pub fn median(&self) -> f64 {
        self.samples[self.samples.len() / 2]
    }

    /// What ratios and targets are taken from.
    pub fn typical(&self) -> f64 {
        if self.threads > 1 {
            self.median()
        } else {
            self.fastest()
        }
    }

    /// Finds how many operations last for `sample`; warms up by the way. The
    /// best of three counts, or a moment's disturbance would leave a row with
    /// few operations and cold caches in every sample.
    fn calibrate(&mut self, sample: Duration) {
        loop {
            let runs = (0..3).map(|_| (self.sampler)(self.operations));
            let took = runs.min().unwrap_or_default();
            if took * 2 > sample {
                let whole = self.operations as f64 * sample.as_secs_f64() / took.as_secs_f64();
                self.operations = (whole as u64).max(1);
                return;
            }
            self.operations *= 2;
        }
    }

    fn sample(&mut self) {
        let took = (self.sampler)(self.operations);
        self.samples
            .push(took.as_nanos() as f64 / self.operations as f64);
    }
}

/// Runs rounds of all rows until `budget` is spent; at least three.
pub fn run(rows: &mut [Row], sample: Duration, budget: Duration) {
    let begun = Instant::now();
    for row in &mut *rows {
        row.calibrate(sample);
    }
    let mut rounds = 0;
    while rounds < 3 || begun.elapsed() < budget {
        rows.iter_mut().for_each(Row::sample);
        rounds += 1;
    }
    for row in rows {
        row.samples.sort_by(f64::total_cmp);
    }
}

#[inline]
fn timed(times: u64, mut operation: impl FnMut()) -> Duration {
    let begun = Instant::now();
    for _ in 0..times {
        operation();
    }
    begun.elapsed()
}

type Task = Box<dyn FnOnce() + Send>;

/// A second thread, which lives as long as the rows do: what a thread sets up
/// once is not measured again with each sample.
#[derive(Clone)]
pub struct Helper(mpsc::Sender<Task>);

impl Helper {
    /// Pins this thread to the first core and the helper to the last, where the
    /// system has that: a thread that wakes another often gets it beside itself
    /// for some milliseconds, and a sample of two that take turns on one core
    /// would pass for perfect scaling.
    pub fn start() -> Self {
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let (first, last) = (cores.first().copied(), cores.last().copied());
        let (sender, tasks) = mpsc::channel::<Task>();
        thread::spawn(move || {
            last.map(core_affinity::set_for_current);
            for task in tasks {
                task();
            }
        });
        first.map(core_affinity::set_for_current);
        Self(sender)
    }

    /// The operation that many times on this thread and on the helper at once:
    /// the mean of how long either took. Runs that hardly overlapped, since the
    /// machine had something else for one of the threads to do, are repeated.
    fn both<O>(&self, times: u64, operation: &O) -> Duration
    where
        O: Fn() + Clone + Send + 'static,
    {
        let mut tries = 0;
        loop {
            let (ours, theirs) = self.both_once(times, operation);
            let together = ours.end.min(theirs.end) - ours.begun.max(theirs.begun);
            tries += 1;
            if together * 10 >= ours.took().max(theirs.took()) * 9 || tries == 10 {
                return (ours.took() + theirs.took()) / 2;
            }
        }
    }

    fn both_once<O>(&self, times: u64, operation: &O) -> (Span, Span)
    where
        O: Fn() + Clone + Send + 'static,
    {
        let gate = Arc::new(AtomicUsize::new(0));
        let (done, finished) = mpsc::channel();
        let (theirs, their_gate) = (operation.clone(), Arc::clone(&gate));
        let task = move || {
            pass(&their_gate);
            // The other thread waits for it below.
            done.send(Span::of(times, &theirs))
                .expect("the sampler waits");
        };
        self.0.send(Box::new(task)).expect("the helper lives");
        pass(&gate);
        let ours = Span::of(times, operation);
        (ours, finished.recv().expect("the helper lives"))
    }
}

/// When one thread was at it.
struct Span {
    begun: Instant,
    end: Instant,
}

impl Span {
    fn of(times: u64, operation: impl FnMut()) -> Self {
        let begun = Instant::now();
        let end = begun + timed(times, operation);
        Self { begun, end }
    }

    fn took(&self) -> Duration {
        self.end - self.begun
    }
}

/// Waits until both threads are here, spinning, so that they start together.
fn pass(gate: &AtomicUsize) {
    gate.fetch_add(1, Ordering::AcqRel);
    while gate.load(Ordering::Acquire) < 2 {
        std::hint::spin_loop();
    }
}

//! Endpoints tell how busy they are in a stream each, without being called.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use http::uri::PathAndQuery;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::GrpcBuilder;
use super::channels::Channels;
use crate::backoff::Backoff;
use crate::client::endpoints::are_called_alike;
use crate::endpoint::{AddressPolicy, Endpoint};
use crate::error::Error;
use crate::load::LoadReport;
use crate::load::stream::{Interval, PATH, Wire};
use crate::rng::Rng;
use crate::stats::NodeKey;
use crate::view::Node;

/// Streams of load reports that are open; they end when this is dropped, and with the balancer, which
/// they do not keep. Made by [`GrpcBuilder::load_streams`].
#[must_use = "the streams end when this is dropped"]
pub struct LoadStreams {
    task: AbortHandle,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    reports: AtomicU64,
    failures: AtomicU64,
    without: AtomicU64,
}

/// gRPC's own, from the first failure to the longest wait.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_mins(2);

/// A stream is taken for dead after so many intervals without a report, and not before
/// [`LEAST_SILENCE`]: gRPC's servers make the interval half a minute unless they are told otherwise.
const SILENT_INTERVALS: u32 = 10;
const LEAST_SILENCE: Duration = Duration::from_mins(2);

impl GrpcBuilder {
    /// Asks each endpoint to say how busy it is in a stream, a report at each interval (gRFC A51), for
    /// strategies that go by reports: it is for services that are called seldom, or by calls that
    /// last, which bring few reports of their own. [`OpenRcaService`](crate::server::OpenRcaService)
    /// answers it, and so do gRPC's servers.
    ///
    /// Each endpoint that takes calls has a stream over a connection of its own, made as the channel's
    /// are, for as long as it is there. An endpoint that does not know the service is asked once; any
    /// other failure is tried again after a second, and after up to two minutes when it goes on. The
    /// server may have an interval of its own that is longer. Where the strategy does not [go by
    /// reports](crate::strategy::Strategy::reads_reports), nothing is opened.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use waypost::strategy::LoadWeighted;
    /// use waypost::{Balancer, Fixed};
    ///
    /// # async fn example() -> Result<(), waypost::Error> {
    /// let users = Balancer::builder("users")
    ///     .strategy(LoadWeighted::new())
    ///     .build(Fixed::addresses(["10.0.0.1:50051", "10.0.0.2:50051"])?)
    ///     .await?;
    /// let grpc = users.grpc();
    /// let reports = grpc.load_streams(Duration::from_secs(10))?;
    /// let channel = grpc.build();
    /// # drop((reports, channel));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] unless the interval is from 10 ms to a day; and one that says so when there
    /// is no Tokio runtime.
    pub fn load_streams(&self, interval: Duration) -> Result<LoadStreams, Error> {
        if !(Duration::from_millis(10)..=Duration::from_hours(24)).contains(&interval) {
            let reason = "it is from 10 ms to a day";
            return Err(Error::invalid(
                "load_streams.interval",
                format!("{interval:?}"),
                reason,
            ));
        }
        self.streams(interval, LEAST_SILENCE.max(interval * SILENT_INTERVALS))
    }

    fn streams(&self, interval: Duration, silence: Duration) -> Result<LoadStreams, Error> {
        let runtime =
            Handle::try_current().map_err(|_| Error::no_runtime("a stream of reports"))?;
        let counts = Arc::<Counts>::default();
        let opener = Opener {
            channels: self.channels.clone(),
            addresses: self.settings.addresses,
            interval,
            silence,
            counts: Arc::clone(&counts),
        };
        let task = runtime.spawn(follow(opener, self.balancer.reporters()));
        Ok(LoadStreams {
            task: task.abort_handle(),
            counts,
        })
    }
}

impl LoadStreams {
    /// Reports that came.
    #[must_use]
    pub fn reports(&self) -> u64 {
        self.counts.reports.load(Ordering::Relaxed)
    }

    /// Streams that could not be opened, or not to such an address, or broke off; and reports that
    /// could not be read.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.counts.failures.load(Ordering::Relaxed)
    }

    /// Endpoints that said that they have no such service.
    #[must_use]
    pub fn without_service(&self) -> u64 {
        self.counts.without.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for LoadStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadStreams")
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl Drop for LoadStreams {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What opens a stream to any endpoint.
#[derive(Clone)]
struct Opener {
    channels: Channels,
    addresses: Option<AddressPolicy>,
    interval: Duration,
    silence: Duration,
    counts: Arc<Counts>,
}

/// The stream of one endpoint, which ends when this is dropped.
struct Open {
    endpoint: Arc<Endpoint>,
    task: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Has a stream open for each endpoint, and closes those of endpoints that left.
async fn follow(opener: Opener, mut reporters: impl Stream<Item = Vec<Node>> + Unpin) {
    let mut open: HashMap<NodeKey, Open> = HashMap::new();
    while let Some(nodes) = reporters.next().await {
        let mut before = std::mem::take(&mut open);
        for node in nodes {
            let known = before.remove(&node.key());
            let known = known.filter(|known| are_called_alike(&known.endpoint, node.endpoint()));
            let key = node.key();
            open.insert(key, known.unwrap_or_else(|| opener.open(node)));
        }
    }
}

impl Opener {
    fn open(&self, node: Node) -> Open {
        let endpoint = Arc::clone(node.endpoint());
        let task = tokio::spawn(self.clone().keep_open(node));
        Open {
            endpoint,
            task: task.abort_handle(),
        }
    }

    fn connect(&self, endpoint: &Endpoint) -> Result<Channel, Error> {
        match self.addresses.and_then(|policy| policy.refusal(endpoint)) {
            Some(refusal) => Err(refusal),
            None => self.channels.connect_once(endpoint),
        }
    }

    async fn keep_open(self, node: Node) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT, Rng::from_entropy());
        loop {
            // Each time another: a connection that is dead without a word stays open for a
            // quarter of an hour, and takes one stream after the other.
            let Ok(channel) = self.connect(node.endpoint()) else {
                self.counts.failures.fetch_add(1, Ordering::Relaxed);
                return;
            };
            let mut first = None;
            let ended = self.read(&node, channel, &mut first).await;
            if ended.is_err_and(|status| status.code() == Code::Unimplemented) {
                self.counts.without.fetch_add(1, Ordering::Relaxed);
                return;
            }
            self.counts.failures.fetch_add(1, Ordering::Relaxed);
            let good = first.map_or(Duration::ZERO, |first| first.elapsed());
            sleep(backoff.after(good)).await;
        }
    }

    /// Reads one stream to its end; `first` is when its first report came.
    async fn read(
        &self,
        node: &Node,
        channel: Channel,
        first: &mut Option<Instant>,
    ) -> Result<(), Status> {
        let silence = self.silence;
        let late = |_| Status::deadline_exceeded("no report came for long");
        let mut grpc = tonic::client::Grpc::new(channel);
        let open = async {
            let ready = grpc.ready().await;
            ready.map_err(|error| Status::unavailable(error.to_string()))?;
            let path = PathAndQuery::from_static(PATH);
            let asked = Request::new(Interval(self.interval));
            let wire = Wire::<Interval, LoadReport>::new();
            grpc.server_streaming(asked, path, wire).await
        };
        let answer = timeout(silence, open).await.map_err(late)??;
        let mut reports = answer.into_inner();
        while let Some(report) = timeout(silence, reports.message()).await.map_err(late)?? {
            match report {
                Ok(report) => {
                    first.get_or_insert_with(Instant::now);
                    node.stats().hear_apart(&report);
                    self.counts.reports.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => {
                    self.counts.failures.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::AtomicUsize;

    use tokio::net::TcpListener;
    use tonic::transport::server::TcpIncoming;

    use super::*;
    use crate::balancer::Balancer;
    use crate::endpoint::EndpointSet;
    use crate::server::{OpenRcaService, ReportLoad};
    use crate::strategy::LoadWeighted;

    const SILENCE: Duration = Duration::from_millis(500);

    /// The streams to one server, whose balancer is kept.
    fn streams(address: SocketAddr) -> (Balancer, LoadStreams) {
        let builder = Balancer::builder("users").strategy(LoadWeighted::new());
        let (balancer, mut updater) = builder.manual().expect("it is a name");
        let endpoint = Endpoint::at(address).expect("it is an address");
        updater.apply(EndpointSet::new([endpoint]).expect("ids differ"));
        let streams = balancer.grpc().streams(Duration::from_millis(10), SILENCE);
        (balancer, streams.expect("there is a runtime"))
    }

    async fn listen() -> (SocketAddr, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("loopback has a free port");
        (listener.local_addr().expect("it is bound"), listener)
    }

    async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
        let reached = async {
            while !holds() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let reached = timeout(Duration::from_mins(1), reached).await;
        assert!(reached.is_ok(), "in vain awaited: {what}");
    }

    #[tokio::test]
    async fn a_stream_that_falls_silent_is_opened_anew_over_another_connection() {
        let (address, listener) = listen().await;
        let connections = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&connections);
        let incoming = TcpIncoming::from(listener).inspect(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        // One report at once, and the next one in an hour.
        let silent = OpenRcaService::new(ReportLoad::new());
        let silent = silent.shortest_interval(Duration::from_hours(1));
        let server = tonic::transport::Server::builder().add_service(silent);
        let serving = tokio::spawn(server.serve_with_incoming(incoming));
        let (_balancer, streams) = streams(address);
        eventually("a second stream tells", || streams.reports() >= 2).await;
        assert!(streams.failures() >= 1);
        assert!(connections.load(Ordering::Relaxed) >= 2);
        serving.abort();
    }

    #[tokio::test]
    async fn a_server_that_answers_nothing_is_connected_to_again() {
        let (address, listener) = listen().await;
        let (_balancer, streams) = streams(address);
        let mut open = Vec::new();
        for _ in 0..2 {
            let accepted = timeout(Duration::from_mins(1), listener.accept()).await;
            open.push(accepted.expect("it connects").expect("there is room"));
        }
        assert!(streams.failures() >= 1);
        assert_eq!(streams.reports(), 0);
    }
}

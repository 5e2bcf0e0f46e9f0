//! The gRPC service that tells how busy the server is without being called.

use std::convert::Infallible;
use std::fmt;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{BoxFuture, Ready, Shared, ready};
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use http::{Request, Response};
use http_body::Body as HttpBody;
use tokio::time::{MissedTickBehavior, interval};
use tonic::Status;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tower_service::Service;

use super::report_load::{Aside, ReportLoad};
use crate::error::Error;
use crate::load::LoadReport;
use crate::load::stream::{Interval, PATH, SERVICE, Wire};

/// `xds.service.orca.v3.OpenRcaService` (gRFC A51): each client that asks gets a stream of what
/// [`ReportLoad`] knows, a report at once and then one at each interval that it asked for. It is for
/// clients that call seldom, or for long, and so hear little with answers; gRPC's own ask so with
/// `enableOobLoadReport`, and those of this crate by `GrpcBuilder::load_streams`.
///
/// It is a service to be added to a tonic server, beside others that the layer counts. The streams
/// are not counted among the calls, nor among those that are held.
///
/// ```
/// use waypost::server::{OpenRcaService, ReportLoad, Serving};
///
/// # fn serve(lifecycle: &Serving) -> Result<(), waypost::Error> {
/// let load = ReportLoad::new().limit(200)?;
/// let reports = OpenRcaService::new(load.clone()).until(lifecycle.stopping());
/// let server = tonic::transport::Server::builder().layer(load).add_service(reports);
/// // server.serve_with_shutdown(address, lifecycle.stopping())
/// # drop(server);
/// # Ok(()) }
/// ```
///
/// A report costs what one with an answer does. It needs a Tokio runtime with time.
#[derive(Clone)]
pub struct OpenRcaService {
    load: ReportLoad,
    shortest: Duration,
    stopping: Option<Shared<BoxFuture<'static, ()>>>,
}

/// A client that asks once a day can as well ask when it calls.
const LONGEST: Duration = Duration::from_hours(24);

impl OpenRcaService {
    /// Tells what that layer counts, and at most ten times a second.
    #[must_use]
    pub fn new(load: ReportLoad) -> Self {
        Self {
            load,
            shortest: Duration::from_millis(100),
            stopping: None,
        }
    }

    /// The shortest time between two reports to one client, whatever it asks for, and that of clients
    /// that ask for none; 100 ms by default, by which a thousand clients cost ten thousand reports a
    /// second.
    #[must_use]
    pub const fn shortest_interval(mut self, shortest: Duration) -> Self {
        self.shortest = shortest;
        self
    }

    /// Ends all streams when that does, such as [`Serving::stopping`](super::Serving::stopping).
    /// They have no end of their own, and a server that shuts down gracefully waits for each until
    /// its client has heard that the server leaves.
    #[must_use]
    pub fn until(mut self, stopping: impl Future<Output = ()> + Send + 'static) -> Self {
        self.stopping = Some(stopping.boxed().shared());
        self
    }

    fn reports(&self, asked: Duration) -> BoxStream<'static, Result<LoadReport, Status>> {
        // Of 0, a timer would not wait at all.
        let shortest = self.shortest.max(Duration::from_millis(1));
        let mut ticks = interval(asked.clamp(shortest, LONGEST.max(shortest)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let reports = stream::unfold((ticks, self.load.clone()), async |(mut ticks, load)| {
            ticks.tick().await;
            Some((Ok(load.report()), (ticks, load)))
        });
        match self.stopping.clone() {
            Some(stopping) => reports.take_until(stopping).boxed(),
            None => reports.boxed(),
        }
    }
}

impl fmt::Debug for OpenRcaService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenRcaService")
            .field("load", &self.load)
            .field("shortest_interval", &self.shortest)
            .finish_non_exhaustive()
    }
}

impl NamedService for OpenRcaService {
    const NAME: &'static str = SERVICE;
}

impl<B> Service<Request<B>> for OpenRcaService
where
    B: HttpBody + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let streams = Streams(self.clone());
        async move {
            if request.uri().path() != PATH {
                return Ok(Status::unimplemented("it has one method").into_http());
            }
            let mut grpc = Grpc::new(Wire::<LoadReport, Interval>::new());
            let mut answer = grpc.server_streaming(streams, request).await;
            answer.extensions_mut().insert(Aside);
            Ok(answer)
        }
        .boxed()
    }
}

/// The one method.
struct Streams(OpenRcaService);

impl ServerStreamingService<Result<Interval, Error>> for Streams {
    type Response = LoadReport;
    type ResponseStream = BoxStream<'static, Result<LoadReport, Status>>;
    type Future = Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Result<Interval, Error>>) -> Self::Future {
        ready(match request.into_inner() {
            Ok(Interval(asked)) => Ok(tonic::Response::new(self.0.reports(asked))),
            Err(error) => Err(Status::invalid_argument(error.to_string())),
        })
    }
}

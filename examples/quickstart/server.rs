//! A small real HTTP server on a runtime of its own, so that it can die like a
//! process does.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use waypost::{Endpoint, InMemory, Registration, Registry as _, ServiceName};

use crate::Result;

pub(crate) struct Server {
    runtime: Runtime,
    registration: Registration,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Server {
    /// Listens on a free port, serves, and registers itself.
    pub(crate) async fn start(
        name: &'static str,
        registry: &InMemory,
        service: &ServiceName,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let (registry, service) = (registry.clone(), service.clone());
        let starting = runtime.spawn(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let endpoint = Endpoint::builder(listener.local_addr()?).id(name).build()?;
            let serving = tokio::spawn(serve(name, listener, stopped));
            // Its heartbeats run on this runtime, and die with it.
            let registration = registry.register(&service, endpoint).await?;
            Result::Ok((registration, serving))
        });
        let (registration, serving) = starting.await??;
        Ok(Self {
            runtime,
            registration,
            stop,
            serving,
        })
    }

    /// Leaves the registry, finishes the calls under way, and ends.
    pub(crate) async fn stop(self) -> Result<()> {
        self.registration.deregister().await?;
        // A real server waits for its clients to hear of it. These share its
        // memory: the time a call needs is enough.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let _ = self.stop.send(());
        self.serving.await?;
        self.runtime.shutdown_background();
        Ok(())
    }

    /// Ends as a process does that is killed: nothing is said to anybody.
    pub(crate) fn kill(self) {
        // A killed process runs no destructor; this one would deregister.
        std::mem::forget(self.registration);
        self.runtime.shutdown_background();
    }
}

async fn serve(name: &'static str, listener: TcpListener, mut stopped: oneshot::Receiver<()>) {
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => break,
        };
        let Ok((stream, _)) = accepted else { continue };
        let answer = service_fn(move |_: Request<hyper::body::Incoming>| async move {
            // What a small query costs.
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(
                name.as_bytes(),
            ))))
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), answer);
        tokio::spawn(graceful.watch(connection));
    }
    drop(listener);
    graceful.shutdown().await;
}

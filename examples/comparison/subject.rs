//! Those that are compared.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Body;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tempfile::TempDir;
use tower::{Layer as _, Service, ServiceExt as _};
use waypost::client::http::BalanceLayer;
use waypost::resilience::Retry;
use waypost::{Balancer, Fixed};

use crate::Result;
use crate::backend::free;
use crate::load::flat_out;

type Request = http::Request<Full<Bytes>>;

#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Waypost,
    Nginx,
    Envoy,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Waypost => "waypost, no proxy",
            Self::Nginx => "nginx `least_conn`",
            Self::Envoy => "Envoy `LEAST_REQUEST`",
        }
    }

    /// The name of its script in `tests/servers`; none of ours.
    fn script(self) -> Option<&'static str> {
        match self {
            Self::Waypost => None,
            Self::Nginx => Some("nginx"),
            Self::Envoy => Some("envoy"),
        }
    }

    /// Whether what it needs is installed.
    pub(crate) fn is_there(self) -> bool {
        self.script().is_none_or(|name| {
            let found = Command::new("bash")
                .args(["-c", ". \"$0\"/lib.sh && root_of \"$1\" >/dev/null"])
                .args([SCRIPTS, name])
                .status();
            found.is_ok_and(|status| status.success())
        })
    }
}

/// Until connections are made, and caches are warm.
const WARM_UP: Duration = Duration::from_millis(500);

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers");

pub(crate) struct Subject {
    pub(crate) caller: Arc<Caller>,
    _process: Option<Proxy>,
}

/// Makes calls through a subject.
pub(crate) struct Caller {
    uri: String,
    send: Box<dyn Fn(Request) -> BoxFuture<'static, bool> + Send + Sync>,
}

impl Caller {
    /// Whether the call was answered, and not with a proxy's or a server's error.
    pub(crate) async fn call(&self, method: &str) -> bool {
        let request = http::Request::builder().method(method).uri(&self.uri);
        match request.body(Full::default()) {
            Ok(request) => (self.send)(request).await,
            Err(_) => false,
        }
    }

    fn new<S, A>(uri: String, client: S) -> Arc<Self>
    where
        S: Service<Request, Response = http::Response<A>, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
        A: Body<Data: Send> + Send + Unpin,
    {
        let send = move |request| -> BoxFuture<'static, bool> {
            let client = client.clone();
            Box::pin(async move {
                let Ok(answer) = client.oneshot(request).await else {
                    return false;
                };
                let well = answer.status().is_success();
                well && answer.into_body().collect().await.is_ok()
            })
        };
        Arc::new(Self {
            uri,
            send: Box::new(send),
        })
    }
}

fn bare() -> Client<HttpConnector, Full<Bytes>> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(connector)
}

impl Subject {
    /// Returns when it answers, and its connections are made.
    pub(crate) async fn start(kind: Kind, backends: &[SocketAddr]) -> Result<Self> {
        let subject = match kind {
            Kind::Waypost => Self::waypost(backends).await?,
            Kind::Nginx => Self::nginx(backends)?,
            Kind::Envoy => Self::envoy(backends)?,
        };
        for _ in 0..1_000 {
            if subject.caller.call("GET").await {
                flat_out(&subject.caller, "GET", WARM_UP).await;
                return Ok(subject);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(format!("{} does not answer", kind.name()).into())
    }

    async fn waypost(backends: &[SocketAddr]) -> Result<Self> {
        let fleet = Fixed::addresses(backends.iter().copied())?;
        let users = Balancer::builder("users").build(fleet).await?;
        let client = BalanceLayer::new(users)
            .retry(Retry::default())
            .layer(bare());
        Ok(Self {
            caller: Caller::new("http://users/v1/me".into(), client),
            _process: None,
        })
    }

    /// With keep-alive to its backends, and its own retries: of GETs.
    fn nginx(backends: &[SocketAddr]) -> Result<Self> {
        let address = free()?;
        let mut servers = String::new();
        for backend in backends {
            writeln!(servers, "server {backend};")?;
        }
        let config = format!(
            "upstream backends {{ least_conn; {servers} keepalive 64; keepalive_requests 1000000; }}
            server {{
                listen {address} reuseport;
                keepalive_requests 1000000;
                location / {{
                    proxy_pass http://backends;
                    proxy_http_version 1.1;
                    proxy_set_header Connection \"\";
                }}
            }}"
        );
        Self::proxy(Kind::Nginx, address, &config)
    }

    /// With retries on another host, as many at once as there are calls (3 by
    /// default), and ejections of up to half of the hosts (a tenth by default,
    /// which is none of four).
    fn envoy(backends: &[SocketAddr]) -> Result<Self> {
        let (address, admin) = (free()?, free()?);
        let socket = |at: &SocketAddr| serde_json::json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}});
        let endpoints = backends
            .iter()
            .map(|at| serde_json::json!({"endpoint": {"address": socket(at)}}));
        let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
        let manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
        let previous = "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";
        let config = serde_json::json!({
            "admin": {"address": socket(&admin)},
            "static_resources": {
                "listeners": [{
                    "address": socket(&address),
                    "filter_chains": [{"filters": [{
                        "name": "http",
                        "typed_config": {
                            "@type": manager,
                            "stat_prefix": "in",
                            "http_filters": [{"name": "router", "typed_config": {"@type": router}}],
                            "route_config": {"virtual_hosts": [{
                                "name": "all",
                                "domains": ["*"],
                                "routes": [{
                                    "match": {"prefix": "/"},
                                    "route": {
                                        "cluster": "backends",
                                        "retry_policy": {
                                            "retry_on": "connect-failure,refused-stream,reset",
                                            "num_retries": 2,
                                            "host_selection_retry_max_attempts": 3,
                                            "retry_host_predicate": [{
                                                "name": "previous",
                                                "typed_config": {"@type": previous},
                                            }],
                                        },
                                    },
                                }],
                            }]},
                        },
                    }]}],
                }],
                "clusters": [{
                    "name": "backends",
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "lb_policy": "LEAST_REQUEST",
                    "outlier_detection": {"max_ejection_percent": 50},
                    "circuit_breakers": {"thresholds": [{"max_retries": 1_024}]},
                    "load_assignment": {
                        "cluster_name": "backends",
                        "endpoints": [{"lb_endpoints": endpoints.collect::<Vec<_>>()}],
                    },
                }],
            },
        });
        Self::proxy(Kind::Envoy, address, &config.to_string())
    }

    fn proxy(kind: Kind, address: SocketAddr, config: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("config.json");
        std::fs::write(&file, config)?;
        let script = format!("{SCRIPTS}/{}.sh", kind.script().unwrap_or_default());
        let process = Command::new(script)
            .env("DIR", folder.path())
            .env("CONF", &file)
            // Of what is killed on purpose, there is much to complain.
            .env(
                "LOG_LEVEL",
                if kind.script() == Some("nginx") {
                    "crit"
                } else {
                    "error"
                },
            )
            .spawn()?;
        Ok(Self {
            caller: Caller::new(format!("http://{address}/v1/me"), bare()),
            _process: Some(Proxy {
                process,
                _folder: folder,
            }),
        })
    }
}

struct Proxy {
    process: Child,
    _folder: TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It has ended by itself if this fails.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

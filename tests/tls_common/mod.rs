//! Real TLS servers on loopback, with certificates made for the test.

#![allow(dead_code, reason = "each test file uses its part")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use waypost::Endpoint;

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) root: CertificateDer<'static>,
    pub(crate) root_pem: String,
}

/// A certificate and its key.
pub(crate) struct Identity {
    pub(crate) cert: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) cert_pem: String,
    pub(crate) key_pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        // Several crates of the tests bring rustls, and none shall choose.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut params = CertificateParams::new([]).expect("no name is wrong");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("there is entropy");
        let root = params.self_signed(&key).expect("it can be signed");
        Self {
            root: root.der().clone(),
            root_pem: root.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for these names: of hosts, addresses, and with `://` URIs.
    pub(crate) fn identity(&self, names: &[&str]) -> Identity {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.iter().map(|name| san(name)).collect();
        let key = KeyPair::generate().expect("there is entropy");
        let cert = params
            .signed_by(&key, &self.issuer)
            .expect("it can be signed");
        Identity {
            cert: cert.der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).expect("it is a certificate");
        roots
    }

    /// A server by these names that wants a certificate of this authority.
    pub(crate) fn mutual(&self, names: &[&str]) -> ServerConfig {
        let trusted = WebPkiClientVerifier::builder(Arc::new(self.roots()));
        let identity = self.identity(names);
        ServerConfig::builder()
            .with_client_cert_verifier(trusted.build().expect("there is a root"))
            .with_single_cert(vec![identity.cert], identity.key)
            .expect("key and certificate match")
    }

    /// A client that trusts this authority alone.
    pub(crate) fn client(&self) -> ClientConfig {
        ClientConfig::builder()
            .with_root_certificates(self.roots())
            .with_no_client_auth()
    }
}

fn san(name: &str) -> SanType {
    if let Ok(address) = name.parse() {
        return SanType::IpAddress(address);
    }
    let text = name.try_into().expect("it is ASCII");
    if name.contains("://") {
        SanType::URI(text)
    } else {
        SanType::DnsName(text)
    }
}

/// A TLS server of HTTP/1 and HTTP/2 that ends when it is dropped.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(name: &'static str, authority: &Authority, names: &[&str]) -> Self {
        let identity = authority.identity(names);
        let tls = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![identity.cert], identity.key)
            .expect("key and certificate match");
        Self::with(name, tls).await
    }

    pub(crate) async fn with(name: &'static str, mut tls: ServerConfig) -> Self {
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let serving = tokio::spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                let acceptor = acceptor.clone();
                open.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let (_, session) = stream.get_ref();
                    let sni = session.server_name().unwrap_or("-").to_owned();
                    let peers = session.peer_certificates().map_or(0, <[_]>::len);
                    let service = service_fn(move |request| {
                        let response = respond(name, &sni, peers, &request);
                        std::future::ready(Ok::<_, Infallible>(response))
                    });
                    let serving = auto::Builder::new(TokioExecutor::new());
                    // A client that leaves ends it, which is no failure.
                    drop(
                        serving
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        Self {
            name,
            address,
            serving,
        }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        let builder = Endpoint::builder(self.address).id(self.name);
        builder.build().expect("the parts are well-formed")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// TLS before a server that has none; it ends when it is dropped.
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Front {
    pub(crate) async fn start(tls: ServerConfig, server: SocketAddr) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let serving = tokio::spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                open.spawn(async move {
                    let mut client = acceptor.accept(stream).await?;
                    let mut server = TcpStream::connect(server).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        Self { address, serving }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn respond(
    name: &str,
    sni: &str,
    peers: usize,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    let header = |name| {
        let value = request.headers().get(name);
        value.map_or("-", |value| value.to_str().expect("it is ASCII"))
    };
    let authority = request.uri().authority();
    let authority = authority.map_or_else(|| header("host").to_owned(), ToString::to_string);
    let text = format!(
        "name={name}\nsni={sni}\npeers={peers}\nversion={:?}\nauthority={authority}\nhost={}\n\
         path={}\ncookie={}\n",
        request.version(),
        header("host"),
        request
            .uri()
            .path_and_query()
            .map_or("", |path| path.as_str()),
        header("cookie"),
    );
    let mut response = Response::builder().header("set-cookie", "seen=yes");
    if request.uri().path() == "/redirect" {
        response = response
            .status(302)
            .header("location", "https://elsewhere/");
    }
    let response = response.body(Full::from(text));
    response.expect("the parts are well-formed")
}

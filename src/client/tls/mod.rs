//! TLS to endpoints: who they have to be, and who we are.
//!
//! A registry tells addresses, and an address proves nothing. So the server's
//! certificate is checked against the *service*: by its DNS name, as every TLS
//! client does, or by its SPIFFE ID, the one URI in the certificate of a
//! workload. The chain is verified in either case. A record may narrow this to
//! one identity, in the metadata key [`SPIFFE_KEY`], but never widen it: a
//! poisoned registry cannot redirect calls to another workload.
//!
//! Our own certificate comes from an [`Identity`], which can be reloaded while
//! calls go on; connections that are open keep the one they began with.
//!
//! ```no_run
//! use std::time::Duration;
//! use waypost::Endpoint;
//! use waypost::client::http::{BalanceLayer, Pinned};
//! use waypost::client::tls::{EndpointTls, Identity, SpiffeMatch};
//! # use hyper_util::client::legacy::{Client, connect::HttpConnector};
//! # use hyper_util::rt::TokioExecutor;
//! # type Body = http_body_util::Full<bytes::Bytes>;
//!
//! # fn example(users: waypost::Balancer, roots: rustls::RootCertStore) -> Result<(), waypost::Error> {
//! let identity = Identity::from_files("/run/tls/cert.pem", "/run/tls/key.pem")?;
//! let tls = EndpointTls::new(roots)
//!     .identity(identity.clone())
//!     .spiffe([SpiffeMatch::exact("spiffe://example.org/ns/prod/sa/users")?]);
//! let client = BalanceLayer::new(users).per_endpoint(move |endpoint: &Endpoint| {
//!     let connector = hyper_rustls::HttpsConnectorBuilder::new()
//!         .with_tls_config(tls.config(endpoint)?)
//!         .https_only()
//!         .enable_http2()
//!         .wrap_connector(Pinned::new(HttpConnector::new(), endpoint)?);
//!     Ok::<_, waypost::Error>(Client::builder(TokioExecutor::new()).build::<_, Body>(connector))
//! });
//! // Takes up what the files hold, now and then; or `identity.reload()` when they have changed.
//! tokio::spawn(identity.follow(Duration::from_secs(60), |error| eprintln!("{error}")));
//! # let _ = client;
//! # Ok(()) }
//! ```
//!
//! With reqwest the place for it is `BalanceMiddleware::https_per_endpoint`, with tonic
//! `GrpcBuilder::endpoint_tls`.

mod identity;
mod spiffe;
mod verifier;

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

pub use identity::Identity;
pub use spiffe::{SpiffeId, SpiffeMatch};

use crate::endpoint::Endpoint;
use crate::error::Error;
use verifier::SpiffeVerifier;

/// The metadata key under which a record names the SPIFFE ID that its endpoint
/// has.
pub const SPIFFE_KEY: &str = "spiffe_id";

/// Makes the TLS configuration for an endpoint.
#[derive(Clone, Debug)]
pub struct EndpointTls {
    roots: Arc<RootCertStore>,
    identity: Option<Identity>,
    spiffe: Arc<[SpiffeMatch]>,
}

impl EndpointTls {
    /// Trusts these authorities, and checks certificates against the name in
    /// the URL.
    #[must_use]
    pub fn new(roots: impl Into<Arc<RootCertStore>>) -> Self {
        Self {
            roots: roots.into(),
            identity: None,
            spiffe: Arc::from([]),
        }
    }

    /// Shows this certificate to servers that ask for one (mTLS).
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Checks SPIFFE IDs instead of names: a server must have one of these.
    #[must_use]
    pub fn spiffe(mut self, allowed: impl IntoIterator<Item = SpiffeMatch>) -> Self {
        self.spiffe = allowed.into_iter().collect();
        self
    }

    /// The configuration for one endpoint; its ALPN protocols are for the
    /// connector to add.
    ///
    /// # Errors
    ///
    /// [`Error::is_unroutable`] when the endpoint's record names an identity
    /// that is none or is not allowed; [`Error::is_invalid`] when rustls
    /// refuses the settings.
    pub fn config(&self, endpoint: &Endpoint) -> Result<ClientConfig, Error> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::invalid("tls.versions", "default", error))?;
        let claimed = self.claimed(endpoint)?;
        let builder = if self.spiffe.is_empty() {
            builder.with_root_certificates(Arc::clone(&self.roots))
        } else {
            let roots = Arc::clone(&self.roots);
            let allowed = Arc::clone(&self.spiffe);
            let verifier = SpiffeVerifier::new(roots, allowed, claimed, provider);
            // Called so because a verifier can be wrong; this one verifies the
            // chain as rustls does.
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
        };
        Ok(match &self.identity {
            Some(identity) => builder.with_client_cert_resolver(Arc::new(identity.clone())),
            None => builder.with_no_client_auth(),
        })
    }

    /// The identity that the record names.
    fn claimed(&self, endpoint: &Endpoint) -> Result<Option<SpiffeId>, Error> {
        let Some(claimed) = endpoint.metadata().get(SPIFFE_KEY) else {
            return Ok(None);
        };
        let refused = |reason: &str| Error::unroutable(endpoint, reason);
        if self.spiffe.is_empty() {
            return Err(refused(
                "its record names a SPIFFE ID, but none is allowed: set `EndpointTls::spiffe`",
            ));
        }
        let id: SpiffeId = claimed.parse()?;
        if !self.spiffe.iter().any(|allowed| allowed.matches(&id)) {
            return Err(refused(
                "its record names a SPIFFE ID that is not one of the service's",
            ));
        }
        Ok(Some(id))
    }
}

//! How TLS to a registry's servers is set up.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::error::Error;

/// What TLS needs, as PEM.
#[derive(Clone, Default)]
pub(super) struct Tls {
    /// Authorities to trust in place of the machine's own.
    pub(super) authorities: Option<Vec<u8>>,
    /// This client's certificate chain, and its key.
    pub(super) identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Tls {
    pub(super) fn config(&self, secure: bool) -> Result<ClientConfig, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::invalid("tls", "", error))?
            .with_root_certificates(self.roots(secure)?);
        let Some((chain, key)) = &self.identity else {
            return Ok(config.with_no_client_auth());
        };
        let field = "client_certificate";
        let chain = certificates(field, chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
            Error::invalid(field, "(key)", format!("it is no PEM key: {error}"))
        })?;
        config
            .with_client_auth_cert(chain, key)
            .map_err(|error| Error::invalid(field, "(key)", error))
    }

    fn roots(&self, secure: bool) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        match &self.authorities {
            Some(pem) => {
                let field = "ca_certificate";
                for certificate in certificates(field, pem)? {
                    roots
                        .add(certificate)
                        .map_err(|error| Error::invalid(field, "(PEM)", error))?;
                }
            }
            // Reading the machine's store takes milliseconds: only where asked.
            None if secure => {
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
            }
            None => {}
        }
        Ok(roots)
    }
}

fn certificates(field: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(Error::invalid(field, "(PEM)", "it holds no certificate")),
        Err(error) => Err(Error::invalid(field, "(PEM)", error)),
    }
}

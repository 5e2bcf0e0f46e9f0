//! Who endpoints have to be, and who we are to them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::secret::Secret;

/// `client::tls::EndpointTls` (feature `tls`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EndpointTlsConfig {
    /// The authorities that are trusted, as PEM; to be set.
    pub authorities: Option<Secret>,
    /// The file of this client's certificate chain, which can be read again while calls go on.
    pub certificate: Option<PathBuf>,
    /// The file of its key.
    pub key: Option<PathBuf>,
    /// The SPIFFE IDs that endpoints may have, and with `/*` at the end all below one; names are
    /// checked where there are none.
    pub spiffe: Vec<String>,
}

#[cfg(feature = "tls")]
mod build {
    use rustls::RootCertStore;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    use super::EndpointTlsConfig;
    use crate::client::tls::{EndpointTls, Identity, SpiffeMatch};
    use crate::error::Error;

    impl EndpointTlsConfig {
        /// The checks of endpoints, and the identity that is to be reloaded when its files change.
        pub(in super::super) fn build(&self) -> Result<(EndpointTls, Option<Identity>), Error> {
            let mut tls = EndpointTls::new(self.roots()?);
            let identity = match (&self.certificate, &self.key) {
                (Some(certificate), Some(key)) => Some(Identity::from_files(certificate, key)?),
                (None, None) => None,
                _ => {
                    let reason = "`certificate` and `key` go together; one of them is missing";
                    return Err(Error::config("calls.tls", reason));
                }
            };
            if let Some(identity) = &identity {
                tls = tls.identity(identity.clone());
            }
            let allowed = self.spiffe.iter().enumerate().map(|(at, id)| {
                let matches = match id.strip_suffix("/*") {
                    Some(below) => SpiffeMatch::below(below),
                    None => SpiffeMatch::exact(id),
                };
                matches.map_err(|error| error.within(&format!("calls.tls.spiffe.{at}")))
            });
            let allowed: Vec<SpiffeMatch> = allowed.collect::<Result<_, _>>()?;
            Ok((tls.spiffe(allowed), identity))
        }

        fn roots(&self) -> Result<RootCertStore, Error> {
            let at = "calls.tls.authorities";
            let reason = "there are none; say whom to trust, such as \
                          `authorities = { file = \"/run/tls/ca.pem\" }`";
            let authorities = self.authorities.as_ref();
            let pem = authorities.ok_or_else(|| Error::config(at, reason))?;
            let pem = pem.reveal(at)?;
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let added = certificate
                    .map_err(|error| Error::config(at, error))
                    .and_then(|it| roots.add(it).map_err(|error| Error::config(at, error)));
                added?;
            }
            if roots.is_empty() {
                return Err(Error::config(at, "it holds no certificate as PEM"));
            }
            Ok(roots)
        }
    }
}

//! Our own certificate, which can change while calls go on.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::error::Error;

/// A certificate chain and its key, read from PEM files and read again by
/// [`Identity::reload`]. Clones are one identity.
///
/// The key never appears in `Debug` or in an error.
#[derive(Clone)]
pub struct Identity {
    files: Arc<Files>,
    current: Arc<ArcSwap<CertifiedKey>>,
}

#[derive(Debug)]
struct Files {
    chain: PathBuf,
    key: PathBuf,
}

impl Identity {
    /// Of these files.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when one of them cannot be read or parsed, or the
    /// key is another certificate's.
    pub fn from_files(chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Self, Error> {
        let files = Files {
            chain: chain.into(),
            key: key.into(),
        };
        let current = Arc::new(ArcSwap::from_pointee(files.read()?));
        Ok(Self {
            files: Arc::new(files),
            current,
        })
    }

    /// Reads the files again; connections made from now on use what they hold.
    /// Tells whether the certificate is another one.
    ///
    /// # Errors
    ///
    /// As [`Identity::from_files`]; the identity stays as it is.
    pub fn reload(&self) -> Result<bool, Error> {
        let next = self.files.read()?;
        let before = self.current.load();
        let changed = before.cert != next.cert;
        self.current.store(Arc::new(next));
        Ok(changed)
    }

    /// Reloads now and again, for as long as there is another clone: a future to
    /// be spawned. What cannot be read is told, and the identity stays as it is
    /// until it can; a certificate and its key that are replaced one after the
    /// other fit again at the next look.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use waypost::client::tls::Identity;
    ///
    /// # fn example() -> Result<(), waypost::Error> {
    /// let identity = Identity::from_files("/run/tls/cert.pem", "/run/tls/key.pem")?;
    /// let failed = |error| eprintln!("the old certificate stays: {error}");
    /// tokio::spawn(identity.follow(Duration::from_secs(60), failed));
    /// # Ok(()) }
    /// ```
    pub fn follow<F>(&self, every: Duration, failed: F) -> impl Future<Output = ()> + Send + use<F>
    where
        F: Fn(Error) + Send,
    {
        let (files, current) = (Arc::clone(&self.files), Arc::downgrade(&self.current));
        async move {
            loop {
                tokio::time::sleep(every).await;
                let Some(current) = current.upgrade() else {
                    return;
                };
                let files = Arc::clone(&files);
                let identity = Self { files, current };
                let reloaded = tokio::task::spawn_blocking(move || identity.reload()).await;
                if let Ok(Err(error)) = reloaded {
                    failed(error);
                }
            }
        }
    }
}

impl Files {
    fn read(&self) -> Result<CertifiedKey, Error> {
        let unreadable = |path: &Path, field| {
            let path = path.display().to_string();
            move |error: rustls::pki_types::pem::Error| Error::invalid(field, path.clone(), error)
        };
        let wrong = unreadable(&self.chain, "tls.certificate");
        let chain: Vec<_> = CertificateDer::pem_file_iter(&self.chain)
            .map_err(&wrong)?
            .collect::<Result<_, _>>()
            .map_err(&wrong)?;
        let shown = self.chain.display();
        if chain.is_empty() {
            return Err(Error::invalid(
                "tls.certificate",
                shown,
                "it holds no certificate",
            ));
        }
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(unreadable(&self.key, "tls.key"))?;
        CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map_err(|error| Error::invalid("tls.certificate", shown, error))
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let current = self.current.load_full();
        current.key.choose_scheme(schemes).map(|_| current)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

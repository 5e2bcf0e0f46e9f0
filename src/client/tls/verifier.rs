//! The check of a server's certificate against SPIFFE IDs.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{SpiffeId, SpiffeMatch};

/// As rustls' own verifier, with the name replaced: the chain must lead to a
/// trusted root, and the certificate must have exactly one URI, a SPIFFE ID
/// that is allowed (gRPC A87 and A29).
#[derive(Debug)]
pub(super) struct SpiffeVerifier {
    roots: Arc<RootCertStore>,
    allowed: Arc<[SpiffeMatch]>,
    /// The one that the endpoint's record names, which is allowed.
    claimed: Option<SpiffeId>,
    provider: Arc<CryptoProvider>,
}

impl SpiffeVerifier {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        allowed: Arc<[SpiffeMatch]>,
        claimed: Option<SpiffeId>,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        Self {
            roots,
            allowed,
            claimed,
            provider,
        }
    }

    fn allows(&self, id: &SpiffeId) -> bool {
        match &self.claimed {
            Some(claimed) => claimed == id,
            None => self.allowed.iter().any(|allowed| allowed.matches(id)),
        }
    }
}

impl ServerCertVerifier for SpiffeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let (roots, chain) = (&self.roots, intermediates);
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, chain, now, algorithms)?;
        let malformed = |_| rustls::Error::from(CertificateError::BadEncoding);
        let certificate = webpki::EndEntityCert::try_from(end_entity).map_err(malformed)?;
        let mut uris = certificate.valid_uri_names();
        let (Some(uri), None) = (uris.next(), uris.next()) else {
            return Err(CertificateError::NotValidForName.into());
        };
        match uri.parse() {
            Ok(id) if self.allows(&id) => Ok(ServerCertVerified::assertion()),
            _ => Err(CertificateError::NotValidForName.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

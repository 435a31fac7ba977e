//! Whom the ends of a link believe. No name service and no public authority has a say in it.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};

/// The cryptography that both ends use.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo (RFC 7469, 2.4), if it is a certificate.
#[must_use]
pub fn pin_of(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let mut store = RootCertStore::empty();
    store.add(certificate.clone().into_owned()).ok()?;
    // What the library keeps is the inside of the SEQUENCE; the hash is over the whole.
    let inside = store.roots.first()?.subject_public_key_info.as_ref().to_vec();
    let mut whole = vec![0x30];
    match u8::try_from(inside.len()) {
        Ok(length) if length < 0x80 => whole.push(length),
        Ok(length) => whole.extend_from_slice(&[0x81, length]),
        Err(_) => {
            whole.push(0x82);
            whole.extend_from_slice(&u16::try_from(inside.len()).ok()?.to_be_bytes());
        }
    }
    whole.extend_from_slice(&inside);
    let mut pin = [0; 32];
    pin.copy_from_slice(digest(&SHA256, &whole).as_ref());
    Some(pin)
}

/// An outpost's side of TLS with the authorities that it knows, and its own certificate.
///
/// # Errors
/// An authority is no certificate, or certificate and key do not go together.
pub fn member(
    authorities: &[CertificateDer<'static>],
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    alpn: &[u8],
) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone())?;
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// A newcomer's side of TLS: the gateway must show an authority with this pin, and a certificate that comes from it.
///
/// # Errors
/// The library refuses its own settings.
pub fn newcomer(pin: [u8; 32]) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { pin, provider: provider() }))
        .with_no_client_auth();
    config.alpn_protocols = vec![crate::ALPN_ENROL.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// The outer TLS of a WebSocket. Whoever ends it is not believed in anything: it carries another TLS session, and that
/// one is checked.
///
/// # Errors
/// The library refuses its own settings.
pub fn outer() -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider())))
        .with_no_client_auth();
    config.alpn_protocols = vec![crate::ALPN_WEB.to_vec()];
    Ok(config)
}

/// Believes the authority whose public key has the pin, and nobody else.
#[derive(Debug)]
struct Pinned {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

/// The gateway's authority is not the one that the join token names.
#[derive(Debug, thiserror::Error)]
#[error("whoever answers there is not the gateway that the join token came from")]
struct NotTheGateway;

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned = intermediates.iter().find(|certificate| pin_of(certificate) == Some(self.pin));
        let refused = || Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(NotTheGateway))));
        let mut roots = RootCertStore::empty();
        roots.add(pinned.ok_or_else(refused)?.clone().into_owned())?;
        let checks = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        checks.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}

/// Believes nothing and checks nothing but the signatures of the handshake; for the outside of a WebSocket only.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

//! TLS on both legs: the gateway's certificate towards clients, verification of the resource's.
//!
//! Channel binding needs the hash of the server's certificate as RFC 5929, 4.1 says: by the hash
//! function of its signature, SHA-256 where that is MD5, SHA-1 or none.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use x509_cert::der::Decode as _;

use crate::scram::Binding;

/// The protocol name that PostgreSQL registers for ALPN; direct TLS requires it.
pub const ALPN_POSTGRESQL: &[u8] = b"postgresql";

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The text is not a PEM file with what was looked for.
    #[error("expected {expected} in PEM form: {source}")]
    Pem {
        /// What was looked for.
        expected: &'static str,
        /// What the reader says.
        source: rustls::pki_types::pem::Error,
    },
    /// A PEM file without a certificate.
    #[error("expected at least one certificate in PEM form, found none")]
    NoCertificate,
    /// The certificate and key do not go together, or are of a kind that is not supported.
    #[error("this certificate and key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// No certificate could be made.
    #[error("cannot generate a certificate: {0}")]
    Generate(#[from] rcgen::Error),
    /// The authority of client certificates cannot be used.
    #[error("the authority of client certificates cannot be used: {0}")]
    Clients(#[from] rustls::server::VerifierBuilderError),
    /// The system has no trusted roots.
    #[error("the system's certificate store holds no usable root; name one with `ca`")]
    NoRoots,
}

/// The gateway's side of TLS towards clients.
#[derive(Clone)]
pub struct ServerTls {
    pub(crate) config: Arc<ServerConfig>,
    /// The same certificate for HTTP.
    pub(crate) http: Arc<ServerConfig>,
    pub(crate) end_point: Vec<u8>,
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerTls(..)")
    }
}

impl ServerTls {
    /// From a certificate chain and its key, both PEM. With `clients`, the authority of the clients' certificates (PEM),
    /// a PostgreSQL client may show one; it need not.
    pub fn from_pem(certificates: &[u8], key: &[u8], clients: Option<&[u8]>) -> Result<Self, TlsError> {
        let chain = certificates_of(certificates)?;
        let end_point = chain.first().map(end_point_hash).ok_or(TlsError::NoCertificate)?;
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|source| TlsError::Pem { expected: "a private key", source })?;
        let builder = || ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let mut http = builder()?.with_no_client_auth().with_single_cert(chain.clone(), key.clone_key())?;
        let mut config = match clients {
            None => http.clone(),
            Some(authority) => {
                let roots = Arc::new(roots(Some(authority))?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).allow_unauthenticated();
                builder()?.with_client_cert_verifier(verifier.build()?).with_single_cert(chain, key)?
            }
        };
        http.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.alpn_protocols = vec![ALPN_POSTGRESQL.to_vec()];
        Ok(Self { config: Arc::new(config), http: Arc::new(http), end_point })
    }
}

/// A self-signed certificate for these names and addresses, with its key: (certificate, key), PEM.
/// Clients that verify are given the certificate as their root.
pub fn generate(names: Vec<String>) -> Result<(String, String), TlsError> {
    let made = rcgen::generate_simple_self_signed(names)?;
    Ok((made.cert.pem(), made.signing_key.serialize_pem()))
}

/// How the resource's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// The chain leads to a trusted root and the certificate names the host.
    Full,
    /// Encryption alone: whoever answers is talked to.
    Nothing,
}

/// The gateway's side of TLS towards a resource.
#[derive(Clone)]
pub struct ClientTls {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) verify: Verify,
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientTls(..)")
    }
}

impl ClientTls {
    /// Trusts the roots in `ca` (PEM), or the system's when there is none.
    pub fn new(verify: Verify, ca: Option<&[u8]>) -> Result<Self, TlsError> {
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let config = match verify {
            Verify::Full => builder.with_root_certificates(roots(ca)?).with_no_client_auth(),
            Verify::Nothing => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider())))
                .with_no_client_auth(),
        };
        Ok(Self { config: Arc::new(config), verify })
    }
}

/// The channel binding that a server's certificate gives.
pub(crate) fn end_point(certificate: Option<&CertificateDer<'_>>) -> Binding {
    certificate.map_or(Binding::None, |certificate| Binding::EndPoint(end_point_hash(certificate)))
}

fn end_point_hash(certificate: &CertificateDer<'_>) -> Vec<u8> {
    // The last arc of the signature algorithm's OID tells the hash: RFC 8017 A.2.4, RFC 5758 3.2.
    let algorithm = x509_cert::Certificate::from_der(certificate)
        .map(|parsed| parsed.signature_algorithm.oid.to_string())
        .unwrap_or_default();
    match algorithm.as_str() {
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Sha384::digest(certificate).to_vec(),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Sha512::digest(certificate).to_vec(),
        _ => Sha256::digest(certificate).to_vec(),
    }
}

fn roots(ca: Option<&[u8]>) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    match ca {
        Some(pem) => {
            for certificate in certificates_of(pem)? {
                store.add(certificate)?;
            }
        }
        None => {
            // Stores in the field hold the odd broken certificate; one good root is enough.
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if store.is_empty() {
        return Err(TlsError::NoRoots);
    }
    Ok(store)
}

fn certificates_of(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem { expected: "certificates", source })?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    Ok(chain)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Accepts every certificate, for `tls = "require"`; signatures of the handshake are still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_certificate_serves_and_binds() {
        let (certificate, key) = generate(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        let tls = ServerTls::from_pem(certificate.as_bytes(), key.as_bytes(), None).unwrap();
        assert_eq!(tls.end_point.len(), 32);
        assert!(ClientTls::new(Verify::Full, Some(certificate.as_bytes())).is_ok());
    }

    #[test]
    fn what_is_no_certificate_is_refused_in_words() {
        let error = ServerTls::from_pem(b"hello", b"hello", None).unwrap_err();
        assert!(error.to_string().contains("certificate"), "{error}");
    }
}

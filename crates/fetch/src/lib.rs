//! What this program asks others for over HTTP: short answers, within a time, from exactly the address that was named.
//!
//! One client for whoever asks: the gateway for the keys of issuers, what asks witnesses and hands out receipts, and the
//! command line. It blocks, so it belongs on a thread of its own. A redirect is an answer like any other, and is not
//! followed: who is asked is who was named.
//!
//! Not for: tries, forms, JSON. Those are the asker's.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use ureq::Agent;
use ureq::http::{HeaderMap, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

/// How long a connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Whose certificates are believed. The PEM of a certificate authority, or of the server's own certificate.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// Those of the system's authorities.
    System,
    /// Those, and those of the authorities in this PEM.
    Also(&'a [u8]),
    /// Those of the authorities in this PEM, and no others.
    Only(&'a [u8]),
}

/// Whether connections are kept for the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// For who asks often.
    Kept,
    /// For who asks rarely: a server that was restarted in between would not know one that was kept.
    Closed,
}

/// A client. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    agent: Agent,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    headers: HeaderMap,
    /// The body, unpacked.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It could not be had.
    #[error("{0}")]
    Http(String),
    /// It is longer than it can be.
    #[error("the body is longer than the limit of {0} bytes")]
    TooLong(u64),
    /// What was to be trusted is no certificate.
    #[error("it holds no certificate in PEM form")]
    NoCertificate,
}

impl Client {
    /// A client whose requests take at most so long.
    ///
    /// # Errors
    /// There is no certificate in what is to be trusted.
    pub fn new(trust: Trust<'_>, timeout: Duration, connections: Connections) -> Result<Self, FetchError> {
        let (system, more) = match trust {
            Trust::System => (true, None),
            Trust::Also(pem) => (true, Some(pem)),
            Trust::Only(pem) => (false, Some(pem)),
        };
        let mut roots = more.map(certificates).transpose()?.unwrap_or_default();
        if system {
            roots.extend(rustls_native_certs::load_native_certs().certs);
        }
        Ok(Self::trusting(&roots, timeout, connections))
    }

    /// A client that trusts the authorities of the system, and keeps connections.
    #[must_use]
    pub fn of_system(timeout: Duration) -> Self {
        Self::trusting(&rustls_native_certs::load_native_certs().certs, timeout, Connections::Kept)
    }

    fn trusting(roots: &[CertificateDer<'_>], timeout: Duration, connections: Connections) -> Self {
        let roots: Vec<_> = roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::Specific(Arc::new(roots)))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .build();
        let mut config = Agent::config_builder()
            .timeout_connect(Some(timeout.min(CONNECT_MAX)))
            .timeout_global(Some(timeout))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("onrecord/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls);
        if connections == Connections::Closed {
            config = config.max_idle_connections(0);
        }
        Self { agent: config.build().into() }
    }

    /// Reads what is at a URL: at most this many bytes.
    ///
    /// # Errors
    /// There is no answer, or a longer one.
    pub fn get(&self, url: &str, headers: &[(&str, String)], bytes_max: u64) -> Result<Reply, FetchError> {
        let mut request = self.agent.get(url);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        reply(request.call(), bytes_max)
    }

    /// Hands something in at a URL, and reads the answer: at most this many bytes.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post(
        &self,
        url: &str,
        headers: &[(&str, String)],
        body: &[u8],
        bytes_max: u64,
    ) -> Result<Reply, FetchError> {
        let mut request = self.agent.post(url);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        reply(request.send(body), bytes_max)
    }
}

impl Reply {
    /// A header, if it is there once and is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

fn reply(answer: Result<Response<ureq::Body>, ureq::Error>, bytes_max: u64) -> Result<Reply, FetchError> {
    let answer = answer.map_err(|error| FetchError::Http(error.to_string()))?;
    let (parts, body) = answer.into_parts();
    let mut bytes = Vec::new();
    // One more than the limit, so that what is too long is seen as such.
    let mut reader = body.into_reader().take(bytes_max.saturating_add(1));
    reader.read_to_end(&mut bytes).map_err(|error| FetchError::Http(error.to_string()))?;
    if u64::try_from(bytes.len()).map_or(true, |length| length > bytes_max) {
        return Err(FetchError::TooLong(bytes_max));
    }
    Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, body: bytes })
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, FetchError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or(FetchError::NoCertificate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_trusted_must_be_a_certificate() {
        for pem in [b"".as_slice(), b"hello", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
            for trust in [Trust::Also(pem), Trust::Only(pem)] {
                let refused = Client::new(trust, CONNECT_MAX, Connections::Kept);
                assert!(matches!(refused, Err(FetchError::NoCertificate)));
            }
        }
    }
}

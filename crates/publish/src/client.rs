//! What this program asks others for over HTTP: short answers, within a time, from exactly the address that was
//! configured. A redirect is an answer like any other, and is not followed.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// A client. Clones share its connections.
#[derive(Clone)]
pub(crate) struct Client {
    agent: Agent,
}

/// An answer.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// It could not be had.
    #[error("{0}")]
    Http(String),
    /// It is longer than it can be.
    #[error("the answer is longer than {0} bytes")]
    TooLong(u64),
}

impl Client {
    /// A client whose requests take at most so long.
    pub(crate) fn new(timeout: Duration) -> Self {
        let roots = rustls_native_certs::load_native_certs().certs;
        let roots: Vec<_> = roots.iter().map(|root| Certificate::from_der(root.as_ref()).to_owned()).collect();
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(roots)))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .build();
        let config = Agent::config_builder()
            .timeout_global(Some(timeout))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("onrecord/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build();
        Self { agent: config.into() }
    }

    pub(crate) fn get(&self, url: &str, bytes_max: u64) -> Result<Reply, ClientError> {
        let answer = self.agent.get(url).call().map_err(|error| ClientError::Http(error.to_string()))?;
        reply(answer, bytes_max)
    }

    pub(crate) fn post(
        &self,
        url: &str,
        headers: &[(&str, String)],
        body: &[u8],
        bytes_max: u64,
    ) -> Result<Reply, ClientError> {
        let mut request = self.agent.post(url);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let answer = request.send(body).map_err(|error| ClientError::Http(error.to_string()))?;
        reply(answer, bytes_max)
    }
}

fn reply(answer: ureq::http::Response<ureq::Body>, bytes_max: u64) -> Result<Reply, ClientError> {
    let status = answer.status().as_u16();
    let content_type = answer.headers().get("content-type").and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default().to_owned();
    let mut body = Vec::new();
    let mut reader = answer.into_body().into_reader().take(bytes_max + 1);
    reader.read_to_end(&mut body).map_err(|error| ClientError::Http(error.to_string()))?;
    if u64::try_from(body.len()).map_or(true, |length| length > bytes_max) {
        return Err(ClientError::TooLong(bytes_max));
    }
    Ok(Reply { status, content_type, body })
}

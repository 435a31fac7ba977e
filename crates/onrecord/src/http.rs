//! A small HTTP client for the command line: GET and POST with limits on everything, TLS verified against the system's
//! roots.

use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

/// How long a connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long one request may take in all.
const REQUEST_MAX: Duration = Duration::from_secs(60);
/// How often a request that failed for no fault of ours is tried.
const TRIES: u32 = 3;
/// Before the second try; doubled for the next.
const PAUSE: Duration = Duration::from_millis(200);

/// Something that could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The server could not be reached, or not be understood.
    #[error("{url}: {what}")]
    Transport {
        /// What was asked for, without its query.
        url: String,
        /// What is wrong.
        what: String,
    },
    /// The server's answer was no success.
    #[error("{url}: the server answered with status {status}")]
    Status {
        /// What was asked for, without its query.
        url: String,
        /// The status.
        status: u16,
    },
}

/// A client. It follows no redirects: who is asked is who was named.
pub struct Client(Agent);

impl Client {
    /// A client that trusts the roots of the system.
    #[must_use]
    pub fn new() -> Self {
        let found = rustls_native_certs::load_native_certs();
        let roots = found.certs.iter().map(|root| Certificate::from_der(root).to_owned());
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .root_certs(RootCerts::from(roots))
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .timeout_connect(Some(CONNECT_MAX))
            .timeout_global(Some(REQUEST_MAX))
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("onrecord/", env!("CARGO_PKG_VERSION")))
            .build();
        Self(config.new_agent())
    }

    /// The body at a URL, of at most this many bytes; none if there is nothing there.
    ///
    /// # Errors
    /// The server could not be reached, refused, or sent more; after some tries where another could help.
    pub fn get(&self, url: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, HttpError> {
        let mut pause = PAUSE;
        for _ in 1..TRIES {
            match self.try_get(url, bytes_max) {
                Err(HttpError::Status { status: 500.., .. } | HttpError::Transport { .. }) => {
                    std::thread::sleep(pause);
                    pause *= 2;
                }
                answer => return answer,
            }
        }
        self.try_get(url, bytes_max)
    }

    fn try_get(&self, url: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, HttpError> {
        let shown = || url.split('?').next().unwrap_or_default().to_owned();
        let failed = |error: ureq::Error| HttpError::Transport { url: shown(), what: error.to_string() };
        let mut answer = self.0.get(url).call().map_err(failed)?;
        match answer.status().as_u16() {
            200 => {}
            404 => return Ok(None),
            status => return Err(HttpError::Status { url: shown(), status }),
        }
        let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
        answer.body_mut().with_config().limit(limit).read_to_vec().map(Some).map_err(failed)
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

//! One fetch of an issuer's keys: over HTTPS from exactly the addresses that were configured or that the issuer's
//! discovery document names, or from a file. Redirects are not followed, and everything has a bound.

use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use fetch::{Client, Connections, Reply, Trust};
use hyper::Uri;
use identity::{DISCOVERY_BYTES_MAX, JWKS_BYTES_MAX, KeySet, KeysError, jwks_uri};

use super::{KeysFrom, now};

/// Where OpenID Connect puts the discovery document, below the issuer.
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// Why keys could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{url}: {what}")]
    Http { url: String, what: String },
    #[error("{url}: {source}")]
    Discovery { url: String, source: identity::DiscoveryError },
    #[error("{place}: {source}")]
    Keys { place: String, source: KeysError },
    #[error("{}: {source}", .path.display())]
    File { path: PathBuf, source: std::io::Error },
}

/// Keys, and for how long the issuer says that they hold.
pub(super) struct Fetched {
    pub(super) keys: KeySet,
    pub(super) max_age: Option<Duration>,
}

/// Fetches the keys of one issuer.
pub(super) enum Fetcher {
    Web { client: Client, issuer: String, jwks: Option<String> },
    File(PathBuf),
}

impl Fetcher {
    /// # Errors
    /// A text that says why keys cannot come from there.
    pub(super) fn new(issuer: &str, from: &KeysFrom, ca: Option<&[u8]>, timeout: Duration) -> Result<Self, String> {
        let jwks = match from {
            KeysFrom::File(path) => return Ok(Self::File(path.clone())),
            KeysFrom::Url(url) => Some(url.clone()),
            KeysFrom::Discovery => None,
        };
        check(jwks.as_deref().unwrap_or(issuer))?;
        Ok(Self::Web { client: client(ca, timeout)?, issuer: issuer.to_owned(), jwks })
    }

    /// Whether asking costs no one anything.
    pub(super) fn is_local(&self) -> bool {
        matches!(self, Self::File(_))
    }

    pub(super) fn fetch(&self) -> Result<Fetched, FetchError> {
        match self {
            Self::File(path) => from_file(path),
            Self::Web { client, issuer, jwks } => {
                let url = match jwks {
                    Some(url) => url.clone(),
                    None => discover(client, issuer)?,
                };
                let (document, max_age) = get(client, &url, JWKS_BYTES_MAX)?;
                let keys = KeySet::parse(&document, now());
                keys.map(|keys| Fetched { keys, max_age }).map_err(|source| FetchError::Keys { place: url, source })
            }
        }
    }
}

fn from_file(path: &PathBuf) -> Result<Fetched, FetchError> {
    let failed = |source| FetchError::File { path: path.clone(), source };
    let mut document = Vec::new();
    let limit = u64::try_from(JWKS_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path).map_err(failed)?.take(limit).read_to_end(&mut document).map_err(failed)?;
    let keys = KeySet::parse(&document, now());
    let place = || path.display().to_string();
    keys.map(|keys| Fetched { keys, max_age: None }).map_err(|source| FetchError::Keys { place: place(), source })
}

fn discover(client: &Client, issuer: &str) -> Result<String, FetchError> {
    let url = format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/'));
    let (document, _) = get(client, &url, DISCOVERY_BYTES_MAX)?;
    let keys = jwks_uri(&document, issuer).map_err(|source| FetchError::Discovery { url: url.clone(), source })?;
    check(&keys).map_err(|what| FetchError::Http { url, what: format!("`jwks_uri`: {what}") })?;
    Ok(keys)
}

fn get(client: &Client, url: &str, bytes_max: usize) -> Result<(Vec<u8>, Option<Duration>), FetchError> {
    let failed = |what: String| FetchError::Http { url: url.to_owned(), what };
    let answer = client.get(url, &[], u64::try_from(bytes_max).unwrap_or(u64::MAX));
    let answer = answer.map_err(|error| failed(error.to_string()))?;
    match answer.status {
        200 => {}
        status @ 300..400 => return Err(failed(format!("answered with a redirect ({status}), which is not followed"))),
        status => return Err(failed(format!("answered with status {status}"))),
    }
    let max_age = max_age(&answer);
    Ok((answer.body, max_age))
}

/// For how long an answer holds, by its `Cache-Control`.
fn max_age(answer: &Reply) -> Option<Duration> {
    let directives = answer.header("cache-control")?;
    let seconds = directives.split(',').find_map(|directive| directive.trim().strip_prefix("max-age="))?;
    seconds.parse().ok().map(Duration::from_secs)
}

fn client(ca: Option<&[u8]>, timeout: Duration) -> Result<Client, String> {
    let trust = ca.map_or(Trust::System, Trust::Only);
    Client::new(trust, timeout, Connections::Closed).map_err(|error| format!("`ca`: {error}"))
}

/// Keys come over HTTPS; without, from this host only.
fn check(url: &str) -> Result<(), String> {
    let uri: Uri = url.parse().map_err(|_| format!("{url:?} is no URL"))?;
    let host = uri.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let here = host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") if !host.is_empty() => Ok(()),
        Some("http") if here => Ok(()),
        _ => Err(format!("{url:?} must be an https:// URL: whoever changes the keys on their way is let in as anyone")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_over_https_or_from_this_host() {
        for good in [
            "https://a.example",
            "https://a.example/x?y",
            "http://127.0.0.1:9/k",
            "http://[::1]:9",
            "http://localhost/",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "http://a.example",
            "http://localhost.example",
            "ftp://a.example",
            "a.example",
            "",
            "https://",
            "file:///k",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}

//! The HTTP client of the command line: [`fetch`], with tries, forms and JSON.

use std::time::Duration;

use fetch::{Connections, FetchError, Reply, Trust};
use serde_json::Value;
use zeroize::Zeroizing;

/// How often a client asks, and how long it waits.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// How long one request may take in all.
    request: Duration,
    /// How often a request that failed for no fault of ours is tried.
    tries: u32,
    /// Before the second try; doubled for the next.
    pause: Duration,
}

const LIMITS: Limits = Limits { request: Duration::from_secs(60), tries: 3, pause: Duration::from_millis(200) };

/// Bytes of an answer that is JSON.
const JSON_BYTES_MAX: u64 = 1024 * 1024;
/// What a form says it is.
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
/// What JSON says it is.
const JSON: (&str, &str) = ("content-type", "application/json");

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

/// A client with tries, forms and JSON.
pub struct Client {
    client: fetch::Client,
    limits: Limits,
}

impl Client {
    /// A client that trusts the roots of the system.
    #[must_use]
    pub fn new() -> Self {
        Self::within(LIMITS)
    }

    /// A client that also trusts the certificates in this PEM.
    ///
    /// # Errors
    /// There are none in it, in words.
    pub fn trusting(pem: &[u8]) -> Result<Self, String> {
        let client = fetch::Client::new(Trust::Also(pem), LIMITS.request, Connections::Kept);
        Ok(Self { client: client.map_err(|error| error.to_string())?, limits: LIMITS })
    }

    fn within(limits: Limits) -> Self {
        Self { client: fetch::Client::of_system(limits.request), limits }
    }

    /// The body at a URL, of at most this many bytes; none if there is nothing there.
    ///
    /// # Errors
    /// The server could not be reached, refused, or sent more; after some tries where another could help.
    pub fn get(&self, url: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, HttpError> {
        let mut pause = self.limits.pause;
        for _ in 1..self.limits.tries {
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

    /// Posts a form, once, and reads the JSON that comes back, whatever the status: it says what is wrong.
    ///
    /// # Errors
    /// The server could not be reached, or what it answered is no JSON, or longer than a megabyte.
    pub fn post_form(&self, url: &str, form: &[(&str, &str)]) -> Result<(u16, Value), HttpError> {
        let body = Zeroizing::new(form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish());
        let headers = [(FORM.0, FORM.1.to_owned())];
        json_of(url, self.client.post(url, &headers, body.as_bytes(), JSON_BYTES_MAX))
    }

    /// Reads the JSON at a URL, once, as the bearer of a token.
    ///
    /// # Errors
    /// As [`Client::post_form`].
    pub fn get_json(&self, url: &str, bearer: Option<&str>) -> Result<(u16, Value), HttpError> {
        let headers: Vec<_> = bearer.map(bearer_of).into_iter().collect();
        json_of(url, self.client.get(url, &headers, JSON_BYTES_MAX))
    }

    /// Reads the JSON at a URL, once, as the bearer of a token; of at most this many bytes.
    ///
    /// # Errors
    /// As [`Client::post_form`], but for the length.
    pub fn get_long_json(&self, url: &str, bearer: &str, bytes_max: u64) -> Result<(u16, Value), HttpError> {
        json_of(url, self.client.get(url, &[bearer_of(bearer)], bytes_max))
    }

    /// Posts JSON, once, as the bearer of a token, and reads the JSON that comes back; of at most this many bytes.
    ///
    /// # Errors
    /// As [`Client::get_long_json`].
    pub fn post_json(&self, url: &str, bearer: &str, body: &Value, bytes_max: u64) -> Result<(u16, Value), HttpError> {
        let headers = [bearer_of(bearer), (JSON.0, JSON.1.to_owned())];
        json_of(url, self.client.post(url, &headers, body.to_string().as_bytes(), bytes_max))
    }

    fn try_get(&self, url: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, HttpError> {
        let answer = self.client.get(url, &[], u64::try_from(bytes_max).unwrap_or(u64::MAX));
        let answer = answer.map_err(|error| HttpError::Transport { url: shown(url), what: error.to_string() })?;
        match answer.status {
            200 => Ok(Some(answer.body)),
            404 => Ok(None),
            status => Err(HttpError::Status { url: shown(url), status }),
        }
    }
}

/// The header of a bearer.
fn bearer_of(token: &str) -> (&'static str, String) {
    ("authorization", format!("Bearer {token}"))
}

/// A URL without its query, which may hold a secret.
fn shown(url: &str) -> String {
    url.split('?').next().unwrap_or_default().to_owned()
}

fn json_of(url: &str, answer: Result<Reply, FetchError>) -> Result<(u16, Value), HttpError> {
    let failed = |what: String| HttpError::Transport { url: shown(url), what };
    let answer = answer.map_err(|error| failed(error.to_string()))?;
    match serde_json::from_slice(&answer.body) {
        Ok(value) => Ok((answer.status, value)),
        Err(_) if answer.status != 200 => Err(HttpError::Status { url: shown(url), status: answer.status }),
        Err(_) => Err(failed("the answer is not JSON".to_owned())),
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    /// Serves one connection after the other, the last one for ever; gives its address.
    fn server(answers: Vec<fn(&mut TcpStream) -> std::io::Result<()>>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let mut answers = answers.into_iter().peekable();
            let mut last = None;
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                last = answers.next().or(last);
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                if let Some(answer) = last {
                    let _ = answer(&mut stream);
                }
            }
        });
        url
    }

    fn client() -> Client {
        let short = Duration::from_millis(300);
        Client::within(Limits { request: short, tries: 3, pause: Duration::from_millis(1) })
    }

    fn patient() -> Client {
        Client::within(Limits { pause: Duration::from_millis(1), ..LIMITS })
    }

    fn ok(stream: &mut TcpStream) -> std::io::Result<()> {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody")
    }

    fn busy(stream: &mut TcpStream) -> std::io::Result<()> {
        stream.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    }

    #[test]
    fn a_server_that_is_busy_is_asked_again() {
        assert_eq!(patient().get(&server(vec![busy, busy, ok]), 4).unwrap().unwrap(), b"body");
        let error = patient().get(&server(vec![busy]), 4).unwrap_err();
        assert!(matches!(error, HttpError::Status { status: 503, .. }), "{error}");
    }

    #[test]
    fn a_server_that_stalls_is_left() {
        let silent = |stream: &mut TcpStream| stream.read(&mut [0; 1]).map(drop);
        let error = client().get(&server(vec![silent]), 4).unwrap_err();
        assert!(matches!(error, HttpError::Transport { .. }), "{error}");
        let half = |stream: &mut TcpStream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbo")?;
            stream.read(&mut [0; 1]).map(drop)
        };
        let error = client().get(&server(vec![half]), 4).unwrap_err();
        assert!(matches!(error, HttpError::Transport { .. }), "{error}");
    }

    #[test]
    fn a_body_without_end_is_cut_off() {
        fn endless(stream: &mut TcpStream) -> std::io::Result<()> {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            loop {
                stream.write_all(&[b'x'; 4096])?;
            }
        }
        let error = patient().get(&server(vec![endless]), 10_000).unwrap_err();
        assert!(error.to_string().contains("body"), "{error}");
        assert_eq!(patient().get(&server(vec![ok]), 4).unwrap().unwrap().len(), 4);
        assert!(patient().get(&server(vec![ok]), 3).is_err());
    }

    /// What counts is what comes out: a few packed bytes can be a million.
    #[test]
    fn a_packed_body_is_measured_unpacked() {
        fn packed(stream: &mut TcpStream) -> std::io::Result<()> {
            // A million zeros.
            let gzip = include_bytes!("../tests/million-zeros.gz");
            let length = gzip.len();
            stream.write_all(
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                )
                .as_bytes(),
            )?;
            stream.write_all(gzip)
        }
        assert_eq!(patient().get(&server(vec![packed]), 1_000_000).unwrap().unwrap().len(), 1_000_000);
        assert!(patient().get(&server(vec![packed]), 10_000).is_err());
    }

    #[test]
    fn nobody_is_sent_elsewhere() {
        fn moved(stream: &mut TcpStream) -> std::io::Result<()> {
            let to =
                "HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            stream.write_all(to.as_bytes())
        }
        let url = server(vec![moved]);
        let error = patient().get(&format!("{url}/checkpoint?secret=1"), 4).unwrap_err();
        assert!(matches!(error, HttpError::Status { status: 301, .. }), "{error}");
        assert!(error.to_string().contains("/checkpoint:") && !error.to_string().contains("secret"), "{error}");
    }
}

//! An HTTP/1.1 client that sends exactly the bytes a test asks for.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::process::PATIENCE;

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The head, in lower case.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).map(str::trim)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// Gets a URL.
#[track_caller]
pub fn get(url: &str) -> Reply {
    request("GET", url, "", b"").unwrap_or_else(|| panic!("no answer from {url}"))
}

/// Sends a request with more header lines (each with its line end) and a body, and reads to the end of the connection.
/// Nothing if nobody answers.
pub fn request(method: &str, url: &str, headers: &str, body: &[u8]) -> Option<Reply> {
    let (host, path) = split(url);
    let length = if method == "POST" { format!("content-length: {}\r\n", body.len()) } else { String::new() };
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{length}{headers}\r\n");
    raw(host, &[head.as_bytes(), body].concat())
}

/// Sends these bytes to a host and port, and reads to the end of the connection.
pub fn raw(host: &str, bytes: &[u8]) -> Option<Reply> {
    let mut stream = TcpStream::connect(host).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    // The other side may answer and leave before it has read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let at = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..at]).to_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Reply { status, head, body: answer[at + 4..].to_vec() })
}

fn split(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("http://").expect("an http URL");
    rest.find('/').map_or((rest, "/"), |at| rest.split_at(at))
}

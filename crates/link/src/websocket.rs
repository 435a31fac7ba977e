//! The carrier for networks that let only the web through: a WebSocket (RFC 6455) in which a TLS session runs.
//!
//! Binary messages are one stream of bytes; there are no extensions. Frames are `tungstenite`'s, the upgrade is here. The
//! WebSocket protects nothing: the TLS inside does.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

/// The path that an outpost asks for.
pub const PATH: &str = "/outpost";
/// The longest head of a request or an answer, bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// What is read at a time, bytes.
const READ_BYTES: usize = 16 * 1024;
/// The longest message that is read, bytes: twice what either end sends, since it is held whole for whoever connects.
const MESSAGE_BYTES_MAX: usize = 2 * PAYLOAD_BYTES_MAX;
/// The longest message that is sent, bytes.
const PAYLOAD_BYTES_MAX: usize = 32 * 1024;

/// Why bytes are no WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebSocketError {
    /// The head of a request or answer is too long.
    #[error("the head of an HTTP message is longer than {HEAD_BYTES_MAX} bytes")]
    Head,
    /// The peer does not upgrade.
    #[error("whoever answers there does not speak WebSocket (status {0})")]
    NoUpgrade(u16),
    /// A proxy refuses.
    #[error("the proxy refuses to connect (status {0})")]
    Proxy(u16),
    /// What comes is not what either end sends.
    #[error("the WebSocket brings text, not bytes")]
    Text,
}

impl From<WebSocketError> for io::Error {
    fn from(error: WebSocketError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Asks a server for the upgrade.
///
/// # Errors
/// The stream ends, or the server does not grant it.
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    host: &str,
    nonce: [u8; 16],
) -> io::Result<WebSocket<S>> {
    let key = STANDARD.encode(nonce);
    let request = format!(
        "GET {PATH} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let head = read_head(&mut stream).await?;
    let status = status_of(&head);
    if status != 101 || header(&head, "sec-websocket-accept") != Some(accept(&key).as_str()) {
        return Err(WebSocketError::NoUpgrade(status).into());
    }
    Ok(WebSocket::new(stream, Role::Client).await)
}

/// Grants a client the upgrade, if it asks for it.
///
/// # Errors
/// The stream ends, or the client asks for something else; it has been told.
pub async fn accept_from<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<WebSocket<S>> {
    let head = read_head(&mut stream).await?;
    let asked = head.lines().next().unwrap_or_default();
    let upgrade = header(&head, "upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket"));
    let key = header(&head, "sec-websocket-key").filter(|key| key.len() <= 64);
    let (Some(key), true) = (key, upgrade && asked == format!("GET {PATH} HTTP/1.1")) else {
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await?;
        stream.flush().await?;
        return Err(WebSocketError::NoUpgrade(404).into());
    };
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        accept(key)
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.flush().await?;
    Ok(WebSocket::new(stream, Role::Server).await)
}

/// Has a proxy connect to `address` (RFC 9110, 9.3.6). From then on the stream is the other end's.
///
/// # Errors
/// The stream ends, or the proxy refuses.
pub async fn through_proxy(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), address: &str) -> io::Result<()> {
    stream.write_all(format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    stream.flush().await?;
    match status_of(&read_head(stream).await?) {
        200..=299 => Ok(()),
        status => Err(WebSocketError::Proxy(status).into()),
    }
}

/// Reads up to the empty line and not a byte further.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_BYTES_MAX {
            return Err(WebSocketError::Head.into());
        }
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn status_of(head: &str) -> u16 {
    let mut words = head.split(' ');
    let http = words.next().is_some_and(|version| version.starts_with("HTTP/1."));
    words.next().filter(|_| http).and_then(|status| status.parse().ok()).unwrap_or(0)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then(|| value.trim()))
}

/// RFC 6455, 4.2.2: what shows that the server has read the key.
fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

/// A stream of bytes in the binary messages of a WebSocket.
pub struct WebSocket<S> {
    messages: WebSocketStream<S>,
    /// What is read of the last message and not yet taken.
    payload: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    async fn new(stream: S, role: Role) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        Self { messages: WebSocketStream::from_raw_socket(stream, role, Some(config)).await, payload: Bytes::new() }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.payload.is_empty() {
            match ready!(Pin::new(&mut this.messages).poll_next(cx)) {
                Some(Ok(Message::Binary(payload))) => this.payload = payload,
                Some(Ok(Message::Text(_))) => return Poll::Ready(Err(WebSocketError::Text.into())),
                // Answered by the library, as is a `Close`, after which there is nothing.
                Some(Ok(_)) => {}
                // A stream of bytes may just end: whether it ended too early is seen by the TLS inside.
                None | Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => {
                    return Poll::Ready(Ok(()));
                }
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
            }
        }
        buf.put_slice(&this.payload.split_to(buf.remaining().min(this.payload.len())));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut messages = Pin::new(&mut self.get_mut().messages);
        ready!(messages.as_mut().poll_ready(cx)).map_err(io_error)?;
        let part = bytes.get(..bytes.len().min(PAYLOAD_BYTES_MAX)).unwrap_or_default();
        if !part.is_empty() {
            messages.start_send(Message::binary(Bytes::copy_from_slice(part))).map_err(io_error)?;
        }
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().messages).poll_flush(cx).map_err(io_error)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // A peer that is gone hears no goodbye; the stream is shut all the same.
        let _ = ready!(Pin::new(&mut this.messages).poll_close(cx));
        Pin::new(this.messages.get_mut()).poll_shutdown(cx)
    }
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}

/// What the fuzzer runs: the same bytes in one piece and one by one must mean the same.
pub(crate) fn fuzz(data: &[u8]) {
    let head = String::from_utf8_lossy(data);
    let _ = (status_of(&head), header(&head, "upgrade"));
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
    let run = |role, piece| runtime.block_on(read_all(data, role, piece));
    for role in [Role::Client, Role::Server] {
        assert_eq!(run(role, data.len().max(1)), run(role, 1));
    }
}

/// What these bytes bring when they arrive in pieces of this size, and the error that ends it.
async fn read_all(data: &[u8], role: Role, piece: usize) -> (Vec<u8>, Option<String>) {
    let (mut from, to) = tokio::io::duplex(piece);
    let reading = async {
        let mut web = WebSocket::new(tokio::io::join(to, tokio::io::sink()), role).await;
        let mut bytes = Vec::new();
        let ended = web.read_to_end(&mut bytes).await;
        (bytes, ended.err().map(|error| error.to_string()))
    };
    let writing = async {
        // Fails when reading has ended before.
        let _ = from.write_all(data).await;
        drop(from);
    };
    tokio::join!(reading, writing).0
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// RFC 6455, 1.3.
    #[test]
    fn the_example_of_the_standard_is_accepted() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_whatever_their_number() {
        let (a, b) = tokio::io::duplex(1000);
        let server = tokio::spawn(async move {
            let mut server = accept_from(b).await.unwrap();
            let mut all = Vec::new();
            for length in [1usize, 125, 126, 70_000] {
                let mut part = vec![0; length];
                server.read_exact(&mut part).await.unwrap();
                server.write_all(&part).await.unwrap();
                server.flush().await.unwrap();
                all.extend(part);
            }
            all
        });
        let mut client = connect(a, "gateway", [7; 16]).await.unwrap();
        let mut sent = Vec::new();
        for (fill, length) in [(1u8, 1usize), (2, 125), (3, 126), (4, 70_000)] {
            let part = vec![fill; length];
            let (mut back, (mut read, mut write)) = (vec![0; length], tokio::io::split(&mut client));
            let writing = async {
                write.write_all(&part).await.unwrap();
                write.flush().await.unwrap();
            };
            tokio::join!(writing, async { read.read_exact(&mut back).await.unwrap() });
            assert_eq!(part, back);
            sent.extend(part);
        }
        assert_eq!(server.await.unwrap(), sent);
    }

    #[tokio::test]
    async fn whoever_asks_for_something_else_is_told_and_refused() {
        let (mut a, b) = tokio::io::duplex(1000);
        let server = tokio::spawn(accept_from(b));
        a.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert!(server.await.unwrap().is_err());
        let mut answer = String::new();
        a.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    }
}

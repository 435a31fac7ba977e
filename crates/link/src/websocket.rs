//! The carrier for networks that let only the web through: a WebSocket (RFC 6455) in which a TLS session runs.
//!
//! What is needed of it, and no more: binary messages are one stream of bytes, pings are answered, no extensions. The
//! WebSocket protects nothing: the TLS inside does.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

/// The path that an outpost asks for.
pub const PATH: &str = "/outpost";
/// The longest head of a request or an answer, bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// The longest payload of a control frame, bytes (RFC 6455, 5.5).
const CONTROL_BYTES_MAX: u64 = 125;
/// What is read at a time, bytes.
const READ_BYTES: usize = 16 * 1024;
/// What waits to be written before more has to wait, bytes.
const OUT_BYTES_MAX: usize = 64 * 1024;
/// The largest payload of a frame that is sent, bytes.
const PAYLOAD_BYTES_MAX: usize = 32 * 1024;

/// Which end of the WebSocket this is. A client masks what it sends, a server does not (RFC 6455, 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It asked for the upgrade.
    Client,
    /// It granted it.
    Server,
}

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
    /// A frame breaks the rules.
    #[error("a WebSocket frame breaks RFC 6455: {0}")]
    Frame(&'static str),
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
    Ok(WebSocket::new(stream, Role::Client))
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
    Ok(WebSocket::new(stream, Role::Server))
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
    stream: S,
    role: Role,
    decoder: Decoder,
    /// Read and not yet taken, from `taken` on; what is payload of a started frame is decoded when it is taken.
    input: Vec<u8>,
    taken: usize,
    out: Vec<u8>,
    written: usize,
    /// Counts the frames sent: masks only have to differ, the TLS inside protects.
    masks: u32,
    ended: bool,
}

impl<S> WebSocket<S> {
    fn new(stream: S, role: Role) -> Self {
        Self {
            stream,
            role,
            decoder: Decoder::new(role),
            input: Vec::new(),
            taken: 0,
            out: Vec::new(),
            written: 0,
            masks: 0x9E37_79B9,
            ended: false,
        }
    }

    fn push(&mut self, opcode: u8, payload: &[u8]) {
        let length = payload.len();
        let masked = match self.role {
            Role::Client => 0x80,
            Role::Server => 0,
        };
        self.out.push(0x80 | opcode);
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short), _) if short < 126 => self.out.push(masked | short),
            (_, Ok(long)) => {
                self.out.push(masked | 126);
                self.out.extend_from_slice(&long.to_be_bytes());
            }
            _ => {
                self.out.push(masked | 127);
                self.out.extend_from_slice(&u64::try_from(length).unwrap_or(0).to_be_bytes());
            }
        }
        match self.role {
            Role::Server => self.out.extend_from_slice(payload),
            Role::Client => {
                self.masks = self.masks.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
                let mask = self.masks.to_be_bytes();
                self.out.extend_from_slice(&mask);
                self.out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> WebSocket<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.out.get(self.written..)
            && !rest.is_empty()
        {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        self.out.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            let rest = this.input.get_mut(this.taken..).unwrap_or_default();
            if rest.is_empty() {
                this.input.resize(READ_BYTES, 0);
                this.taken = 0;
                let mut into = ReadBuf::new(&mut this.input);
                let polled = Pin::new(&mut this.stream).poll_read(cx, &mut into);
                let read = into.filled().len();
                this.input.truncate(read);
                ready!(polled)?;
                this.ended = read == 0;
                continue;
            }
            let most = buf.remaining().min(rest.len());
            let part = if this.decoder.in_data() { rest.get_mut(..most).unwrap_or_default() } else { rest };
            let (taken, event) = this.decoder.feed(part)?;
            match event {
                Some(Event::Data(count)) => {
                    buf.put_slice(part.get(..count).unwrap_or_default());
                    this.taken += taken;
                    return Poll::Ready(Ok(()));
                }
                Some(Event::Ping(payload)) => {
                    if this.out.len() < OUT_BYTES_MAX {
                        this.push(0xA, &payload);
                    }
                    if let Poll::Ready(Err(error)) = this.poll_drain(cx) {
                        return Poll::Ready(Err(error));
                    }
                }
                Some(Event::Close) => this.ended = true,
                None => {}
            }
            this.taken += taken;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.out.len() >= OUT_BYTES_MAX {
            ready!(this.poll_drain(cx))?;
        }
        let part = bytes.get(..bytes.len().min(PAYLOAD_BYTES_MAX)).unwrap_or_default();
        if !part.is_empty() {
            this.push(0x2, part);
        }
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

/// Frames off a stream of bytes.
struct Decoder {
    role: Role,
    header: Vec<u8>,
    /// What is left of the payload; the header is complete when this is some.
    left: Option<u64>,
    opcode: u8,
    mask: [u8; 4],
    /// How many bytes of the payload came before.
    at: usize,
    control: Vec<u8>,
    /// A message has begun and not ended.
    open: bool,
}

/// What a step came to.
enum Event {
    /// So many bytes at the start of what was fed are data, unmasked where they are.
    Data(usize),
    /// The peer wants these back.
    Ping(Vec<u8>),
    /// The peer ends the WebSocket.
    Close,
}

impl Decoder {
    fn new(role: Role) -> Self {
        Self { role, header: Vec::new(), left: None, opcode: 0, mask: [0; 4], at: 0, control: Vec::new(), open: false }
    }

    /// Whether what comes next is data.
    fn in_data(&self) -> bool {
        self.left.is_some() && self.opcode <= 2
    }

    /// Takes some bytes, at least one of those there are, and says how many and what came of them.
    fn feed(&mut self, input: &mut [u8]) -> Result<(usize, Option<Event>), WebSocketError> {
        let Some(left) = self.left else {
            let Some(byte) = input.first() else { return Ok((0, None)) };
            self.header.push(*byte);
            self.begin()?;
            // An empty frame has no byte that would end it.
            return Ok((1, if self.left == Some(0) { self.end() } else { None }));
        };
        let count = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let part = input.get_mut(..count).unwrap_or_default();
        for (byte, mask) in part.iter_mut().zip(self.mask.iter().cycle().skip(self.at % 4)) {
            *byte ^= mask;
        }
        self.at = self.at.wrapping_add(count);
        let left = left - u64::try_from(count).unwrap_or(left);
        self.left = Some(left);
        if self.opcode <= 2 {
            if left == 0 {
                self.end();
            }
            return Ok((count, Some(Event::Data(count))));
        }
        self.control.extend_from_slice(part);
        Ok((count, if left == 0 { self.end() } else { None }))
    }

    /// Looks at the header so far; sets `left` when it is complete.
    fn begin(&mut self) -> Result<(), WebSocketError> {
        let [first, second, rest @ ..] = self.header.as_slice() else { return Ok(()) };
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0F);
        if first & 0x70 != 0 {
            return Err(WebSocketError::Frame("a reserved bit is set"));
        }
        if (second & 0x80 != 0) != (self.role == Role::Server) {
            return Err(WebSocketError::Frame("it is masked by the wrong end"));
        }
        let extended = match second & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let masked = if self.role == Role::Server { 4 } else { 0 };
        let Some((length, rest)) = rest.split_at_checked(extended) else { return Ok(()) };
        let Some((mask, _)) = rest.split_at_checked(masked) else { return Ok(()) };
        let length = match extended {
            0 => u64::from(second & 0x7F),
            _ => length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        match opcode {
            0 if !self.open => return Err(WebSocketError::Frame("nothing is continued")),
            0 => self.open = !fin,
            2 if self.open => return Err(WebSocketError::Frame("a message begins in another")),
            2 => self.open = !fin,
            8..=10 if !fin || length > CONTROL_BYTES_MAX => {
                return Err(WebSocketError::Frame("a control frame is long or in parts"));
            }
            8..=10 => {}
            _ => return Err(WebSocketError::Frame("it is neither binary nor control")),
        }
        if length > i64::MAX.unsigned_abs() {
            return Err(WebSocketError::Frame("its length is no length"));
        }
        self.mask = mask.try_into().unwrap_or_default();
        self.opcode = opcode;
        self.left = Some(length);
        Ok(())
    }

    fn end(&mut self) -> Option<Event> {
        self.header.clear();
        self.left = None;
        self.at = 0;
        let payload = std::mem::take(&mut self.control);
        match self.opcode {
            8 => Some(Event::Close),
            9 => Some(Event::Ping(payload)),
            _ => None,
        }
    }
}

/// What the fuzzer runs: the same bytes in one piece and one by one must mean the same.
pub(crate) fn fuzz(data: &[u8]) {
    let run = |role, piece: usize| {
        let (mut decoder, mut data) = (Decoder::new(role), data.to_vec());
        let (mut bytes, mut pings, mut at) = (Vec::new(), 0, 0);
        while at < data.len() {
            let end = data.len().min(at + piece);
            let part = data.get_mut(at..end).unwrap_or_default();
            match decoder.feed(part) {
                Err(error) => return (bytes, pings, Some(error)),
                Ok((taken, event)) => {
                    match event {
                        Some(Event::Data(count)) => bytes.extend_from_slice(part.get(..count).unwrap_or_default()),
                        Some(Event::Ping(_)) => pings += 1,
                        Some(Event::Close) => return (bytes, pings, None),
                        None => {}
                    }
                    assert!(taken > 0, "it goes on");
                    at += taken;
                }
            }
        }
        (bytes, pings, None)
    };
    for role in [Role::Client, Role::Server] {
        assert_eq!(run(role, usize::MAX >> 1), run(role, 1));
    }
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

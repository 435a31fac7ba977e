//! The frames: small, with a length in front, each field bounded.
//!
//! ```text
//! length u16 | kind u8 | fields            (all numbers big-endian; the length counts kind and fields)
//! text  = length u16, UTF-8                 bytes = length u16, bytes
//! ```
//!
//! Invariant: what is decoded encodes to the same bytes, and a frame with a byte too many is none.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The longest frame, bytes: a certificate and four authorities fit.
pub const FRAME_BYTES_MAX: usize = 16 * 1024;
/// The longest host name, bytes (RFC 1035, 2.3.4).
pub const HOST_BYTES_MAX: usize = 255;
/// The longest text of any other kind, bytes.
pub const TEXT_BYTES_MAX: usize = 256;
/// The longest certificate or signing request, bytes.
pub const DER_BYTES_MAX: usize = 3 * 1024;
/// Authorities of a gateway at a time: the one before, the one in force, and the one to come.
pub const AUTHORITIES_MAX: usize = 4;

/// One message of either end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The outpost's first word on the control stream of a connection.
    Hello {
        /// The version of the frames.
        version: u8,
        /// Made up at each start of the outpost's process.
        instance: [u8; 16],
        /// Counts the connections of that process: the newer one of a place supersedes the older.
        epoch: u64,
        /// Which of the outpost's parallel connections this is.
        place: u8,
        /// Program and version, for people.
        program: String,
    },
    /// The gateway takes the connection.
    Welcome {
        /// The version of the frames.
        version: u8,
        /// The outpost's name, for its log.
        name: String,
    },
    /// Are you there?
    Ping {
        /// Comes back.
        number: u64,
    },
    /// I am.
    Pong {
        /// As it came.
        number: u64,
    },
    /// The end that says so is about to close the connection, in order.
    Goodbye {
        /// Why, for people.
        why: String,
    },
    /// The gateway's first word on the stream of a session: dial this.
    Open {
        /// The version of the frames.
        version: u8,
        /// The session it is for, for the outpost's log.
        session: String,
        /// Host name or IP address, as the outpost's allow-list has it.
        host: String,
        /// Port.
        port: u16,
        /// Milliseconds from now that it may take.
        deadline_ms: u32,
    },
    /// It is connected: what follows on the stream is the resource's.
    Opened {
        /// Microseconds that it took.
        connect_us: u32,
    },
    /// The allow-list of the outpost has no such address.
    Refused,
    /// It cannot be connected to.
    Unreachable {
        /// What the system says.
        why: String,
    },
    /// It did not answer before the deadline.
    TimedOut,
    /// A join token is exchanged for a certificate.
    Enrol {
        /// Which token.
        token: [u8; 8],
        /// The certificate signing request (PKCS #10, DER).
        request: Vec<u8>,
        /// HMAC-SHA256 over the request, with the token's secret as key.
        mac: [u8; 32],
    },
    /// The next certificate is asked for.
    Renew {
        /// The certificate signing request (PKCS #10, DER).
        request: Vec<u8>,
    },
    /// Here is the certificate.
    Issued {
        /// The outpost's id.
        id: String,
        /// The outpost's name.
        name: String,
        /// The certificate, DER.
        certificate: Vec<u8>,
        /// The authorities to trust from now on, DER.
        authorities: Vec<Vec<u8>>,
        /// From when the certificate is valid, seconds since 1970.
        not_before: i64,
        /// Until when, seconds since 1970.
        not_after: i64,
    },
    /// There is none.
    Denied {
        /// Why, for people.
        why: String,
    },
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It ends before it is complete.
    #[error("a frame ends early")]
    Short,
    /// It goes on after its end.
    #[error("a frame has more bytes than it should")]
    Long,
    /// Nobody knows this kind.
    #[error("a frame is of kind {0}, which this version does not know")]
    Kind(u8),
    /// A field is longer than it may be.
    #[error("a field of a frame is longer than {0} bytes")]
    Field(usize),
    /// A text is not UTF-8 or has control characters.
    #[error("a text of a frame is not readable")]
    Text,
    /// More authorities than may be.
    #[error("a frame names more than {AUTHORITIES_MAX} authorities")]
    Authorities,
}

impl From<FrameError> for io::Error {
    fn from(error: FrameError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

impl Frame {
    /// The bytes, with their length in front. Texts that are too long are cut.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer(vec![0, 0]);
        match self {
            Self::Hello { version, instance, epoch, place, program } => {
                out.raw(&[1, *version]).raw(instance).raw(&epoch.to_be_bytes()).raw(&[*place]).text(program);
            }
            Self::Welcome { version, name } => {
                out.raw(&[2, *version]).text(name);
            }
            Self::Ping { number } => {
                out.raw(&[3]).raw(&number.to_be_bytes());
            }
            Self::Pong { number } => {
                out.raw(&[4]).raw(&number.to_be_bytes());
            }
            Self::Goodbye { why } => {
                out.raw(&[5]).text(why);
            }
            Self::Open { version, session, host, port, deadline_ms } => {
                out.raw(&[6, *version]).text(session).text(host);
                out.raw(&port.to_be_bytes()).raw(&deadline_ms.to_be_bytes());
            }
            Self::Opened { connect_us } => {
                out.raw(&[7]).raw(&connect_us.to_be_bytes());
            }
            Self::Refused => {
                out.raw(&[8]);
            }
            Self::Unreachable { why } => {
                out.raw(&[9]).text(why);
            }
            Self::TimedOut => {
                out.raw(&[10]);
            }
            Self::Enrol { token, request, mac } => {
                out.raw(&[11]).raw(token).bytes(request).raw(mac);
            }
            Self::Renew { request } => {
                out.raw(&[12]).bytes(request);
            }
            Self::Issued { id, name, certificate, authorities, not_before, not_after } => {
                let count = u8::try_from(authorities.len().min(AUTHORITIES_MAX)).unwrap_or(0);
                out.raw(&[13]).text(id).text(name).bytes(certificate).raw(&[count]);
                for authority in authorities.iter().take(count.into()) {
                    out.bytes(authority);
                }
                out.raw(&not_before.to_be_bytes()).raw(&not_after.to_be_bytes());
            }
            Self::Denied { why } => {
                out.raw(&[14]).text(why);
            }
        }
        out.finish()
    }

    /// From the bytes behind the length.
    ///
    /// # Errors
    /// They are no frame of this version.
    pub fn decode(body: &[u8]) -> Result<Self, FrameError> {
        let mut from = Cursor(body);
        let frame = match from.byte()? {
            1 => Self::Hello {
                version: from.byte()?,
                instance: from.array()?,
                epoch: u64::from_be_bytes(from.array()?),
                place: from.byte()?,
                program: from.text(TEXT_BYTES_MAX)?,
            },
            2 => Self::Welcome { version: from.byte()?, name: from.text(TEXT_BYTES_MAX)? },
            3 => Self::Ping { number: u64::from_be_bytes(from.array()?) },
            4 => Self::Pong { number: u64::from_be_bytes(from.array()?) },
            5 => Self::Goodbye { why: from.text(TEXT_BYTES_MAX)? },
            6 => Self::Open {
                version: from.byte()?,
                session: from.text(TEXT_BYTES_MAX)?,
                host: from.text(HOST_BYTES_MAX)?,
                port: u16::from_be_bytes(from.array()?),
                deadline_ms: u32::from_be_bytes(from.array()?),
            },
            7 => Self::Opened { connect_us: u32::from_be_bytes(from.array()?) },
            8 => Self::Refused,
            9 => Self::Unreachable { why: from.text(TEXT_BYTES_MAX)? },
            10 => Self::TimedOut,
            11 => Self::Enrol { token: from.array()?, request: from.bytes(DER_BYTES_MAX)?, mac: from.array()? },
            12 => Self::Renew { request: from.bytes(DER_BYTES_MAX)? },
            13 => {
                let (id, name) = (from.text(TEXT_BYTES_MAX)?, from.text(TEXT_BYTES_MAX)?);
                let certificate = from.bytes(DER_BYTES_MAX)?;
                let count = usize::from(from.byte()?);
                if count > AUTHORITIES_MAX {
                    return Err(FrameError::Authorities);
                }
                let authorities = (0..count).map(|_| from.bytes(DER_BYTES_MAX)).collect::<Result<_, _>>()?;
                let not_before = i64::from_be_bytes(from.array()?);
                let not_after = i64::from_be_bytes(from.array()?);
                Self::Issued { id, name, certificate, authorities, not_before, not_after }
            }
            14 => Self::Denied { why: from.text(TEXT_BYTES_MAX)? },
            other => return Err(FrameError::Kind(other)),
        };
        if from.0.is_empty() { Ok(frame) } else { Err(FrameError::Long) }
    }

    /// Reads one frame. Not cancel safe: what was read of it is lost.
    ///
    /// # Errors
    /// The stream ends, or what comes is no frame.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let length = usize::from(stream.read_u16().await?);
        if length > FRAME_BYTES_MAX {
            return Err(FrameError::Field(FRAME_BYTES_MAX).into());
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        Ok(Self::decode(&body)?)
    }

    /// Writes it. Not cancel safe.
    ///
    /// # Errors
    /// The stream does not take it.
    pub async fn write(&self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        stream.write_all(&self.encode()).await?;
        stream.flush().await
    }
}

/// A text as a frame may have it: without control characters, and not longer than [`TEXT_BYTES_MAX`].
#[must_use]
pub fn plain(text: &str) -> String {
    let mut plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    while plain.len() > TEXT_BYTES_MAX {
        plain.pop();
    }
    plain
}

struct Writer(Vec<u8>);

impl Writer {
    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.raw(&length.to_be_bytes()).raw(bytes.get(..length.into()).unwrap_or_default())
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(plain(text).as_bytes())
    }

    fn finish(self) -> Vec<u8> {
        let mut out = self.0;
        let length = u16::try_from(out.len().saturating_sub(2)).unwrap_or(u16::MAX);
        if let Some(head) = out.first_chunk_mut::<2>() {
            *head = length.to_be_bytes();
        }
        out
    }
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8], FrameError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(FrameError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8, FrameError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn bytes(&mut self, most: usize) -> Result<Vec<u8>, FrameError> {
        let length = usize::from(u16::from_be_bytes(self.array()?));
        if length > most {
            return Err(FrameError::Field(most));
        }
        Ok(self.take(length)?.to_vec())
    }

    fn text(&mut self, most: usize) -> Result<String, FrameError> {
        let text = String::from_utf8(self.bytes(most)?).map_err(|_| FrameError::Text)?;
        if text.chars().any(char::is_control) { Err(FrameError::Text) } else { Ok(text) }
    }
}

/// What the fuzzer runs.
pub(crate) fn fuzz(data: &[u8]) {
    if let Ok(frame) = Frame::decode(data) {
        let bytes = frame.encode();
        assert_eq!(bytes.get(2..), Some(data), "it writes what it reads");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn samples() -> Vec<Frame> {
        vec![
            Frame::Hello { version: 1, instance: [7; 16], epoch: 3, place: 1, program: "outpost 1".into() },
            Frame::Welcome { version: 1, name: "site-a".into() },
            Frame::Ping { number: 1 },
            Frame::Pong { number: u64::MAX },
            Frame::Goodbye { why: "stopping".into() },
            Frame::Open { version: 1, session: "s".into(), host: "db.internal".into(), port: 5432, deadline_ms: 5000 },
            Frame::Opened { connect_us: 120 },
            Frame::Refused,
            Frame::Unreachable { why: "connection refused".into() },
            Frame::TimedOut,
            Frame::Enrol { token: [1; 8], request: vec![0x30; 300], mac: [9; 32] },
            Frame::Renew { request: vec![0x30; 300] },
            Frame::Issued {
                id: "op_1".into(),
                name: "site-a".into(),
                certificate: vec![0x30; 500],
                authorities: vec![vec![0x30; 400]; 2],
                not_before: 1,
                not_after: 86_401,
            },
            Frame::Denied { why: "used".into() },
        ]
    }

    #[test]
    fn every_frame_comes_back_as_it_was_and_no_part_of_it_does() {
        for frame in samples() {
            let bytes = frame.encode();
            assert_eq!(Frame::decode(&bytes[2..]), Ok(frame.clone()));
            for cut in 2..bytes.len() {
                assert!(Frame::decode(&bytes[2..cut]).is_err(), "{frame:?} cut at {cut}");
            }
            let longer = [&bytes[2..], &[0]].concat();
            assert!(Frame::decode(&longer).is_err(), "{frame:?}");
        }
    }

    #[test]
    fn a_text_with_control_characters_is_refused_and_never_written() {
        assert_eq!(Frame::decode(&[5, 0, 2, b'a', b'\n']), Err(FrameError::Text));
        let frame = Frame::Goodbye { why: "a\nb".into() };
        assert_eq!(Frame::decode(&frame.encode()[2..]), Ok(Frame::Goodbye { why: "a b".into() }));
    }
}

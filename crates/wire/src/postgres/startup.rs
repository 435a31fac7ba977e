//! What a client may say before a session: TLS and GSS requests, a cancel request, or the startup packet.
//!
//! For: reading exactly one packet, within the length that it declares. Not for: deciding what is answered.
//! Invariant: never asks for more than [`STARTUP_BYTES_MAX`] bytes, and never reads past the declared length.

use crate::cursor::Cursor;

/// Longest startup packet, as the server has it (`MAX_STARTUP_PACKET_LENGTH` in pqcomm.h).
pub const STARTUP_BYTES_MAX: usize = 10_000;

/// Shortest and longest secret of a cancel key; 3.0 sends 4 bytes, 3.2 up to 256.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 4..=256;

const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const TLS_HANDSHAKE: u8 = 0x16;

/// The first thing that a client says on a connection, or says again after TLS or a refused GSS request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum First {
    /// CancelRequest: nothing follows and nothing is answered.
    Cancel(CancelKey),
    /// The first byte of a TLS handshake without an SSLRequest; nothing is consumed.
    DirectTls,
    /// GSSENCRequest.
    Gss,
    /// StartupMessage.
    Start(Startup),
    /// SSLRequest.
    Tls,
}

/// Names a session to be cancelled.
#[derive(Clone, PartialEq, Eq)]
pub struct CancelKey {
    /// Process id of the session, as in BackendKeyData.
    pub pid: u32,
    /// Secret of the session, 4 to 256 bytes.
    pub secret: Vec<u8>,
}

impl std::fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CancelKey").field("pid", &self.pid).finish_non_exhaustive()
    }
}

/// A StartupMessage, as the client sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Startup {
    major: u16,
    minor: u16,
    parameters: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Why the first packet of a client is refused. Always the client's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartupError {
    /// A cancel request whose key has no valid length.
    #[error("a cancel request carried a key of {0} bytes, expected 4 to 256")]
    CancelKey(usize),
    /// The declared length is outside of what the protocol allows.
    #[error("a startup packet declared {0} bytes, expected 8 to {STARTUP_BYTES_MAX}")]
    Length(u32),
    /// The packet is not a list of name and value strings that ends where its length says.
    #[error("the startup packet is malformed: {0}")]
    Malformed(&'static str),
    /// `user` was given twice, so that two readers of the packet could see two users.
    #[error("the startup packet names `user` more than once")]
    RepeatedUser,
    /// A request code or a major version that nobody speaks.
    #[error("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2")]
    Version {
        /// Major version asked for.
        major: u16,
        /// Minor version asked for.
        minor: u16,
    },
}

impl StartupError {
    /// What the client may read: an SQLSTATE and a message.
    pub fn for_client(&self) -> (&'static str, String) {
        let code = match self {
            Self::Version { .. } => "0A000",
            Self::CancelKey(_) | Self::Length(_) | Self::Malformed(_) | Self::RepeatedUser => "08P01",
        };
        (code, self.to_string())
    }
}

/// Reads the first packet of `bytes`: the packet and how many bytes it took, or `None` while it is incomplete.
pub fn parse_first(bytes: &[u8]) -> Result<Option<(First, usize)>, StartupError> {
    if bytes.first() == Some(&TLS_HANDSHAKE) {
        return Ok(Some((First::DirectTls, 0)));
    }
    let mut cursor = Cursor(bytes);
    let Some(length) = cursor.u32() else {
        return Ok(None);
    };
    let total = usize::try_from(length).map_err(|_| StartupError::Length(length))?;
    if !(8..=STARTUP_BYTES_MAX).contains(&total) {
        return Err(StartupError::Length(length));
    }
    let Some(packet) = bytes.get(..total) else {
        return Ok(None);
    };
    let mut packet = Cursor(packet);
    let (Some(_), Some(code)) = (packet.u32(), packet.u32()) else {
        return Ok(None);
    };
    let first = match code {
        SSL_REQUEST => exactly(length, First::Tls)?,
        GSS_REQUEST => exactly(length, First::Gss)?,
        CANCEL_REQUEST => First::Cancel(cancel(packet)?),
        _ => First::Start(Startup::parse(code, packet)?),
    };
    Ok(Some((first, total)))
}

fn exactly(length: u32, first: First) -> Result<First, StartupError> {
    if length == 8 { Ok(first) } else { Err(StartupError::Length(length)) }
}

fn cancel(mut body: Cursor<'_>) -> Result<CancelKey, StartupError> {
    let pid = body.u32().ok_or(StartupError::CancelKey(0))?;
    if !SECRET_BYTES.contains(&body.0.len()) {
        return Err(StartupError::CancelKey(body.0.len()));
    }
    Ok(CancelKey { pid, secret: body.0.to_vec() })
}

impl Startup {
    fn parse(code: u32, mut body: Cursor<'_>) -> Result<Self, StartupError> {
        let [major_high, major_low, minor_high, minor_low] = code.to_be_bytes();
        let major = u16::from_be_bytes([major_high, major_low]);
        let minor = u16::from_be_bytes([minor_high, minor_low]);
        if major != 3 {
            return Err(StartupError::Version { major, minor });
        }
        let mut parameters: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        loop {
            let name = body.string().ok_or(StartupError::Malformed("a name has no end"))?;
            if name.is_empty() {
                break;
            }
            let value = body.string().ok_or(StartupError::Malformed("a value has no end"))?;
            if name == b"user" && parameters.iter().any(|(known, _)| known == b"user") {
                return Err(StartupError::RepeatedUser);
            }
            parameters.push((name.to_vec(), value.to_vec()));
        }
        if !body.is_empty() {
            return Err(StartupError::Malformed("bytes follow its terminator"));
        }
        Ok(Self { major, minor, parameters })
    }

    /// Major protocol version: always 3.
    pub fn major(&self) -> u16 {
        self.major
    }

    /// Minor protocol version, as asked for; may be one that nobody knows.
    pub fn minor(&self) -> u16 {
        self.minor
    }

    /// The user asked for.
    pub fn user(&self) -> Option<&[u8]> {
        self.parameter(b"user")
    }

    /// The database asked for, if it was named.
    pub fn database(&self) -> Option<&[u8]> {
        self.parameter(b"database")
    }

    /// The `replication` parameter, whatever its value.
    pub fn replication(&self) -> Option<&[u8]> {
        self.parameter(b"replication")
    }

    /// The value of a parameter; of several, the last, as the server has it.
    pub fn parameter(&self, name: &[u8]) -> Option<&[u8]> {
        self.parameters.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_slice())
    }

    /// All parameters in the order in which they were sent.
    pub fn parameters(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.parameters.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
    }

    /// Names of all protocol options (`_pq_.`): none is supported, and NegotiateProtocolVersion lists them.
    pub fn unsupported_options(&self) -> Vec<&[u8]> {
        self.parameters().map(|(name, _)| name).filter(|name| name.starts_with(b"_pq_.")).collect()
    }
}

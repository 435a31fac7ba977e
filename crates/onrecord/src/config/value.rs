//! The values of the configuration file. Each is parsed once, into a type that cannot hold a wrong one,
//! and its error says what to write instead.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use model::{Durability, IdentityKind, IdentityName, NameError};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::problem::with_hint;

/// Bytes of a secret's file above which it is refused: a certificate bundle fits, a disk image does not.
const SECRET_BYTES_MAX: u64 = 4 << 20;

/// The log's origin, which is also its key's name: a schema-less URL such as `gateway.example.com/1`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Origin(String);

/// The name of a connection, which clients give as the database name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct ConnectionName(String);

/// Where a resource is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Address {
    /// A host name or IP address, and a port.
    Tcp {
        /// Without brackets, also for IPv6.
        host: String,
        /// Never 0.
        port: u16,
    },
    /// The directory of a unix socket, as libpq's `host` takes it.
    Unix(PathBuf),
}

/// Where a secret is kept: never in the configuration itself.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum SecretSource {
    /// `file:PATH`; one trailing newline is not part of the secret.
    File(PathBuf),
    /// `env:NAME`.
    Environment(String),
}

/// A secret that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file.
    #[error("cannot read {}: {source}", file.display())]
    File {
        /// Its path.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a secret's size.
    #[error("{} is larger than {SECRET_BYTES_MAX} bytes", file.display())]
    TooLarge {
        /// Its path.
        file: PathBuf,
    },
    /// The environment.
    #[error("the environment variable {name} is not set")]
    NotSet {
        /// The variable.
        name: String,
    },
    /// There is nothing in it.
    #[error("{secret} is empty")]
    Empty {
        /// Where.
        secret: String,
    },
}

/// A place on the web: `http://` or `https://`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct WebUrl(String);

/// The protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnectionKind {
    /// PostgreSQL.
    Postgres,
    /// SSH.
    Ssh,
}

impl ConnectionKind {
    /// Its name in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Ssh => "ssh",
        }
    }
}

/// Who may connect to the gateway without TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plaintext {
    /// Everybody.
    Always,
    /// Clients on this machine.
    #[default]
    Loopback,
    /// Nobody.
    Never,
}

/// Which outposts reach a resource: `NAME`, or `label:LABEL`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Via {
    /// The one with this name.
    Name(String),
    /// Each that has this label.
    Label(String),
}

/// How the gateway encrypts to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpstreamTls {
    /// Not at all.
    Disable,
    /// Encrypted; whose certificate it is, is not checked.
    Require,
    /// Encrypted, with a valid certificate for the host's name.
    VerifyFull,
}

impl Origin {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Origin {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fault = if text.is_empty() {
            Some("is empty")
        } else if text.len() > 255 {
            Some("is longer than 255 bytes")
        } else if text.contains("://") {
            Some("has a scheme")
        } else if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+') {
            Some("has a space, a control character or a +")
        } else {
            None
        };
        match fault {
            None => Ok(Self(text)),
            Some(fault) => Err(with_hint(
                format!("the name {text:?} {fault}"),
                "the log is signed under this name: write a name that is yours alone, such as \"gateway.example.com/1\"",
            )),
        }
    }
}

impl WebUrl {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for WebUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let odd = |c: char| c.is_whitespace() || c.is_control();
        if host.is_empty() || text.contains(odd) || host.contains('@') || text.len() > 2048 {
            // The text is not repeated: it may hold a password.
            return Err(with_hint("this is not a URL", "write \"https://host/path\", without a user or a password"));
        }
        Ok(Self(text))
    }
}

impl TryFrom<String> for Via {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (label, name) = match text.strip_prefix("label:") {
            Some(label) => (true, label),
            None => (false, text.as_str()),
        };
        if !gateway::is_outpost_name(name) {
            return Err(with_hint(
                format!("{text:?} names no outpost"),
                "write an outpost's name, such as \"site-a\", or \"label:eu\" for each outpost with that label",
            ));
        }
        Ok(if label { Self::Label(name.to_owned()) } else { Self::Name(name.to_owned()) })
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Label(label) => write!(f, "label:{label}"),
        }
    }
}

impl ConnectionName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ConnectionName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if (1..=63).contains(&text.len()) && text.chars().all(plain) {
            Ok(Self(text))
        } else {
            Err(with_hint(
                format!("{text:?} is not a connection's name"),
                "use 1 to 63 letters, digits, `_`, `.` or `-`: clients give it as their database name",
            ))
        }
    }
}

impl fmt::Display for ConnectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Address {
    /// Whether bytes to it stay on this machine.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => {
                host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
        }
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.starts_with('/') {
            return Ok(Self::Unix(PathBuf::from(text)));
        }
        let refused = |what: String| {
            with_hint(
                what,
                "write \"host:port\", such as \"db.internal:5432\" or \"[::1]:5432\", or the absolute directory of a unix socket",
            )
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(|| refused(format!("the address {text:?} has no port")))?;
        let port = match port.parse::<u16>() {
            Ok(port) if port > 0 => port,
            _ => return Err(refused(format!("{port:?} is not a port"))),
        };
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        let odd = |c: char| c.is_whitespace() || c.is_control() || "/@[]".contains(c);
        if host.is_empty() || host.contains(odd) || (bracketed.is_none() && host.contains(':')) {
            return Err(refused(format!("{host:?} is not a host")));
        }
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(directory) => write!(f, "{}", directory.display()),
        }
    }
}

impl SecretSource {
    /// Reads the secret.
    pub fn read(&self) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let mut secret = match self {
            Self::File(file) => read_file(file)?,
            Self::Environment(name) => match std::env::var_os(name) {
                Some(value) => Zeroizing::new(value.into_encoded_bytes()),
                None => return Err(SecretError::NotSet { name: name.clone() }),
            },
        };
        if secret.last() == Some(&b'\n') {
            secret.pop();
            if secret.last() == Some(&b'\r') {
                secret.pop();
            }
        }
        if secret.is_empty() {
            return Err(SecretError::Empty { secret: self.to_string() });
        }
        Ok(secret)
    }

    /// Who else than its owner may read the file, as permission bits; `None` when nobody may, or when it
    /// is not a file.
    pub fn loose_mode(&self) -> Option<u32> {
        use std::os::unix::fs::PermissionsExt;
        let Self::File(file) = self else { return None };
        let mode = std::fs::metadata(file).ok()?.permissions().mode() & 0o777;
        (mode & 0o077 != 0).then_some(mode)
    }

    pub(super) fn resolve(&mut self, base: &Path) {
        if let Self::File(file) = self {
            *file = base.join(&*file);
        }
    }
}

impl TryFrom<String> for SecretSource {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(PathBuf::from(path))),
            Some(("env", name)) if !name.is_empty() && !name.contains('=') => Ok(Self::Environment(name.to_owned())),
            // The text is not repeated: it may be the secret itself.
            _ => Err(with_hint(
                "a secret does not belong in this file",
                "put it in a file of mode 0600 and write \"file:/path/to/it\", or in the environment and write \"env:NAME\"",
            )),
        }
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "file:{}", file.display()),
            Self::Environment(name) => write!(f, "env:{name}"),
        }
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for UpstreamTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disable => "disable",
            Self::Require => "require",
            Self::VerifyFull => "verify-full",
        })
    }
}

/// Reads one of the record's own words for what an identity is.
pub(super) fn identity_kind<'de, D: Deserializer<'de>>(from: D) -> Result<IdentityKind, D::Error> {
    word(from, IdentityKind::parse, IdentityKind::ALL)
}

/// Reads one of the record's own words for a durability.
pub(super) fn durability<'de, D: Deserializer<'de>>(from: D) -> Result<Durability, D::Error> {
    word(from, Durability::parse, Durability::ALL)
}

fn word<'de, D: Deserializer<'de>, T: fmt::Display>(
    from: D,
    parse: impl Fn(&str) -> Option<T>,
    all: &[T],
) -> Result<T, D::Error> {
    let text = String::deserialize(from)?;
    parse(&text).ok_or_else(|| {
        let words: Vec<String> = all.iter().map(|word| format!("{:?}", word.to_string())).collect();
        let what = format!("{text:?} is not known here");
        serde::de::Error::custom(with_hint(what, format_args!("write {}", words.join(", "))))
    })
}

/// Reads a list of addresses to listen on.
pub(super) fn listeners<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<SocketAddr>, D::Error> {
    let address = |text: &String| {
        text.parse().map_err(|_| {
            let what = format!("{text:?} is not an IP address and a port");
            let hint = "write \"127.0.0.1:6432\", \"0.0.0.0:6432\" or \"[::]:6432\"";
            serde::de::Error::custom(with_hint(what, hint))
        })
    };
    Vec::<String>::deserialize(from)?.iter().map(address).collect()
}

/// Reads an identity's full name.
pub(super) fn identity_name<'de, D: Deserializer<'de>>(from: D) -> Result<Option<IdentityName>, D::Error> {
    name_of(&String::deserialize(from)?).map(Some)
}

/// Reads a list of identities' full names.
pub(super) fn identity_names<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IdentityName>, D::Error> {
    Vec::<String>::deserialize(from)?.iter().map(|name| name_of(name)).collect()
}

fn name_of<E: serde::de::Error>(text: &str) -> Result<IdentityName, E> {
    text.parse().map_err(|error: NameError| {
        let what = format!("{text:?} is not an identity: {error}");
        E::custom(with_hint(what, "write \"agent:NAME\", \"human:NAME\" or \"service:NAME\""))
    })
}

fn read_file(file: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    use std::io::Read;
    let failed = |source| SecretError::File { file: file.to_owned(), source };
    let mut secret = Zeroizing::new(Vec::new());
    let opened = std::fs::File::open(file).map_err(failed)?;
    let length = opened.take(SECRET_BYTES_MAX + 1).read_to_end(&mut secret).map_err(failed)?;
    if u64::try_from(length).is_ok_and(|length| length <= SECRET_BYTES_MAX) {
        Ok(secret)
    } else {
        Err(SecretError::TooLarge { file: file.to_owned() })
    }
}

//! Who sent a command, and how that is known.

use std::fmt;
use std::str::FromStr;

use crate::Digest;
use crate::closed::closed;

closed! {
    /// How something about a session is known.
    Known {
        /// The gateway checked a signature, a certificate or a proof of a secret.
        Verified = "verified",
        /// Someone said so; nobody checked.
        Claimed = "claimed",
        /// Nobody knows.
        NotEstablished = "not_established",
    }
}

closed! {
    /// What kind of principal an identity is.
    IdentityKind {
        /// A program that decides by itself.
        Agent = "agent",
        /// A person.
        Human = "human",
        /// A script or a program that does as told.
        Service = "service",
    }
}

closed! {
    /// How an identity was proven.
    ProofMethod {
        /// SCRAM-SHA-256 (RFC 7677).
        ScramSha256 = "scram-sha-256",
        /// SCRAM-SHA-256-PLUS: bound to the TLS channel.
        ScramSha256Plus = "scram-sha-256-plus",
        /// A JSON Web Token of a trusted issuer (RFC 7519).
        Jwt = "jwt",
        /// A short-lived token of this gateway, which was handed out for another proof.
        ConnectionToken = "connection-token",
        /// A client certificate (TLS).
        Certificate = "certificate",
        /// The signature of an SSH public key that is registered for the identity (RFC 4252, 7).
        PublicKey = "public-key",
        /// A short-lived certificate of this gateway for an SSH key, which was handed out for another proof.
        SshCertificate = "ssh-certificate",
    }
}

closed! {
    /// Whether the proof is bound to the channel it came over.
    ChannelBinding {
        /// Bound: it cannot have been relayed.
        Bound = "bound",
        /// Not bound.
        None = "none",
    }
}

/// The name of an identity: `agent:NAME`, `human:NAME` or `service:NAME`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdentityName {
    kind: IdentityKind,
    text: String,
}

/// Text that is no identity name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name lacks `agent:`, `human:` or `service:`.
    #[error("an identity name starts with agent:, human: or service:")]
    Kind,
    /// The part after the colon has a wrong length or a wrong character.
    #[error("after the kind, an identity name has 1 to 128 characters of A-Z a-z 0-9 . _ @ - + /")]
    Name,
}

impl IdentityName {
    /// The name of this kind.
    ///
    /// # Errors
    /// The name has a wrong length or a character that is not allowed.
    pub fn new(kind: IdentityKind, name: &str) -> Result<Self, NameError> {
        if is_name(name.as_bytes()) { Ok(Self { kind, text: format!("{kind}:{name}") }) } else { Err(NameError::Name) }
    }

    /// Whether these bytes are a whole name.
    #[inline(always)]
    pub(crate) fn is_one(text: &[u8]) -> bool {
        let name = IdentityKind::ALL.iter().find_map(|kind| text.strip_prefix(kind.as_str().as_bytes()));
        name.and_then(|rest| rest.strip_prefix(b":")).is_some_and(is_name)
    }

    /// Agent, human or service.
    #[must_use]
    pub fn kind(&self) -> IdentityKind {
        self.kind
    }

    /// The part after the colon: the user name that a client gives.
    #[must_use]
    pub fn name(&self) -> &str {
        self.text.split_once(':').map_or("", |(_, name)| name)
    }

    /// The whole name, kind included.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

#[inline(always)]
fn is_name(name: &[u8]) -> bool {
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'@' | b'-' | b'+' | b'/');
    (1..=128).contains(&name.len()) && name.iter().all(allowed)
}

impl FromStr for IdentityName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (kind, name) = text.split_once(':').ok_or(NameError::Kind)?;
        Self::new(IdentityKind::parse(kind).ok_or(NameError::Kind)?, name)
    }
}

impl fmt::Display for IdentityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for IdentityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityName({})", self.text)
    }
}

/// The proof of an identity: what was checked, never the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// How the identity was proven.
    pub method: ProofMethod,
    /// Whether the proof is bound to the channel.
    pub channel: ChannelBinding,
    /// Which credential of the identity was used; it names the credential and reveals nothing of it.
    pub credential: String,
    /// What was checked, where a credential of someone else's making was.
    pub evidence: Option<Evidence>,
}

/// What was checked of a credential that the gateway did not make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// A token of an issuer.
    Token(Box<TokenEvidence>),
    /// A client certificate.
    Certificate(Box<CertificateEvidence>),
}

/// What a token said and how it was checked. The token itself is never kept: who has it can show that it is this one.
/// Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenEvidence {
    /// Who issued it (`iss`).
    pub issuer: String,
    /// About whom (`sub`).
    pub subject: String,
    /// For whom (`aud`).
    pub audience: Vec<String>,
    /// To which client it was issued (`azp`, else `client_id`).
    pub client: Option<String>,
    /// Its own id (`jti`).
    pub jti: Option<String>,
    /// When it was issued (`iat`).
    pub issued: Option<u64>,
    /// From when it holds (`nbf`).
    pub not_before: Option<u64>,
    /// Until when it holds (`exp`).
    pub expires: u64,
    /// When its subject signed in (`auth_time`).
    pub auth_time: Option<u64>,
    /// How strongly (`acr`).
    pub acr: Option<String>,
    /// By which means (`amr`).
    pub amr: Vec<String>,
    /// Who acts, by the chain of RFC 8693, outermost first (`act.sub`).
    pub actors: Vec<String>,
    /// The key that it is bound to (`cnf`): a thumbprint.
    pub confirmation: Option<String>,
    /// Which key of the issuer signed it, by the issuer's name for it.
    pub kid: Option<String>,
    /// By which algorithm.
    pub algorithm: String,
    /// The thumbprint of that key (RFC 7638).
    pub key: Digest,
    /// SHA-256 of the document that the key was in.
    pub keys: Digest,
    /// When that was fetched.
    pub keys_fetched: u64,
    /// SHA-256 of the token.
    pub token: Digest,
    /// The rule that gave the identity, as `ISSUER/RULE`.
    pub rule: String,
    /// SHA-256 of the rules in force.
    pub rules: Digest,
    /// Claims that the configuration asks to be kept, with their values.
    pub claims: Vec<(String, String)>,
    /// When it was checked.
    pub verified: u64,
}

/// What a client certificate said. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateEvidence {
    /// Its subject (RFC 4514).
    pub subject: String,
    /// Its alternative names, as `uri:`, `dns:` or `email:` and the name.
    pub names: Vec<String>,
    /// Who issued it.
    pub issuer: String,
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// From when it holds.
    pub not_before: u64,
    /// Until when.
    pub not_after: u64,
    /// SHA-256 of it.
    pub sha256: Digest,
    /// The rule that gave the identity, as `ISSUER/RULE`.
    pub rule: String,
    /// SHA-256 of the rules in force.
    pub rules: Digest,
}

/// For whom an identity acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnBehalfOf {
    /// The one it acts for.
    pub name: IdentityName,
    /// How that is known.
    pub known: Known,
}

/// An identity as a session has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub name: IdentityName,
    /// How the name is known.
    pub known: Known,
    /// What proved it.
    pub proof: Proof,
    /// For whom it acts, if that was said.
    pub on_behalf_of: Option<OnBehalfOf>,
    /// The groups that it is in.
    pub groups: Vec<String>,
    /// Which run of it this is, if that was said.
    pub run: Option<Run>,
}

/// Which run of a program: a job of a pipeline, a pod, a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// How that is known.
    pub known: Known,
}

/// Something a client said about itself and nobody checked, such as `application_name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What is claimed.
    pub name: Label,
    /// The claimed value.
    pub value: Label,
}

/// The longest text a [`Label`] keeps as it is, in bytes.
pub const LABEL_BYTES_MAX: usize = 256;

/// A short name that came from outside: kept as text when it is UTF-8 of at most [`LABEL_BYTES_MAX`] bytes, else by
/// digest and length. It is never cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Label {
    /// The text itself.
    Text(String),
    /// Too long, or not UTF-8.
    Digest {
        /// SHA-256 of the bytes.
        sha256: Digest,
        /// How many there were.
        bytes: u64,
    },
}

impl Label {
    /// The label of these bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) if text.len() <= LABEL_BYTES_MAX => Self::Text(text.to_owned()),
            _ => {
                use sha2::Digest as _;
                Self::Digest {
                    sha256: Digest(sha2::Sha256::digest(bytes).into()),
                    bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
                }
            }
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.pad(text),
            Self::Digest { sha256, bytes } => write!(f, "({bytes} bytes, sha256 {})", sha256.hex()),
        }
    }
}

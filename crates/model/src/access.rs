//! Entries about who may do what, and by which way: configuration, issuers, tokens, lock-outs, outposts.

use crate::closed::closed;
use crate::custody::Actor;
use crate::{CommandId, Digest, Identity, IdentityName, SessionId};

closed! {
    /// What became of an offered configuration.
    ConfigurationResult {
        /// It is in force.
        Accepted = "accepted",
        /// It is not, and what was in force before still is.
        Refused = "refused",
    }
}

closed! {
    /// Why the configuration was read again.
    ConfigurationCause {
        /// A signal asked for it (SIGHUP).
        Signal = "signal",
        /// The file changed.
        FileChanged = "file_changed",
    }
}

/// A running gateway was offered another configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// What became of it.
    pub result: ConfigurationResult,
    /// Why it was read.
    pub cause: ConfigurationCause,
    /// SHA-256 of what is in force from here on.
    pub configuration: Digest,
    /// SHA-256 of what was refused, if it could be read at all.
    pub refused: Option<Digest>,
    /// Why it was refused.
    pub reason: Option<String>,
    /// How many live sessions ended because they are not permitted any more.
    pub sessions_ended: u64,
}

/// A key by which an issuer signs, at its first use: with it a token that somebody still has can be checked again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerKey {
    /// The issuer (`iss`).
    pub issuer: String,
    /// The issuer's name for the key.
    pub kid: Option<String>,
    /// The key's thumbprint (RFC 7638).
    pub thumbprint: Digest,
    /// The public key, as a JWK (RFC 7517).
    pub jwk: String,
}

closed! {
    /// What became of a connection token, or of an SSH certificate.
    TokenAction {
        /// It was handed out.
        Issued = "issued",
        /// It was taken back before its time.
        Revoked = "revoked",
    }
}

/// A connection token, or a certificate for SSH: short-lived, for one identity and what it opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What became of it.
    pub action: TokenAction,
    /// Its id, which reveals nothing of its secret; of a certificate, its serial number.
    pub id: String,
    /// Whom it proves, and what proved that one when it was handed out.
    pub identity: Identity,
    /// What it opens.
    pub opens: Opens,
    /// Until when it holds, microseconds since 1970.
    pub expires_us: i64,
    /// The address that it was handed out to; none when it was taken back.
    pub client: Option<String>,
}

/// What a token opens, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opens {
    /// This connection, for whoever has it.
    Connection(String),
    /// These connections, for whoever has the private half of a key.
    Ssh {
        /// Their names.
        connections: Vec<String>,
        /// The key's fingerprint, as OpenSSH writes it.
        key: String,
    },
}

closed! {
    /// What became of an identity.
    RevocationAction {
        /// It is locked out.
        Revoked = "revoked",
        /// It is let in again.
        Restored = "restored",
    }
}

/// An identity was locked out or let in again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// What became of it.
    pub action: RevocationAction,
    /// Which one.
    pub identity: IdentityName,
    /// How many live sessions end.
    pub sessions: u64,
    /// How many of its connection tokens no longer hold.
    pub tokens: u64,
    /// Why.
    pub reason: String,
    /// Who did it.
    pub by: Actor,
}

closed! {
    /// What somebody did who looked after a live session.
    OversightAction {
        /// Its commands, or what a program wrote, were looked at while it went on.
        Watched = "watched",
        /// It was ended.
        Killed = "killed",
    }
}

/// Somebody watched a live session, or ended it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oversight {
    /// What they did.
    pub action: OversightAction,
    /// With which session.
    pub session: SessionId,
    /// Whose terminal, or output, was watched; none if it was the session's commands.
    pub command: Option<CommandId>,
    /// Why it was ended.
    pub reason: Option<String>,
    /// Who did it.
    pub by: Actor,
}

/// One credential is in use from several addresses, or in several runs, at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Whose it is.
    pub identity: IdentityName,
    /// Which credential.
    pub credential: String,
    /// The addresses it is in use from, at most [`PLACES_MAX`].
    pub sources: Vec<String>,
    /// The runs it is in use by, at most [`PLACES_MAX`].
    pub runs: Vec<String>,
    /// How many sessions it has.
    pub sessions: u64,
}

/// Addresses and runs that an entry of a shared credential lists, each.
pub const PLACES_MAX: usize = 16;

closed! {
    /// What became of an outpost.
    OutpostAction {
        /// A join token for it was handed out.
        Invited = "invited",
        /// It joined, and got its first certificate.
        Enrolled = "enrolled",
        /// It got another certificate.
        Renewed = "renewed",
        /// A link of it came up.
        Connected = "connected",
        /// A link of it went down.
        Lost = "lost",
        /// A link of it was replaced by a newer one.
        Superseded = "superseded",
        /// It was locked out.
        Revoked = "revoked",
        /// Someone was not let in as it.
        Refused = "refused",
        /// The gateway's authority for outposts got another key.
        AuthorityRotated = "authority_rotated",
    }
}

/// An outpost came, went, or was turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outpost {
    /// What became of it.
    pub action: OutpostAction,
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// The address that it came from.
    pub address: Option<String>,
    /// The serial number of its certificate, hexadecimal.
    pub serial: Option<String>,
    /// Why, or what was wrong.
    pub reason: Option<String>,
    /// Who did it, where a person did.
    pub by: Option<Actor>,
}

/// The outpost that carries a session's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

closed! {
    /// How safe the way from the gateway to the server is.
    UpstreamSecurity {
        /// The bytes stay on the gateway's machine.
        Local = "local",
        /// Encrypted, and the server's certificate was checked.
        Verified = "verified",
        /// Encrypted, and whoever answered was talked to.
        Encrypted = "encrypted",
        /// Open to everyone on the way.
        Plaintext = "plaintext",
    }
}

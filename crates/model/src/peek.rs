//! The few things that recovery and search need of every entry, read without decoding it.

use crate::{CommandId, Kind, SessionId};

/// What the first bytes of an entry say. It trusts the fixed order of keys and checks nothing else: use it only on
/// bytes whose checksum was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peek {
    /// The kind.
    pub kind: Kind,
    /// The command of an intent, an outcome or an approval.
    pub command: Option<CommandId>,
    /// The session and the number in it, if the entry belongs to one.
    pub place: Option<(SessionId, u32)>,
}

impl Peek {
    /// Reads the first bytes of an entry.
    #[must_use]
    pub fn new(leaf: &[u8]) -> Option<Self> {
        let rest = leaf.strip_prefix(b"{\"v\":1,\"k\":\"")?;
        let (kind, rest) = until(rest, b'"')?;
        let kind = Kind::parse(std::str::from_utf8(kind).ok()?)?;
        let (command, rest) = match kind {
            Kind::Intent => id(rest, b",\"id\":\"")?,
            Kind::Outcome => id(rest, b",\"of\":\"")?,
            Kind::Approval => {
                let (command, _) = id(rest, b",\"of\":\"")?;
                return Some(Self { kind, command, place: None });
            }
            Kind::SessionOpen | Kind::SessionClose => (None, rest),
            Kind::Genesis
            | Kind::Start
            | Kind::Stop
            | Kind::Recovery
            | Kind::Heartbeat
            | Kind::Refused
            | Kind::Cancel
            | Kind::Erase
            | Kind::Hold
            | Kind::Witnesses
            | Kind::Export
            | Kind::Configuration
            | Kind::IssuerKey
            | Kind::Token
            | Kind::Revocation
            | Kind::Shared
            | Kind::Outpost
            | Kind::Passkey
            | Kind::BreakGlass
            | Kind::Oversight => {
                return Some(Self { kind, command: None, place: None });
            }
        };
        let (session, rest) = until(rest.strip_prefix(b",\"s\":\"")?, b'"')?;
        let (number, _) = until(rest.strip_prefix(b",\"n\":")?, b',')?;
        let number = std::str::from_utf8(number).ok()?.parse().ok()?;
        Some(Self { kind, command, place: Some((SessionId::from_text(session)?, number)) })
    }
}

fn id<'a>(rest: &'a [u8], key: &[u8]) -> Option<(Option<CommandId>, &'a [u8])> {
    let (id, rest) = until(rest.strip_prefix(key)?, b'"')?;
    Some((Some(std::str::from_utf8(id).ok()?.parse().ok()?), rest))
}

fn until(bytes: &[u8], end: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().take(96).position(|&b| b == end)?;
    Some((bytes.get(..at)?, bytes.get(at + 1..)?))
}

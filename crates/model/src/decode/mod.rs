//! Bytes to entry, strictly: only what [`Entry::encode`] would write is accepted.
//!
//! There is one encoding, so reading is one pass over it: each key must stand exactly where `encode` puts it, and each
//! value must be written exactly as `encode` writes it. What is wrong is worked out only when something is.

mod command;
mod custody;

use std::borrow::Cow;

use serde_json::Value;

use crate::access::*;
use crate::approval::*;
use crate::break_glass::*;
use crate::command::*;
use crate::cursor::{Bad, Cursor, Read};
use crate::custody::*;
use crate::entry::*;
use crate::passkey::*;
use crate::{
    AbsentReason, BlobField, CertificateEvidence, ChannelBinding, Claim, Evidence, Field, Identity, Known, OnBehalfOf,
    Proof, ProofMethod, Run, SealedField, Time, TokenEvidence,
};

/// Bytes that are no entry of this version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than an entry can be.
    #[error("an entry has at most {LEAF_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// Not a JSON object.
    #[error("an entry is one JSON object, and this is none")]
    NotJson,
    /// Written by a later version.
    #[error("this entry has version {0}; this program reads version 1: use a newer one")]
    Version(u64),
    /// A kind that does not exist in this version.
    #[error("version 1 has no entry of kind {0:?}")]
    Kind(String),
    /// A key is missing or its value has a wrong form.
    #[error("{kind}: {key} is missing or malformed")]
    Malformed {
        /// The kind of the entry.
        kind: &'static str,
        /// The key.
        key: &'static str,
    },
    /// It says the same as an entry, in other bytes.
    #[error("these are not the bytes in which the entry would have been recorded")]
    NotCanonical,
}

impl Entry {
    /// Reads an entry from exactly its bytes.
    ///
    /// # Errors
    /// The bytes are not what [`Entry::encode`] writes for any entry of this version.
    pub fn decode(leaf: &[u8]) -> Result<Self, DecodeError> {
        if leaf.len() > LEAF_BYTES_MAX {
            return Err(DecodeError::TooLong(leaf.len()));
        }
        let Some((kind, rest)) = begins(leaf) else {
            return Err(begins_wrongly(leaf));
        };
        let mut cursor = Cursor::new(rest);
        let read = cursor.entry(kind).and_then(|entry| cursor.end().map(|()| entry));
        read.map_err(|bad| match bad {
            _ if serde_json::from_slice::<Value>(leaf).is_err() => DecodeError::NotJson,
            Bad::Form => DecodeError::NotCanonical,
            Bad::Value => DecodeError::Malformed { kind: kind.as_str(), key: cursor.key() },
        })
    }
}

/// The kind, and what follows it.
pub(crate) fn begins(leaf: &[u8]) -> Option<(Kind, &[u8])> {
    let rest = leaf.strip_prefix(b"{\"v\":1,\"k\":\"")?;
    let (kind, rest) = rest.split_at_checked(rest.iter().take(32).position(|&b| b == b'"')?)?;
    Some((Kind::parse_bytes(kind)?, rest.get(1..)?))
}

/// Why the beginning is not that of an entry.
fn begins_wrongly(leaf: &[u8]) -> DecodeError {
    let Ok(Value::Object(map)) = serde_json::from_slice(leaf) else {
        return DecodeError::NotJson;
    };
    match map.get("v").and_then(Value::as_u64) {
        Some(1) => {}
        Some(version) => return DecodeError::Version(version),
        None => return DecodeError::NotCanonical,
    }
    let kind = map.get("k").and_then(Value::as_str).unwrap_or_default();
    match Kind::parse(kind) {
        Some(_) => DecodeError::NotCanonical,
        None => DecodeError::Kind(kind.chars().take(64).collect()),
    }
}

impl Cursor<'_> {
    fn entry(&mut self, kind: Kind) -> Read<Entry> {
        let (time, body) = match kind {
            Kind::Genesis => (self.time()?, Body::Genesis(self.genesis()?)),
            Kind::Start => (self.time()?, Body::Start(self.start()?)),
            Kind::Stop => (self.time()?, Body::Stop(self.stop()?)),
            Kind::Recovery => (self.time()?, Body::Recovery(self.recovery()?)),
            Kind::Heartbeat => (self.time()?, Body::Heartbeat(self.heartbeat()?)),
            Kind::SessionOpen => self.session_open()?,
            Kind::SessionClose => self.session_close()?,
            Kind::Intent => self.intent()?,
            Kind::Outcome => self.outcome()?,
            Kind::Refused => (self.time()?, Body::Refused(self.refused()?)),
            Kind::Cancel => (self.time()?, Body::Cancel(self.cancel()?)),
            Kind::Erase => (self.time()?, Body::Erase(self.erase()?)),
            Kind::Hold => (self.time()?, Body::Hold(self.hold()?)),
            Kind::Witnesses => (self.time()?, Body::Witnesses(self.witnesses()?)),
            Kind::Export => (self.time()?, Body::Export(self.export()?)),
            Kind::Configuration => (self.time()?, Body::Configuration(self.configuration()?)),
            Kind::IssuerKey => (self.time()?, Body::IssuerKey(self.issuer_key()?)),
            Kind::Token => (self.time()?, Body::Token(self.token()?)),
            Kind::Revocation => (self.time()?, Body::Revocation(self.revocation()?)),
            Kind::Shared => (self.time()?, Body::Shared(self.shared()?)),
            Kind::Outpost => (self.time()?, Body::Outpost(self.outpost()?)),
            Kind::Approval => self.approval()?,
            Kind::Passkey => (self.time()?, Body::Passkey(self.passkey()?)),
            Kind::BreakGlass => self.break_glass()?,
            Kind::Oversight => (self.time()?, Body::Oversight(self.oversight()?)),
        };
        Ok(Entry { time, body })
    }

    fn genesis(&mut self) -> Read<Genesis> {
        Ok(Genesis {
            origin: self.string("origin")?,
            vkey: self.string("vkey")?,
            program: self.string("program")?,
            previous: self.optional("previous", |c| c.object(Self::previous))?,
        })
    }

    fn previous(&mut self) -> Read<PreviousLog> {
        Ok(PreviousLog {
            origin: self.string("origin")?,
            vkey: self.string("vkey")?,
            size: self.number("size")?,
            root: self.digest("root")?,
            witnessed: self.optional("witnessed", Self::decimal)?,
            reason: self.word("reason", EpochReason::parse_bytes)?,
        })
    }

    fn start(&mut self) -> Read<Start> {
        Ok(Start {
            boot_id: self.string("boot_id")?,
            program: self.string("program")?,
            configuration: self.digest_or_null("configuration")?,
            clock: self.word("clock", ClockState::parse_bytes)?,
        })
    }

    fn stop(&mut self) -> Read<Stop> {
        Ok(Stop {
            reason: self.word("reason", StopReason::parse_bytes)?,
            next: self.optional("next", |c| c.text().map(Cow::into_owned))?,
        })
    }

    fn recovery(&mut self) -> Read<Recovery> {
        Ok(Recovery {
            entries: self.number("entries")?,
            loss: self.word("loss", Loss::parse_bytes)?,
            torn_bytes: self.number("torn_bytes")?,
            commands_unknown: self.number("commands_unknown")?,
            sessions_lost: self.number("sessions_lost")?,
        })
    }

    fn heartbeat(&mut self) -> Read<Heartbeat> {
        Ok(Heartbeat {
            clock: self.word("clock", ClockState::parse_bytes)?,
            sessions: self.number("sessions")?,
            commands: self.number("commands")?,
            refused: self.number("refused")?,
            bytes_up: self.number("bytes_up")?,
            bytes_down: self.number("bytes_down")?,
        })
    }

    fn session_open(&mut self) -> Read<(Time, Body)> {
        let (link, time) = (self.link()?, self.time()?);
        let identity = self.at("identity", |c| c.object(Self::identity))?;
        let body = SessionOpen {
            link,
            identity,
            connection: self.string("connection")?,
            database: self.optional("database", Self::label_value)?,
            upstream_user: self.string("upstream_user")?,
            protocol: self.string("protocol")?,
            client: self.string("client")?,
            tls: self.at("tls", |c| c.or_null(|c| c.text().map(Cow::into_owned)))?,
            claims: self.at("claims", |c| {
                c.array(|c| {
                    c.exactly(b"[")?;
                    let name = c.label_value()?;
                    c.exactly(b",")?;
                    let value = c.label_value()?;
                    c.exactly(b"]")?;
                    Ok(Claim { name, value })
                })
            })?,
            durability: self.word("durability", Durability::parse_bytes)?,
            key_slot: self.number("key_slot")?,
            key_commitment: self.digest("key_commitment")?,
            upstream: self.optional("upstream", |c| c.word_value(UpstreamSecurity::parse_bytes))?,
            outpost: self
                .optional("outpost", |c| c.object(|c| Ok(Carried { id: c.string("id")?, name: c.string("name")? })))?,
        };
        Ok((time, Body::SessionOpen(body)))
    }

    fn session_close(&mut self) -> Read<(Time, Body)> {
        let (link, time) = (self.link()?, self.time()?);
        let body = SessionClose {
            link,
            reason: self.word("reason", SessionEnd::parse_bytes)?,
            intents: self.small("intents")?,
            outcomes: self.small("outcomes")?,
            bytes_up: self.number("bytes_up")?,
            bytes_down: self.number("bytes_down")?,
            root: self.optional("root", Self::base64_digest)?,
        };
        Ok((time, Body::SessionClose(body)))
    }

    fn refused(&mut self) -> Read<Refused> {
        Ok(Refused {
            reason: self.word("reason", RefusedReason::parse_bytes)?,
            source: self.string("source")?,
            count: self.number("count")?,
            first_us: self.wall("first")?,
            user: self.optional("user", Self::label_value)?,
            connection: self.optional("connection", Self::label_value)?,
        })
    }

    fn cancel(&mut self) -> Read<Cancel> {
        Ok(Cancel {
            session: self.at("session", |c| c.or_null(Self::session_value))?,
            source: self.string("source")?,
            result: self.word("result", CancelResult::parse_bytes)?,
            count: self.number("count")?,
        })
    }

    fn identity(&mut self) -> Read<Identity> {
        Ok(Identity {
            name: self.name("name")?,
            known: self.word("known", Known::parse_bytes)?,
            proof: self.at("proof", |c| c.object(Self::proof))?,
            on_behalf_of: self.on_behalf_of()?,
            groups: self.strings_unless_empty("groups")?,
            run: self.optional("run", |c| {
                c.object(|c| Ok(Run { id: c.string("id")?, known: c.word("known", Known::parse_bytes)? }))
            })?,
        })
    }

    fn proof(&mut self) -> Read<Proof> {
        Ok(Proof {
            method: self.word("method", ProofMethod::parse_bytes)?,
            channel: self.word("channel", ChannelBinding::parse_bytes)?,
            credential: self.string("credential")?,
            evidence: match self.optional("token", |c| c.object(Self::token_evidence))? {
                Some(token) => Some(Evidence::Token(Box::new(token))),
                None => self
                    .optional("certificate", |c| c.object(Self::certificate_evidence))?
                    .map(|certificate| Evidence::Certificate(Box::new(certificate))),
            },
        })
    }

    fn token_evidence(&mut self) -> Read<TokenEvidence> {
        Ok(TokenEvidence {
            issuer: self.string("iss")?,
            subject: self.string("sub")?,
            audience: self.strings("aud")?,
            client: self.optional_string("client")?,
            jti: self.optional_string("jti")?,
            issued: self.optional("iat", Self::decimal)?,
            not_before: self.optional("nbf", Self::decimal)?,
            expires: self.number("exp")?,
            auth_time: self.optional("auth_time", Self::decimal)?,
            acr: self.optional_string("acr")?,
            amr: self.strings_unless_empty("amr")?,
            actors: self.strings_unless_empty("act")?,
            confirmation: self.optional_string("cnf")?,
            kid: self.optional_string("kid")?,
            algorithm: self.string("alg")?,
            key: self.digest("key")?,
            keys: self.digest("keys")?,
            keys_fetched: self.number("keys_fetched")?,
            token: self.digest("sha256")?,
            rule: self.string("rule")?,
            rules: self.digest("rules")?,
            claims: self.unless_empty("claims", |c| {
                c.exactly(b"[")?;
                let name = c.text()?.into_owned();
                c.exactly(b",")?;
                let value = c.text()?.into_owned();
                c.exactly(b"]")?;
                Ok((name, value))
            })?,
            verified: self.number("verified")?,
        })
    }

    fn certificate_evidence(&mut self) -> Read<CertificateEvidence> {
        Ok(CertificateEvidence {
            subject: self.string("subject")?,
            names: self.strings_unless_empty("names")?,
            issuer: self.string("issuer")?,
            serial: self.string("serial")?,
            not_before: self.number("not_before")?,
            not_after: self.number("not_after")?,
            sha256: self.digest("sha256")?,
            rule: self.string("rule")?,
            rules: self.digest("rules")?,
        })
    }

    fn configuration(&mut self) -> Read<Configuration> {
        Ok(Configuration {
            result: self.word("result", ConfigurationResult::parse_bytes)?,
            cause: self.word("cause", ConfigurationCause::parse_bytes)?,
            configuration: self.digest("configuration")?,
            refused: self.optional("refused", Self::base64_digest)?,
            reason: self.optional_string("reason")?,
            sessions_ended: self.number("sessions_ended")?,
        })
    }

    fn issuer_key(&mut self) -> Read<IssuerKey> {
        Ok(IssuerKey {
            issuer: self.string("iss")?,
            kid: self.optional_string("kid")?,
            thumbprint: self.digest("thumbprint")?,
            jwk: self.string("jwk")?,
        })
    }

    fn token(&mut self) -> Read<Token> {
        Ok(Token {
            action: self.word("action", TokenAction::parse_bytes)?,
            id: self.string("id")?,
            identity: self.at("identity", |c| c.object(Self::identity))?,
            opens: match self.optional_string("connection")? {
                Some(connection) => Opens::Connection(connection),
                None => Opens::Ssh { connections: self.strings("connections")?, key: self.string("key")? },
            },
            expires_us: self.wall("expires")?,
            client: self.optional_string("client")?,
        })
    }

    fn revocation(&mut self) -> Read<Revocation> {
        Ok(Revocation {
            action: self.word("action", RevocationAction::parse_bytes)?,
            identity: self.name("identity")?,
            sessions: self.number("sessions")?,
            tokens: self.number("tokens")?,
            reason: self.string("reason")?,
            by: self.actor()?,
        })
    }

    fn oversight(&mut self) -> Read<Oversight> {
        Ok(Oversight {
            action: self.word("action", OversightAction::parse_bytes)?,
            session: self.at("session", Self::session_value)?,
            command: self.optional("command", Self::command_value)?,
            reason: self.optional_string("reason")?,
            by: self.actor()?,
        })
    }

    fn shared(&mut self) -> Read<Shared> {
        Ok(Shared {
            identity: self.name("identity")?,
            credential: self.string("credential")?,
            sources: self.strings("sources")?,
            runs: self.strings_unless_empty("runs")?,
            sessions: self.number("sessions")?,
        })
    }

    fn outpost(&mut self) -> Read<Outpost> {
        Ok(Outpost {
            action: self.word("action", OutpostAction::parse_bytes)?,
            id: self.string("id")?,
            name: self.string("name")?,
            labels: self.strings_unless_empty("labels")?,
            address: self.optional_string("address")?,
            serial: self.optional_string("serial")?,
            reason: self.optional_string("reason")?,
            by: self.optional("by", |c| c.object(Self::actor_value))?,
        })
    }

    fn approval(&mut self) -> Read<(Time, Body)> {
        let (of, time) = (self.command("of")?, self.time()?);
        let step = match self.word("step", ApprovalWord::parse_bytes)? {
            ApprovalWord::Requested => ApprovalStep::Requested(Box::new(ApprovalRequest {
                intent: self.digest("intent")?,
                connection: self.string("connection")?,
                database: self.optional("database", Self::label_value)?,
                role: self.string("role")?,
                policy: self.digest("policy")?,
                quorum: self.number("quorum")?,
                signed: self.truth("signed")?,
                expires_us: self.wall("expires")?,
                nonce: self.digest("nonce")?,
            })),
            ApprovalWord::Seen => {
                ApprovalStep::Seen { by: Box::new(self.at("identity", |c| c.object(Self::identity))?) }
            }
            ApprovalWord::Decided => ApprovalStep::Decided(Box::new(ApprovalVote {
                decision: self.word("decision", ApprovalDecision::parse_bytes)?,
                request: self.digest("request")?,
                by: self.at("identity", |c| c.object(Self::identity))?,
                comment: self.optional_string("comment")?,
                signature: self.optional("signature", |c| c.object(Self::assertion))?.map(Box::new),
            })),
            ApprovalWord::Used => ApprovalStep::Used { command: self.at("command", Self::command_value)? },
            ApprovalWord::Ended => ApprovalStep::Ended { how: self.word("how", ApprovalEnd::parse_bytes)? },
        };
        Ok((time, Body::Approval(Approval { of, step })))
    }

    fn assertion(&mut self) -> Read<Assertion> {
        Ok(Assertion {
            credential: self.string("credential")?,
            authenticator_data: self.at("authenticator_data", Self::base64_bytes)?,
            client_data: self.at("client_data", Self::base64_bytes)?,
            signature: self.at("signature", Self::base64_bytes)?,
        })
    }

    fn passkey(&mut self) -> Read<Passkey> {
        Ok(Passkey {
            action: self.word("action", PasskeyAction::parse_bytes)?,
            identity: self.at("identity", |c| c.object(Self::identity))?,
            credential: self.string("credential")?,
            algorithm: self.word("algorithm", PasskeyAlgorithm::parse_bytes)?,
            public_key: self.at("public_key", Self::base64_bytes)?,
            rp_id: self.string("rp_id")?,
            origin: self.string("origin")?,
            aaguid: self.string("aaguid")?,
        })
    }

    fn break_glass(&mut self) -> Read<(Time, Body)> {
        let (id, time) = (self.at("id", Self::break_glass_value)?, self.time()?);
        let step = match self.word("step", BreakGlassWord::parse_bytes)? {
            BreakGlassWord::Opened => BreakGlassStep::Opened(Box::new(BreakGlassOpening {
                connection: self.string("connection")?,
                by: self.at("identity", |c| c.object(Self::identity))?,
                reason: self.string("reason")?,
                until_us: self.wall("until")?,
            })),
            BreakGlassWord::Closed => BreakGlassStep::Closed {
                how: self.word("how", BreakGlassEnd::parse_bytes)?,
                by: self.optional("identity", |c| c.object(Self::identity))?.map(Box::new),
            },
            BreakGlassWord::Reviewed => BreakGlassStep::Reviewed(Box::new(BreakGlassReview {
                by: self.at("identity", |c| c.object(Self::identity))?,
                finding: self.word("finding", BreakGlassFinding::parse_bytes)?,
                comment: self.string("comment")?,
            })),
        };
        Ok((time, Body::BreakGlass(BreakGlass { id, step })))
    }

    fn optional_string(&mut self, key: &'static str) -> Read<Option<String>> {
        self.optional(key, |c| c.text().map(Cow::into_owned))
    }

    fn strings(&mut self, key: &'static str) -> Read<Vec<String>> {
        self.at(key, |c| c.array(|c| c.text().map(Cow::into_owned)))
    }

    fn strings_unless_empty(&mut self, key: &'static str) -> Read<Vec<String>> {
        self.unless_empty(key, |c| c.text().map(Cow::into_owned))
    }

    /// A list that is not written where it is empty.
    fn unless_empty<T>(&mut self, key: &'static str, item: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        match self.optional(key, |c| c.array(item))? {
            Some(items) if items.is_empty() => Err(Bad::Form),
            items => Ok(items.unwrap_or_default()),
        }
    }

    fn actor(&mut self) -> Read<Actor> {
        self.at("by", |c| c.object(Self::actor_value))
    }

    fn actor_value(&mut self) -> Read<Actor> {
        Ok(Actor { name: self.string("name")?, known: self.word("known", Known::parse_bytes)? })
    }

    #[inline(always)]
    pub(crate) fn link(&mut self) -> Read<Link> {
        Ok(Link {
            session: self.at("s", Self::session_value)?,
            number: self.small("n")?,
            previous: self.digest_or_null("prev")?,
        })
    }

    #[inline(always)]
    pub(crate) fn time(&mut self) -> Read<Time> {
        Ok(Time { wall_us: self.wall("t")?, boot_us: self.number("b")? })
    }

    pub(crate) fn on_behalf_of(&mut self) -> Read<Option<OnBehalfOf>> {
        self.at("on_behalf_of", |c| {
            c.or_null(|c| {
                c.object(|c| Ok(OnBehalfOf { name: c.name("name")?, known: c.word("known", Known::parse_bytes)? }))
            })
        })
    }

    fn field(&mut self, key: &'static str) -> Read<Field> {
        self.at(key, |c| {
            c.object(|c| {
                if let Some(reason) = c.optional("absent", |c| c.word_value(AbsentReason::parse_bytes))? {
                    return Ok(Field::Absent(reason));
                }
                if let Some(sealed) = c.optional("sealed", |c| c.object(Self::sealed))? {
                    return Ok(Field::Sealed(sealed));
                }
                c.at("blob", |c| c.object(Self::blob)).map(Field::Blob)
            })
        })
    }

    fn sealed(&mut self) -> Read<SealedField> {
        Ok(SealedField {
            number: self.number("f")?,
            length: self.number("l")?,
            commitment: self.digest("c")?,
            ciphertext: self.at("x", Self::base64_bytes)?.into(),
        })
    }

    pub(crate) fn blob(&mut self) -> Read<BlobField> {
        Ok(BlobField {
            number: self.number("f")?,
            length: self.number("l")?,
            commitment: self.digest("c")?,
            sha256: self.at("sha256", Self::hex_digest)?,
            bytes: self.number("bytes")?,
            form: self.word("form", BlobForm::parse_bytes)?,
            packing: self.optional("packing", |c| c.word_value(Packing::parse_bytes))?,
            head: self.at("head", |c| c.object(Self::sealed))?,
        })
    }
}

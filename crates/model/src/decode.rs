//! Bytes to entry, strictly: only what [`Entry::encode`] would write is accepted.
//!
//! There is one encoding, so reading is one pass over it: each key must stand exactly where `encode` puts it, and each
//! value must be written exactly as `encode` writes it. What is wrong is worked out only when something is.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::custody::*;
use crate::entry::*;
use crate::{
    AbsentReason, BlobField, ChannelBinding, Claim, CommandId, Digest, Field, Identity, IdentityName, Known, Label,
    OnBehalfOf, Proof, ProofMethod, SealedField, SessionId, Time, parse_wall,
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
        let mut cursor = Cursor { rest, key: "k", fresh: false };
        let read = cursor.entry(kind).and_then(|entry| {
            cursor.exactly(b"}")?;
            if cursor.rest.is_empty() { Ok(entry) } else { Err(Bad::Form) }
        });
        read.map_err(|bad| match bad {
            _ if serde_json::from_slice::<Value>(leaf).is_err() => DecodeError::NotJson,
            Bad::Form => DecodeError::NotCanonical,
            Bad::Value => DecodeError::Malformed { kind: kind.as_str(), key: cursor.key },
        })
    }
}

/// The kind, and what follows it.
fn begins(leaf: &[u8]) -> Option<(Kind, &[u8])> {
    let rest = leaf.strip_prefix(b"{\"v\":1,\"k\":\"")?;
    let (kind, rest) = rest.split_at_checked(rest.iter().take(32).position(|&b| b == b'"')?)?;
    Some((Kind::parse(std::str::from_utf8(kind).ok()?)?, rest.get(1..)?))
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

/// What is wrong at the place of a cursor.
enum Bad {
    /// It is not written as an entry is.
    Form,
    /// The value is not one that the key can have.
    Value,
}

type Read<T> = Result<T, Bad>;

/// Stands in the bytes of an entry.
struct Cursor<'a> {
    rest: &'a [u8],
    /// The key that was read last.
    key: &'static str,
    /// Behind an object's brace: its first key has no comma before it.
    fresh: bool,
}

impl<'a> Cursor<'a> {
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
            reason: self.word("reason", EpochReason::parse)?,
        })
    }

    fn start(&mut self) -> Read<Start> {
        Ok(Start {
            boot_id: self.string("boot_id")?,
            program: self.string("program")?,
            configuration: self.digest_or_null("configuration")?,
            clock: self.word("clock", ClockState::parse)?,
        })
    }

    fn stop(&mut self) -> Read<Stop> {
        Ok(Stop {
            reason: self.word("reason", StopReason::parse)?,
            next: self.optional("next", |c| c.text().map(Cow::into_owned))?,
        })
    }

    fn recovery(&mut self) -> Read<Recovery> {
        Ok(Recovery {
            entries: self.number("entries")?,
            loss: self.word("loss", Loss::parse)?,
            torn_bytes: self.number("torn_bytes")?,
            commands_unknown: self.number("commands_unknown")?,
            sessions_lost: self.number("sessions_lost")?,
        })
    }

    fn heartbeat(&mut self) -> Read<Heartbeat> {
        Ok(Heartbeat {
            clock: self.word("clock", ClockState::parse)?,
            sessions: self.number("sessions")?,
            commands: self.number("commands")?,
            refused: self.number("refused")?,
            bytes_up: self.number("bytes_up")?,
            bytes_down: self.number("bytes_down")?,
        })
    }

    fn session_open(&mut self) -> Read<(Time, Body)> {
        let (link, time) = (self.link()?, self.time()?);
        let identity = self.at("identity", |c| {
            c.object(|c| {
                Ok(Identity {
                    name: c.name("name")?,
                    known: c.word("known", Known::parse)?,
                    proof: c.at("proof", |c| {
                        c.object(|c| {
                            Ok(Proof {
                                method: c.word("method", ProofMethod::parse)?,
                                channel: c.word("channel", ChannelBinding::parse)?,
                                credential: c.string("credential")?,
                            })
                        })
                    })?,
                    on_behalf_of: c.on_behalf_of()?,
                })
            })
        })?;
        let body = SessionOpen {
            link,
            identity,
            connection: self.string("connection")?,
            database: self.label("database")?,
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
            durability: self.word("durability", Durability::parse)?,
            key_slot: self.number("key_slot")?,
            key_commitment: self.digest("key_commitment")?,
        };
        Ok((time, Body::SessionOpen(body)))
    }

    fn session_close(&mut self) -> Read<(Time, Body)> {
        let (link, time) = (self.link()?, self.time()?);
        let body = SessionClose {
            link,
            reason: self.word("reason", SessionEnd::parse)?,
            intents: self.small("intents")?,
            outcomes: self.small("outcomes")?,
            bytes_up: self.number("bytes_up")?,
            bytes_down: self.number("bytes_down")?,
            root: self.optional("root", Self::base64_digest)?,
        };
        Ok((time, Body::SessionClose(body)))
    }

    fn intent(&mut self) -> Read<(Time, Body)> {
        let command = self.command("id")?;
        let (link, time) = (self.link()?, self.time()?);
        let who = self.at("who", |c| {
            c.object(|c| {
                Ok(Who {
                    name: c.name("name")?,
                    known: c.word("known", Known::parse)?,
                    on_behalf_of: c.on_behalf_of()?,
                })
            })
        })?;
        let body = Intent {
            link,
            command,
            who,
            connection: self.string("connection")?,
            database: self.label("database")?,
            via: self.word("via", Via::parse)?,
            text: self.field("text")?,
            parameters: self.field("parameters")?,
            statement: self.optional("statement", Self::label_value)?,
            portal: self.optional("portal", Self::label_value)?,
            transaction: self.word("transaction", Transaction::parse)?,
            effects: self.at("effects", |c| c.object(|c| c.word("state", Effects::parse)))?,
            fidelity: self.word("fidelity", Fidelity::parse)?,
            verdict: self.word("verdict", Verdict::parse)?,
            rules: self.at("rules", |c| c.array(|c| c.text().map(Cow::into_owned)))?,
            policy: self.digest_or_null("policy")?,
            durability: self.word("durability", Durability::parse)?,
            bytes: self.number("bytes")?,
        };
        Ok((time, Body::Intent(body)))
    }

    fn outcome(&mut self) -> Read<(Time, Body)> {
        let of = self.command("of")?;
        let (link, time) = (self.link()?, self.time()?);
        let body = Outcome {
            link,
            of,
            status: self.word("status", Status::parse)?,
            reason: self.optional("reason", |c| c.word_value(Reason::parse))?,
            code: self.optional("code", |c| c.text().map(Cow::into_owned))?,
            message: self.field("message")?,
            results: self.at("results", |c| {
                c.array(|c| {
                    c.object(|c| {
                        Ok(StatementResult { tag: c.string("tag")?, rows: c.optional("rows", Self::decimal)? })
                    })
                })
            })?,
            results_count: self.number("results_count")?,
            rows: self.number("rows")?,
            bytes_up: self.number("bytes_up")?,
            bytes_down: self.number("bytes_down")?,
            duration_us: self.number("duration_us")?,
            copy: self.optional("copy", |c| {
                c.object(|c| {
                    let direction = c.word("direction", CopyDirection::parse)?;
                    Ok(Copy { direction, bytes: c.number("bytes")? })
                })
            })?,
            fetches: self.small("fetches")?,
            suspended: self.truth("suspended")?,
            effective: self.word("effective", Effective::parse)?,
            notices: self.small("notices")?,
            executed: self.truth("executed")?,
        };
        Ok((time, Body::Outcome(body)))
    }

    fn refused(&mut self) -> Read<Refused> {
        Ok(Refused {
            reason: self.word("reason", RefusedReason::parse)?,
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
            result: self.word("result", CancelResult::parse)?,
            count: self.number("count")?,
        })
    }

    fn erase(&mut self) -> Read<Erase> {
        Ok(Erase {
            session: self.at("session", Self::session_value)?,
            connection: self.string("connection")?,
            identity: self.name("identity")?,
            fields: self.optional("fields", |c| c.array(Self::decimal))?,
            cause: self.word("cause", EraseCause::parse)?,
            reason: self.string("reason")?,
            by: self.actor()?,
        })
    }

    fn hold(&mut self) -> Read<Hold> {
        Ok(Hold {
            hold: self.string("hold")?,
            action: self.word("action", HoldAction::parse)?,
            session: self.optional("session", Self::session_value)?,
            connection: self.optional("connection", |c| c.text().map(Cow::into_owned))?,
            identity: self.optional("identity", Self::name_value)?,
            reason: self.string("reason")?,
            by: self.actor()?,
        })
    }

    fn witnesses(&mut self) -> Read<Witnesses> {
        Ok(Witnesses {
            size: self.number("size")?,
            enough: self.optional("enough", Self::decimal)?,
            witnesses: self.at("witnesses", |c| {
                c.array(|c| {
                    c.object(|c| {
                        Ok(WitnessStanding {
                            name: c.string("name")?,
                            state: c.word("state", WitnessState::parse)?,
                            size: c.optional("size", Self::decimal)?,
                        })
                    })
                })
            })?,
        })
    }

    fn export(&mut self) -> Read<Export> {
        Ok(Export {
            by: self.actor()?,
            selection: self.string("selection")?,
            entries: self.number("entries")?,
            disclosed: self.number("disclosed")?,
            sha256: self.digest("sha256")?,
        })
    }

    fn actor(&mut self) -> Read<Actor> {
        self.at("by", |c| c.object(|c| Ok(Actor { name: c.string("name")?, known: c.word("known", Known::parse)? })))
    }

    fn link(&mut self) -> Read<Link> {
        Ok(Link {
            session: self.at("s", Self::session_value)?,
            number: self.small("n")?,
            previous: self.digest_or_null("prev")?,
        })
    }

    fn time(&mut self) -> Read<Time> {
        Ok(Time { wall_us: self.wall("t")?, boot_us: self.number("b")? })
    }

    fn on_behalf_of(&mut self) -> Read<Option<OnBehalfOf>> {
        self.at("on_behalf_of", |c| {
            c.or_null(|c| c.object(|c| Ok(OnBehalfOf { name: c.name("name")?, known: c.word("known", Known::parse)? })))
        })
    }

    fn field(&mut self, key: &'static str) -> Read<Field> {
        self.at(key, |c| {
            c.object(|c| {
                if let Some(reason) = c.optional("absent", |c| c.word_value(AbsentReason::parse))? {
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
            ciphertext: self.at("x", |c| {
                let text = c.plain()?;
                STANDARD.decode(text).map(Arc::from).map_err(|_| Bad::Value)
            })?,
        })
    }

    fn blob(&mut self) -> Read<BlobField> {
        Ok(BlobField {
            number: self.number("f")?,
            length: self.number("l")?,
            commitment: self.digest("c")?,
            sha256: self.at("sha256", Self::hex_digest)?,
            bytes: self.number("bytes")?,
            form: self.word("form", BlobForm::parse)?,
            packing: self.optional("packing", |c| c.word_value(Packing::parse))?,
            head: self.at("head", |c| c.object(Self::sealed))?,
        })
    }

    // Keys with their values.

    /// Reads a key, and its value with `read`.
    fn at<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        self.optional(key, read)?.ok_or(Bad::Form)
    }

    /// As [`Cursor::at`], if the key is there.
    fn optional<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        let before: &[u8] = if self.fresh { b"\"" } else { b",\"" };
        let rest = self.rest.strip_prefix(before).and_then(|rest| rest.strip_prefix(key.as_bytes()));
        match rest.and_then(|rest| rest.strip_prefix(b"\":")) {
            Some(rest) => {
                (self.rest, self.key, self.fresh) = (rest, key, false);
                read(self).map(Some)
            }
            None => Ok(None),
        }
    }

    fn string(&mut self, key: &'static str) -> Read<String> {
        self.at(key, |c| c.text().map(Cow::into_owned))
    }

    fn number(&mut self, key: &'static str) -> Read<u64> {
        self.at(key, Self::decimal)
    }

    fn small(&mut self, key: &'static str) -> Read<u32> {
        self.at(key, |c| c.decimal()?.try_into().map_err(|_| Bad::Value))
    }

    fn truth(&mut self, key: &'static str) -> Read<bool> {
        self.at(key, |c| {
            let truth = c.rest.starts_with(b"true");
            c.exactly(if truth { b"true" } else { b"false" })?;
            Ok(truth)
        })
    }

    fn word<T>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Option<T>) -> Read<T> {
        self.at(key, |c| c.word_value(parse))
    }

    fn wall(&mut self, key: &'static str) -> Read<i64> {
        self.at(key, |c| parse_wall(c.plain()?).map_err(|_| Bad::Value))
    }

    fn name(&mut self, key: &'static str) -> Read<IdentityName> {
        self.at(key, Self::name_value)
    }

    fn command(&mut self, key: &'static str) -> Read<CommandId> {
        self.at(key, |c| c.plain()?.parse().map_err(|_| Bad::Value))
    }

    fn label(&mut self, key: &'static str) -> Read<Label> {
        self.at(key, Self::label_value)
    }

    fn digest(&mut self, key: &'static str) -> Read<Digest> {
        self.at(key, Self::base64_digest)
    }

    fn digest_or_null(&mut self, key: &'static str) -> Read<Option<Digest>> {
        self.at(key, |c| c.or_null(Self::base64_digest))
    }

    // Values.

    fn exactly(&mut self, bytes: &[u8]) -> Read<()> {
        self.rest = self.rest.strip_prefix(bytes).ok_or(Bad::Form)?;
        Ok(())
    }

    fn object<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        self.exactly(b"{")?;
        self.fresh = true;
        let value = read(self)?;
        self.fresh = false;
        self.exactly(b"}")?;
        Ok(value)
    }

    fn array<T>(&mut self, mut read: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        self.exactly(b"[")?;
        let mut values = Vec::new();
        while self.rest.first() != Some(&b']') {
            if !values.is_empty() {
                self.exactly(b",")?;
            }
            values.push(read(self)?);
        }
        self.exactly(b"]")?;
        Ok(values)
    }

    fn or_null<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        match self.rest.strip_prefix(b"null") {
            Some(rest) => {
                self.rest = rest;
                Ok(None)
            }
            None => read(self).map(Some),
        }
    }

    fn decimal(&mut self) -> Read<u64> {
        let digits = self.rest.iter().take(21).take_while(|b| b.is_ascii_digit()).count();
        let (text, rest) = self.rest.split_at_checked(digits).ok_or(Bad::Form)?;
        if text.is_empty() || (text.len() > 1 && text.first() == Some(&b'0')) {
            return Err(Bad::Form);
        }
        let value =
            text.iter().try_fold(0u64, |value, digit| value.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
        self.rest = rest;
        value.ok_or(Bad::Value)
    }

    /// A string that has nothing escaped.
    fn plain(&mut self) -> Read<&'a str> {
        match self.text()? {
            Cow::Borrowed(text) => Ok(text),
            Cow::Owned(_) => Err(Bad::Value),
        }
    }

    /// A string: quote and backslash escaped with a backslash, control characters as `\u00xx`, everything else as it is.
    fn text(&mut self) -> Read<Cow<'a, str>> {
        self.exactly(b"\"")?;
        let at = memchr::memchr2(b'"', b'\\', self.rest).ok_or(Bad::Form)?;
        let (text, mut rest) = self.rest.split_at_checked(at).ok_or(Bad::Form)?;
        let control = |b: &u8| *b < 0x20 || *b == 0x7f;
        // Not `any`: without an early end, many bytes are looked at in one step.
        if text.iter().fold(false, |found, b| found | control(b)) {
            return Err(Bad::Form);
        }
        if let [b'"', after @ ..] = rest {
            self.rest = after;
            return std::str::from_utf8(text).map(Cow::Borrowed).map_err(|_| Bad::Form);
        }
        let mut bytes = text.to_vec();
        loop {
            rest = match rest {
                [b'"', after @ ..] => {
                    self.rest = after;
                    return String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Bad::Form);
                }
                [b'\\', escaped @ (b'"' | b'\\'), after @ ..] => {
                    bytes.push(*escaped);
                    after
                }
                [b'\\', b'u', b'0', b'0', high, low, after @ ..] => {
                    bytes.push(escaped_control(*high, *low).ok_or(Bad::Form)?);
                    after
                }
                [byte, after @ ..] if !control(byte) && !matches!(byte, b'\\') => {
                    bytes.push(*byte);
                    after
                }
                _ => return Err(Bad::Form),
            };
        }
    }

    fn word_value<T>(&mut self, parse: impl FnOnce(&str) -> Option<T>) -> Read<T> {
        parse(self.plain()?).ok_or(Bad::Value)
    }

    fn name_value(&mut self) -> Read<IdentityName> {
        self.plain()?.parse().map_err(|_| Bad::Value)
    }

    fn session_value(&mut self) -> Read<SessionId> {
        self.plain()?.parse().map_err(|_| Bad::Value)
    }

    fn base64_digest(&mut self) -> Read<Digest> {
        Digest::from_base64(self.plain()?).ok_or(Bad::Value)
    }

    fn hex_digest(&mut self) -> Read<Digest> {
        Digest::from_hex(self.plain()?).ok_or(Bad::Value)
    }

    fn label_value(&mut self) -> Read<Label> {
        if self.rest.first() == Some(&b'"') {
            return Ok(Label::Text(self.text()?.into_owned()));
        }
        self.object(|c| Ok(Label::Digest { sha256: c.at("sha256", Self::hex_digest)?, bytes: c.number("bytes")? }))
    }
}

/// The control character that these two hexadecimal digits, in lower case, stand for.
fn escaped_control(high: u8, low: u8) -> Option<u8> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    Some(digit(high)? << 4 | digit(low)?).filter(|byte| *byte < 0x20 || *byte == 0x7f)
}

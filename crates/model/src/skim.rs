//! What verification needs of an entry, read in one pass and without a copy of what it does not need.
//!
//! Accepts exactly what [`Entry::decode`] accepts: an intent or an outcome is read here key by key, and whatever is not
//! right here is left to `decode`, which says why. Both are held against each other by the tests.

use crate::command::*;
use crate::cursor::{Bad, Cursor, Read};
use crate::decode::{DecodeError, begins};
use crate::entry::*;
use crate::{AbsentReason, BlobField, BreakGlassId, CommandId, Entry, Field, Known, Time, UpstreamSecurity};

/// What an entry says, as far as its place among the others goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skim {
    /// An intent or an outcome.
    Command(SkimmedCommand),
    /// Any other entry.
    Other(Box<Entry>),
}

/// An intent or an outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkimmedCommand {
    /// When it was made.
    pub time: Time,
    /// Its place in the session.
    pub link: Link,
    /// The command.
    pub command: CommandId,
    /// How it ended; none if this is the intent.
    pub status: Option<Status>,
    /// Of an intent: whether the command waits for an approval or runs under one.
    pub held: bool,
    /// Of an intent: the break-glass that its sender had opened.
    pub break_glass: Option<BreakGlassId>,
    /// Of an outcome: whether the command was executed.
    pub executed: bool,
    /// The blobs that it names.
    pub blobs: Vec<BlobField>,
}

impl Skim {
    /// Reads an entry from exactly its bytes.
    ///
    /// # Errors
    /// As [`Entry::decode`].
    pub fn read(leaf: &[u8]) -> Result<Self, DecodeError> {
        if leaf.len() <= LEAF_BYTES_MAX
            && let Some((kind, rest)) = begins(leaf)
        {
            let mut cursor = Cursor::new(rest);
            let command = match kind {
                Kind::Intent => cursor.skim_intent(),
                Kind::Outcome => cursor.skim_outcome(),
                _ => Err(Bad::Form),
            };
            if let Ok(command) = command {
                return Ok(Self::Command(command));
            }
        }
        Entry::decode(leaf).map(Self::from)
    }
}

/// By the long way.
impl From<Entry> for Skim {
    fn from(entry: Entry) -> Self {
        let blob = |field: &Field| match field {
            Field::Blob(blob) => Some(blob.clone()),
            Field::Absent(_) | Field::Sealed(_) => None,
        };
        let blobs = entry.body.contents().filter_map(|(_, _, field)| blob(field)).collect();
        let time = entry.time;
        match entry.body {
            Body::Intent(intent) => Self::Command(SkimmedCommand {
                time,
                link: intent.link,
                command: intent.command,
                status: None,
                held: intent.verdict == Verdict::Hold || intent.approval.is_some(),
                break_glass: intent.break_glass,
                executed: false,
                blobs,
            }),
            Body::Outcome(outcome) => Self::Command(SkimmedCommand {
                time,
                link: outcome.link,
                command: outcome.of,
                status: Some(outcome.status),
                held: false,
                break_glass: None,
                executed: outcome.executed,
                blobs,
            }),
            body => Self::Other(Box::new(Entry { time, body })),
        }
    }
}

impl Cursor<'_> {
    fn skim_intent(&mut self) -> Read<SkimmedCommand> {
        let command = self.command("id")?;
        let (link, time) = (self.link()?, self.time()?);
        self.at("who", |c| {
            c.object(|c| {
                c.at("name", Self::skip_name)?;
                c.word("known", Known::parse_bytes)?;
                c.on_behalf_of().map(|_| ())
            })
        })?;
        self.at("connection", Self::skip_text)?;
        self.optional("database", Self::skip_label)?;
        self.word("via", Via::parse_bytes)?;
        let mut blobs = Vec::new();
        self.skim_field("text", &mut blobs)?;
        self.skim_field("parameters", &mut blobs)?;
        self.optional("statement", Self::skip_label)?;
        self.optional("portal", Self::skip_label)?;
        self.optional("transaction", |c| c.word_value(Transaction::parse_bytes))?;
        self.effects()?;
        self.word("fidelity", Fidelity::parse_bytes)?;
        let verdict = self.word("verdict", Verdict::parse_bytes)?;
        self.at("rules", |c| c.each(Self::skip_text))?;
        self.at("policy", |c| c.or_null(Self::skip_digest))?;
        self.optional("observed", |c| c.word_value(Verdict::parse_bytes))?;
        let approval = self.optional("approval", Self::command_value)?;
        let break_glass = self.optional("break_glass", Self::break_glass_value)?;
        self.word("durability", Durability::parse_bytes)?;
        self.number("bytes")?;
        self.optional("upstream", |c| c.word_value(UpstreamSecurity::parse_bytes))?;
        self.end()?;
        let held = verdict == Verdict::Hold || approval.is_some();
        Ok(SkimmedCommand { time, link, command, status: None, held, break_glass, executed: false, blobs })
    }

    fn skim_outcome(&mut self) -> Read<SkimmedCommand> {
        let command = self.command("of")?;
        let (link, time) = (self.link()?, self.time()?);
        let status = Some(self.word("status", Status::parse_bytes)?);
        self.optional("reason", |c| c.word_value(Reason::parse_bytes))?;
        self.optional("code", Self::skip_text)?;
        let mut blobs = Vec::new();
        self.skim_field("message", &mut blobs)?;
        self.at("results", |c| {
            c.each(|c| {
                c.object(|c| {
                    c.at("tag", Self::skip_text)?;
                    c.optional("rows", Self::decimal).map(|_| ())
                })
            })
        })?;
        for key in ["results_count", "rows", "bytes_up", "bytes_down", "duration_us"] {
            self.number(key)?;
        }
        self.optional("copy", |c| {
            c.object(|c| {
                c.word("direction", CopyDirection::parse_bytes)?;
                c.number("bytes")
            })
        })?;
        self.small("fetches")?;
        self.truth("suspended")?;
        self.word("effective", Effective::parse_bytes)?;
        self.small("notices")?;
        let executed = self.truth("executed")?;
        self.optional("transcript", |c| {
            c.object(|c| {
                c.skim_field("content", &mut blobs)?;
                for key in ["stdin", "stdout", "stderr", "kept"] {
                    c.number(key)?;
                }
                Ok(())
            })
        })?;
        self.optional("file", |c| {
            c.object(|c| {
                c.number("read")?;
                c.number("written")?;
                c.skim_field("sha256", &mut blobs)
            })
        })?;
        self.end()?;
        Ok(SkimmedCommand { time, link, command, status, held: false, break_glass: None, executed, blobs })
    }

    #[inline(always)]
    fn skim_field(&mut self, key: &'static str, blobs: &mut Vec<BlobField>) -> Read<()> {
        self.at(key, |c| {
            c.object(|c| {
                if c.optional("absent", |c| c.word_value(AbsentReason::parse_bytes))?.is_some() {
                    return Ok(());
                }
                let sealed = c.optional("sealed", |c| {
                    c.object(|c| {
                        c.number("f")?;
                        c.number("l")?;
                        c.at("c", Self::skip_digest)?;
                        c.at("x", Self::skip_base64)
                    })
                })?;
                if sealed.is_none() {
                    blobs.push(c.at("blob", |c| c.object(Self::blob))?);
                }
                Ok(())
            })
        })
    }
}

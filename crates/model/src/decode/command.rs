//! Reading commands: intents and outcomes.

use std::borrow::Cow;
use std::sync::Arc;

use crate::command::*;
use crate::cursor::{Cursor, Read};
use crate::entry::Body;
use crate::{Access, Effect, Facts, Known, Opaque, Operation, Relation, Time, UpstreamSecurity};

impl Cursor<'_> {
    pub(super) fn intent(&mut self) -> Read<(Time, Body)> {
        let command = self.command("id")?;
        let (link, time) = (self.link()?, self.time()?);
        let who = self.at("who", |c| {
            c.object(|c| {
                Ok(Who {
                    name: c.name("name")?,
                    known: c.word("known", Known::parse_bytes)?,
                    on_behalf_of: c.on_behalf_of()?,
                })
            })
        })?;
        let body = Intent {
            link,
            command,
            who,
            connection: self.string("connection")?,
            database: self.optional("database", Self::label_value)?,
            via: self.word("via", Via::parse_bytes)?,
            text: self.field("text")?,
            parameters: self.field("parameters")?,
            statement: self.optional("statement", Self::label_value)?,
            portal: self.optional("portal", Self::label_value)?,
            transaction: self.optional("transaction", |c| c.word_value(Transaction::parse_bytes))?,
            effects: self.effects()?,
            fidelity: self.word("fidelity", Fidelity::parse_bytes)?,
            verdict: self.word("verdict", Verdict::parse_bytes)?,
            rules: self.at("rules", |c| c.array(|c| c.text().map(Cow::into_owned)))?,
            policy: self.digest_or_null("policy")?,
            observed: self.optional("observed", |c| c.word_value(Verdict::parse_bytes))?,
            approval: self.optional("approval", Self::command_value)?,
            break_glass: self.optional("break_glass", Self::break_glass_value)?,
            durability: self.word("durability", Durability::parse_bytes)?,
            bytes: self.number("bytes")?,
            upstream: self.optional("upstream", |c| c.word_value(UpstreamSecurity::parse_bytes))?,
        };
        Ok((time, Body::Intent(body)))
    }

    pub(crate) fn effects(&mut self) -> Read<Effects> {
        self.at("effects", |c| c.object(Self::effects_value))
    }

    fn effects_value(&mut self) -> Read<Effects> {
        let established = self.word("state", |state| match state {
            b"not_established" => Some(false),
            b"established" => Some(true),
            _ => None,
        })?;
        if !established {
            return Ok(Effects::NotEstablished);
        }
        Ok(Effects::Established(Arc::new(Facts {
            operation: self.word("operation", Operation::parse_bytes)?,
            operations: self.words("operations", Operation::parse_bytes)?,
            effects: self.words("effects", Effect::parse_bytes)?,
            relations: self.at("relations", |c| c.array(|c| c.object(Self::relation)))?,
            functions: self.strings("functions")?,
            bounded: self.truth("bounded")?,
            fingerprint: self.optional("fingerprint", Self::base64_digest)?,
            opaque: self.words("opaque", Opaque::parse_bytes)?,
        })))
    }

    fn relation(&mut self) -> Read<Relation> {
        Ok(Relation {
            schema: self.optional_string("schema")?,
            name: self.string("name")?,
            access: self.words("access", Access::parse_bytes)?,
        })
    }

    /// A list of words of a closed set.
    fn words<T>(&mut self, key: &'static str, parse: fn(&[u8]) -> Option<T>) -> Read<Vec<T>> {
        self.at(key, |c| c.array(|c| c.word_value(parse)))
    }

    pub(super) fn outcome(&mut self) -> Read<(Time, Body)> {
        let of = self.command("of")?;
        let (link, time) = (self.link()?, self.time()?);
        let body = Outcome {
            link,
            of,
            status: self.word("status", Status::parse_bytes)?,
            reason: self.optional("reason", |c| c.word_value(Reason::parse_bytes))?,
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
                    let direction = c.word("direction", CopyDirection::parse_bytes)?;
                    Ok(Copy { direction, bytes: c.number("bytes")? })
                })
            })?,
            fetches: self.small("fetches")?,
            suspended: self.truth("suspended")?,
            effective: self.word("effective", Effective::parse_bytes)?,
            notices: self.small("notices")?,
            executed: self.truth("executed")?,
            transcript: self.optional("transcript", |c| c.object(Self::transcript))?,
            file: self.optional("file", |c| c.object(Self::file_content))?,
        };
        Ok((time, Body::Outcome(body)))
    }

    fn transcript(&mut self) -> Read<Transcript> {
        Ok(Transcript {
            content: self.field("content")?,
            stdin: self.number("stdin")?,
            stdout: self.number("stdout")?,
            stderr: self.number("stderr")?,
            kept: self.number("kept")?,
        })
    }

    fn file_content(&mut self) -> Read<FileContent> {
        Ok(FileContent { read: self.number("read")?, written: self.number("written")?, sha256: self.field("sha256")? })
    }
}

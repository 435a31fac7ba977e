//! An audit that was put aside: saved to bytes, and resumed from them.
//!
//! Whoever keeps the bytes vouches for what was verified before: it is not read again. They have a checksum against
//! accidents; any bytes may be given to [`Audit::resume`]. An audit that found a violation is not saved: it begins anew.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{Body, BreakGlassId, CommandId, Digest, Entry, Genesis, IdentityName, Kind, SessionId, Status, Time};
use sha2::{Digest as _, Sha256};

use super::approvals::{Asked, Asker, Held};
use super::break_glass::{Glass, State};
use super::report::{Away, AwayEnd, ClockStep, Silence};
use super::session::{At, Open};
use super::{Audit, Place, Scope};
use crate::frontier::Frontier;
use crate::note::VerifierKey;

/// The first line, version included.
const MAGIC: &[u8] = b"onrecord/v4 audit\n";
/// No log has as many entries as this.
const COUNT_MAX: u64 = 1 << 62;
/// No session has as many commands as this.
const SMALL_MAX: u32 = 1 << 31;

/// Bytes from which no audit can be resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Not what [`Audit::save`] gives.
    #[error("this is no saved verification, or it was damaged")]
    Malformed,
    /// Saved by another version.
    #[error("this verification was saved by another version")]
    Version,
    /// Of another log.
    #[error("this verification is of another log, or of the same name with another key")]
    OtherLog,
}

impl Audit {
    /// What is needed to go on from here; none if something is violated, or if only a selection is verified.
    #[must_use]
    pub fn save(&self) -> Option<Vec<u8>> {
        if self.scope != Scope::Whole || self.found.violation.is_some() {
            return None;
        }
        let mut out = Out(MAGIC.to_vec());
        out.text(&self.vkey.to_string());
        out.u64(self.entries);
        out.bytes(&self.frontier.to_bytes());
        out.each(self.roots.iter().filter_map(|(size, root)| Some((*size, (*root)?))), |out, (size, root)| {
            out.u64(size);
            out.digest(&root);
        });
        out.u64(self.blobs);
        out.u64(self.blobs_unchecked);
        out.each(self.connections.in_order(), |out, (name, span)| {
            out.text(name);
            out.span(span);
        });
        out.each(&self.sessions, |out, (id, open)| out.session(*id, open));
        out.each(&self.missing, |out, ((session, number), (at, what))| {
            out.id(*session);
            out.u64(*number);
            out.at(at);
            out.text(what);
        });
        out.each(self.holds.values(), |out, hold| out.body(Body::Hold(hold.clone())));
        out.each(self.passkeys.values(), |out, key| out.body(Body::Passkey(key.clone())));
        out.u64(self.signed_decisions);
        out.u64(self.signed_decisions_unchecked);
        out.each(&self.approvals.held, |out, (command, held)| out.held(*command, held));
        out.each(&self.approvals.open, |out, (command, asked)| out.asked(*command, asked));
        out.each(&self.glasses.known, |out, (id, glass)| out.glass(*id, glass));
        for ids in [&self.glasses.closed_before, &self.glasses.reviewed] {
            out.each(ids, |out, id| out.0.extend_from_slice(&id.to_bytes()));
        }
        out.u64(self.glasses.opened);
        out.u64(self.glasses.commands);
        self.save_findings(&mut out);
        let sum = Sha256::digest(&out.0);
        out.0.extend_from_slice(&sum);
        Some(out.0)
    }

    /// What [`Audit::save`] gave at the largest size that was expected, if that many entries have come. Entries beyond
    /// what was signed may still be lost with the power, so this is what to keep of a log that is being written.
    #[must_use]
    pub fn saved_at_signed(&self) -> Option<&[u8]> {
        self.saved.as_deref()
    }

    fn save_findings(&self, out: &mut Out) {
        let c = &self.completeness;
        out.each(&self.found.gaps, |out, gap| out.text(gap));
        out.u64(self.found.gaps_count);
        out.each(&c.outcomes, |out, (status, count)| {
            out.text(status.as_str());
            out.u64(*count);
        });
        for count in [
            c.commands,
            c.sessions,
            c.sessions_lost,
            c.refused,
            c.recoveries,
            c.torn_bytes_declared,
            c.erased_sessions,
            c.erased_fields,
            self.coverage.away_count,
        ] {
            out.u64(count);
        }
        out.each(&c.silences, |out, silence| {
            out.time(silence.from);
            out.time(silence.to);
        });
        out.each(self.coverage.recorded, Out::span);
        out.each(&self.coverage.away, |out, away| {
            out.span((away.from_us, away.to_us));
            out.u64(u64::from(away.end == AwayEnd::Crashed));
        });
        out.each(&self.coverage.clock_steps, |out, step| {
            out.u64(step.index);
            out.i64(step.by_us);
        });
        out.each(&self.coverage.previous, |out, previous| {
            let (origin, vkey, program) = (String::new(), String::new(), String::new());
            out.body(Body::Genesis(Genesis { origin, vkey, program, previous: Some(previous.clone()) }));
        });
        out.each(&self.coverage.witnesses, |out, standing| out.body(Body::Witnesses(standing.clone())));
        out.each(self.last, |out, (index, kind, time)| {
            out.u64(index);
            out.text(kind.as_str());
            out.time(time);
        });
    }

    /// Goes on from what [`Audit::save`] gave. What was signed has to be told again, see [`Audit::can_expect`].
    ///
    /// # Errors
    /// These are not such bytes, or they are of another log.
    pub fn resume(saved: &[u8], vkey: &VerifierKey) -> Result<Self, StateError> {
        let (all, sum) = saved.split_last_chunk::<32>().ok_or(StateError::Malformed)?;
        let Some(rest) = all.strip_prefix(MAGIC) else {
            let other = saved.starts_with(b"onrecord/v") && !saved.starts_with(MAGIC);
            return Err(if other { StateError::Version } else { StateError::Malformed });
        };
        if Sha256::digest(all).as_slice() != sum {
            return Err(StateError::Malformed);
        }
        let mut from = In(rest);
        if from.text().ok_or(StateError::Malformed)? != vkey.to_string() {
            return Err(StateError::OtherLog);
        }
        let mut audit = Self::new(Scope::Whole, vkey);
        audit.load(&mut from).filter(|()| from.0.is_empty()).ok_or(StateError::Malformed)?;
        Ok(audit)
    }

    fn load(&mut self, from: &mut In<'_>) -> Option<()> {
        self.entries = from.count()?;
        self.frontier = Frontier::from_bytes(from.bytes()?).ok()?;
        from.each(|from| {
            let (size, root) = (from.count()?, from.digest()?);
            self.roots.insert(size, Some(root));
            (size <= self.entries).then_some(())
        })?;
        self.blobs = from.count()?;
        self.blobs_unchecked = from.count()?;
        from.each(|from| {
            let name = from.text()?.to_owned();
            self.connections.add(name, from.span()?);
            Some(())
        })?;
        let connections = self.connections.len();
        from.each(|from| {
            let (id, open) = from.session()?;
            let known = open.connection < connections;
            self.sessions.insert(id, open);
            known.then_some(())
        })?;
        from.each(|from| {
            let key = (from.id()?, from.u64()?);
            self.missing.insert(key, (from.at()?, from.text()?.to_owned()));
            Some(())
        })?;
        from.each(|from| match from.body()? {
            Body::Hold(hold) => {
                self.holds.insert(hold.hold.clone(), hold);
                Some(())
            }
            _ => None,
        })?;
        from.each(|from| match from.body()? {
            Body::Passkey(key) => {
                self.passkeys.insert(key.credential.clone(), key);
                Some(())
            }
            _ => None,
        })?;
        self.signed_decisions = from.count()?;
        self.signed_decisions_unchecked = from.count()?;
        from.each(|from| {
            let command = from.command()?;
            self.approvals.held.insert(command, from.held()?);
            Some(())
        })?;
        from.each(|from| {
            let command = from.command()?;
            self.approvals.open.insert(command, from.asked()?);
            Some(())
        })?;
        from.each(|from| {
            let id = BreakGlassId::from_bytes(from.take()?);
            self.glasses.known.insert(id, from.glass()?);
            Some(())
        })?;
        for ids in [&mut self.glasses.closed_before, &mut self.glasses.reviewed] {
            from.each(|from| {
                ids.insert(BreakGlassId::from_bytes(from.take()?));
                Some(())
            })?;
        }
        self.glasses.opened = from.count()?;
        self.glasses.commands = from.count()?;
        self.load_findings(from)?;
        (self.frontier.size() == self.entries).then_some(())
    }

    fn load_findings(&mut self, from: &mut In<'_>) -> Option<()> {
        let c = &mut self.completeness;
        from.each(|from| {
            self.found.gaps.push(from.text()?.to_owned());
            Some(())
        })?;
        self.found.gaps_count = from.count()?;
        from.each(|from| {
            c.outcomes.insert(Status::parse(from.text()?)?, from.count()?);
            Some(())
        })?;
        for count in [
            &mut c.commands,
            &mut c.sessions,
            &mut c.sessions_lost,
            &mut c.refused,
            &mut c.recoveries,
            &mut c.torn_bytes_declared,
            &mut c.erased_sessions,
            &mut c.erased_fields,
            &mut self.coverage.away_count,
        ] {
            *count = from.u64()?;
        }
        let counted = [c.commands, c.sessions, c.sessions_lost, c.recoveries, c.erased_sessions, c.erased_fields];
        if counted.iter().chain([&self.coverage.away_count]).any(|count| *count > COUNT_MAX) {
            return None;
        }
        from.each(|from| {
            c.silences.push(Silence { from: from.time()?, to: from.time()? });
            Some(())
        })?;
        let coverage = &mut self.coverage;
        from.each(|from| {
            coverage.recorded = Some(from.span()?);
            Some(())
        })?;
        from.each(|from| {
            let (from_us, to_us) = from.span()?;
            let end = if from.u64()? == 1 { AwayEnd::Crashed } else { AwayEnd::Stopped };
            coverage.away.push(Away { from_us, to_us, end });
            Some(())
        })?;
        from.each(|from| {
            coverage.clock_steps.push(ClockStep { index: from.u64()?, by_us: from.i64()? });
            Some(())
        })?;
        from.each(|from| match from.body()? {
            Body::Genesis(genesis) => {
                coverage.previous = genesis.previous;
                Some(())
            }
            _ => None,
        })?;
        from.each(|from| match from.body()? {
            Body::Witnesses(standing) => {
                coverage.witnesses = Some(standing);
                Some(())
            }
            _ => None,
        })?;
        from.each(|from| {
            self.last = Some((from.u64()?, Kind::parse(from.text()?)?, from.time()?));
            Some(())
        })
    }
}

struct Out(Vec<u8>);

impl Out {
    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.u64(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn digest(&mut self, digest: &Digest) {
        self.0.extend_from_slice(&digest.0);
    }

    fn id(&mut self, id: SessionId) {
        self.0.extend_from_slice(&id.to_bytes());
    }

    fn time(&mut self, time: Time) {
        self.i64(time.wall_us);
        self.u64(time.boot_us);
    }

    fn span(&mut self, (from, to): (i64, i64)) {
        self.i64(from);
        self.i64(to);
    }

    /// Items, each after a byte 1; a byte 0 ends them.
    fn each<T>(&mut self, items: impl IntoIterator<Item = T>, mut write: impl FnMut(&mut Self, T)) {
        for item in items {
            self.0.push(1);
            write(self, item);
        }
        self.0.push(0);
    }

    /// As an entry, so that it is read as strictly as one.
    fn body(&mut self, body: Body) {
        let mut leaf = Vec::new();
        Entry { time: Time { wall_us: 0, boot_us: 0 }, body }.encode(&mut leaf);
        self.bytes(&leaf);
    }

    fn at(&mut self, at: &At) {
        self.text(&at.place.file);
        self.u64(at.place.offset);
        self.u64(at.place.index);
        self.each(at.command, Self::command);
    }

    fn command(&mut self, command: CommandId) {
        self.id(command.session);
        self.u32(command.ordinal);
    }

    fn asker(&mut self, asker: &Asker) {
        self.text(asker.name.as_str());
        self.each(&asker.on_behalf_of, |out, name| out.text(name.as_str()));
        self.text(&asker.connection);
    }

    fn held(&mut self, command: CommandId, held: &Held) {
        self.command(command);
        self.digest(&held.intent);
        self.u64(held.index);
        self.each(held.under, Self::command);
        self.asker(&held.asker);
        self.u64(u64::from(held.released));
    }

    fn asked(&mut self, command: CommandId, asked: &Asked) {
        self.command(command);
        self.digest(&asked.request);
        for number in [asked.index, asked.quorum, u64::from(asked.signed)] {
            self.u64(number);
        }
        self.i64(asked.expires_us);
        self.each(&asked.asker, Self::asker);
        self.each(&asked.approved, |out, name| out.text(name.as_str()));
        self.each(&asked.denied, |out, name| out.text(name.as_str()));
    }

    fn glass(&mut self, id: BreakGlassId, glass: &Glass) {
        self.0.extend_from_slice(&id.to_bytes());
        self.u64(glass.index);
        self.text(glass.opener.as_str());
        self.text(&glass.connection);
        self.i64(glass.until_us);
        self.u64(glass.commands);
        self.0.push(match glass.state {
            State::Open => 0,
            State::Over => 1,
            State::Closed => 2,
        });
    }

    fn session(&mut self, id: SessionId, open: &Open) {
        self.id(id);
        self.u32(open.next_number);
        self.digest(&open.hash);
        self.at(&open.at);
        self.bytes(&open.tree.to_bytes());
        self.u32(open.intents);
        self.u32(open.outcomes);
        self.each(&open.open, |out, ordinal| out.u32(*ordinal));
        self.u64(u64::try_from(open.connection).unwrap_or(u64::MAX));
        self.each(&open.blobs, |out, blob| out.digest(blob));
    }
}

struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    /// A number of things that were counted one by one.
    fn count(&mut self) -> Option<u64> {
        self.u64().filter(|count| *count <= COUNT_MAX)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn small(&mut self) -> Option<u32> {
        self.u32().filter(|count| *count <= SMALL_MAX)
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_be_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u64()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn digest(&mut self) -> Option<Digest> {
        self.take().map(Digest)
    }

    fn id(&mut self) -> Option<SessionId> {
        self.take().map(SessionId::from_bytes)
    }

    fn time(&mut self) -> Option<Time> {
        Some(Time { wall_us: self.i64()?, boot_us: self.u64()? })
    }

    fn span(&mut self) -> Option<(i64, i64)> {
        Some((self.i64()?, self.i64()?))
    }

    fn each(&mut self, mut read: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        loop {
            match self.take::<1>()? {
                [0] => return Some(()),
                [1] => read(self)?,
                _ => return None,
            }
        }
    }

    fn body(&mut self) -> Option<Body> {
        Entry::decode(self.bytes()?).ok().map(|entry| entry.body)
    }

    fn at(&mut self) -> Option<At> {
        let file: Arc<str> = self.text()?.into();
        let place = Place { file, offset: self.u64()?, index: self.u64()? };
        let mut command = None;
        self.each(|from| {
            command = Some(from.command()?);
            Some(())
        })?;
        Some(At { place, command })
    }

    fn command(&mut self) -> Option<CommandId> {
        Some(CommandId { session: self.id()?, ordinal: self.u32()? })
    }

    /// The last of the items, of which [`Out`] writes one at most.
    fn optional<T>(&mut self, read: impl Fn(&mut Self) -> Option<T>) -> Option<Option<T>> {
        let mut item = None;
        self.each(|from| {
            item = Some(read(from)?);
            Some(())
        })?;
        Some(item)
    }

    fn name(&mut self) -> Option<IdentityName> {
        self.text()?.parse().ok()
    }

    fn asker(&mut self) -> Option<Asker> {
        let (name, on_behalf_of) = (self.name()?, self.optional(Self::name)?);
        Some(Asker { name, on_behalf_of, connection: self.text()?.to_owned() })
    }

    fn held(&mut self) -> Option<Held> {
        let (intent, index) = (self.digest()?, self.count()?);
        let under = self.optional(Self::command)?;
        Some(Held { intent, index, under, asker: self.asker()?, released: self.u64()? == 1 })
    }

    fn asked(&mut self) -> Option<Asked> {
        let request = self.digest()?;
        let (index, quorum, signed, expires_us) = (self.count()?, self.u64()?, self.u64()? == 1, self.i64()?);
        let asker = self.optional(Self::asker)?;
        let mut approved = BTreeSet::new();
        self.each(|from| {
            approved.insert(from.name()?);
            Some(())
        })?;
        Some(Asked { request, index, quorum, signed, expires_us, asker, approved, denied: self.optional(Self::name)? })
    }

    fn glass(&mut self) -> Option<Glass> {
        Some(Glass {
            index: self.count()?,
            opener: self.name()?,
            connection: self.text()?.to_owned(),
            until_us: self.i64()?,
            commands: self.count()?,
            state: match self.take()? {
                [0] => State::Open,
                [1] => State::Over,
                [2] => State::Closed,
                _ => return None,
            },
        })
    }

    fn session(&mut self) -> Option<(SessionId, Open)> {
        let id = self.id()?;
        let next_number = self.u32()?;
        let hash = self.digest()?;
        let mut open = Open { next_number, hash, ..Open::new(0, self.at()?) };
        open.tree = Frontier::from_bytes(self.bytes()?).ok().filter(|tree| tree.size() <= COUNT_MAX)?;
        open.intents = self.small()?;
        open.outcomes = self.small()?;
        self.each(|from| {
            open.open.insert(from.u32()?);
            Some(())
        })?;
        open.connection = usize::try_from(self.u64()?).ok()?;
        self.each(|from| {
            open.blobs.insert(from.digest()?);
            Some(())
        })?;
        Some((id, open))
    }
}

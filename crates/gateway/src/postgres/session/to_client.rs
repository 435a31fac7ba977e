//! The way of the server's bytes: verbatim to the client, and tapped for the outcomes that they carry.

use std::task::{Context, Poll};

use model::{Durability, Field, SessionEnd};
use store::{Level, Position};
use wire::postgres::tap::{CommandKey, Event, ParseText};

use super::super::downstream::Between;
use super::super::entries::{self, Ruled};
use super::ending::Fault;
use super::{Moved, Open, SCRATCH, Session};

impl Session {
    pub(super) fn read_upstream(&mut self, cx: &mut Context<'_>) -> Result<Moved, Fault> {
        if self.upstream_dead || self.client.queued() >= self.session_bytes_max {
            return Ok(Moved::No);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let read = match self.upstream.poll_read(cx, scratch) {
                Poll::Pending => return Ok(Moved::No),
                Poll::Ready(read) => read.map_err(|_| self.server_gone())?,
            };
            let bytes = scratch.get(..read).unwrap_or_default();
            if bytes.is_empty() {
                return Err(self.server_gone());
            }
            self.bytes_down += u64::try_from(read).unwrap_or(0);
            self.touch();
            if self.outbox.is_empty() {
                let taken = self.deliver(cx, bytes)?;
                self.outbox.extend_from_slice(bytes.get(taken..).unwrap_or_default());
            } else {
                let mut outbox = std::mem::take(&mut self.outbox);
                outbox.extend_from_slice(bytes);
                let taken = self.deliver(cx, &outbox)?;
                outbox.drain(..taken);
                self.outbox = if outbox.is_empty() { Vec::new() } else { outbox };
            }
            if let Some(error) = self.record_failed.take() {
                return Err(Fault::record_lost(error));
            }
            if std::mem::take(&mut self.client_failed) {
                return Err(Fault::new(SessionEnd::ClientGone));
            }
            Ok(Moved::Yes)
        })
    }

    /// Why nothing more comes from the server.
    pub(super) fn server_gone(&self) -> Fault {
        if self.upstream.outpost_lost() { Fault::outpost_lost() } else { Fault::server_gone() }
    }

    /// Passes the server's bytes on and records the outcomes they carry; gives how many were taken.
    fn deliver(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<usize, Fault> {
        // `held`: nothing of a response before the intent behind it is durable.
        if self.durability == Durability::Held
            && let Some(position) = self.forwarded
        {
            self.client.hold_from(self.client.len(), position, self.place());
        }
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..).unwrap_or_default();
            let step = self.tap.server(rest, &mut self.events).map_err(Fault::server_violation)?;
            let pass = rest.get(..step.pass).unwrap_or_default();
            if self.durability == Durability::Both {
                // The end of the response waits for its outcome, so it must not be written first; and without an
                // outcome on the record nothing more of it leaves.
                let end = self.client.len() + step.boundary.unwrap_or(0);
                if self.record_failed.is_none() {
                    self.client.push(pass);
                }
                let outcome = self.record_events();
                if self.record_failed.is_some() {
                    self.client.cut(end);
                } else if let Some(outcome) = outcome {
                    self.client.hold_from(end, outcome, Between::Messages);
                }
            } else {
                // That the client is gone must not cost the outcomes that these bytes carry.
                self.client_failed |= self.client.push_through(cx, pass).is_err();
                self.record_events();
            }
            if !step.reply.is_empty() {
                self.client_failed |= self.client.push_through(cx, &step.reply).is_err();
            }
            taken += step.pass + step.skip;
            if !step.more {
                return Ok(taken);
            }
        }
    }

    /// Writes the outcomes that the server's bytes carried; gives the last one's position. A failure is kept for later:
    /// it must not cost the outcomes behind it.
    fn record_events(&mut self) -> Option<Position> {
        let mut last = None;
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            match event {
                Event::Outcome { key, mut outcome } => {
                    let Some(open) = self.take_open(key) else {
                        continue;
                    };
                    let message = self.message_field(outcome.message.as_deref());
                    let results = entries::results(&mut outcome);
                    let draft = entries::outcome(&outcome, message, &results);
                    match self.log.outcome(open.recorded, &draft) {
                        Ok(position) => last = Some(position),
                        Err(error) => self.record_failed = self.record_failed.take().or(Some(error)),
                    }
                }
                Event::ParseFailed { text, outcome, statement, .. } => {
                    let text = match text {
                        ParseText::Text(text) => self.log.seal(&text),
                        ParseText::Spooled(id) => self.spooled.remove(&id).unwrap_or(entries::NOT_SEEN),
                    };
                    let message = self.message_field(outcome.message.as_deref());
                    let shape = entries::Shape::of_parse(&statement, self.tap.transaction());
                    let draft = entries::outcome(&outcome, message, &[]);
                    let settled = self.marked(|session, glass| {
                        let ruled = Ruled::unasked(session.policing.digest()).while_open(glass);
                        let intent = shape.intent(&text, &entries::NO_PARAMETERS, ruled);
                        session.log.settled(&intent, &draft)
                    });
                    match settled {
                        Ok((_, position)) => last = Some(position),
                        Err(error) => self.record_failed = self.record_failed.take().or(Some(error)),
                    }
                }
                Event::Fatal { code, .. } => self.fatal = Some(code),
                Event::Parameter { .. } | Event::Ready(_) => {}
            }
        }
        self.events = events;
        last
    }

    fn message_field(&mut self, message: Option<&str>) -> Field {
        message.map_or(entries::NO_MESSAGE, |message| self.log.seal(message.as_bytes()))
    }

    fn take_open(&mut self, key: CommandKey) -> Option<Open> {
        // Nearly always the oldest; a suspended portal may outlive its neighbours.
        let at = self.open.iter().position(|open| open.key == key)?;
        self.open.remove(at)
    }

    /// Lets go of response bytes once what they wait for is durable.
    pub(super) fn release(&mut self, cx: &mut Context<'_>) -> Result<Moved, Fault> {
        let Some(position) = self.client.held_for() else {
            return Ok(Moved::No);
        };
        match self.gate.poll(cx, position, Level::Durable) {
            Poll::Pending => Ok(Moved::No),
            Poll::Ready(reached) => {
                reached.map_err(Fault::record_lost)?;
                self.client.release();
                Ok(Moved::Yes)
            }
        }
    }
}

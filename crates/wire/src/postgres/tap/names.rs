//! What the names of prepared statements and portals stand for.
//!
//! A change of a name counts when the server confirms it. Until then it waits in `pending`, in the order of the
//! queue. A lookup may use a pending change of its own segment: if that change fails, the server skips whatever
//! looked it up. A pending change of an earlier segment gives no answer yet.

use super::types::{CommandKey, Reading, TapLimits};
use crate::postgres::lexer::Class;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

/// The server compares no more of a name (`NAMEDATALEN` - 1): two longer names may be one.
const NAME_BYTES_MAX: usize = 63;

/// A statement as a Parse defined it.
#[derive(Debug)]
pub struct Prepared {
    id: u64,
    name: Box<[u8]>,
    /// `None` where it is spooled.
    text: Option<Arc<[u8]>>,
    declared: Box<[u32]>,
    described: OnceLock<Box<[u32]>>,
    class: Class,
}

impl Prepared {
    pub(in crate::postgres) fn new(
        id: u64,
        name: &[u8],
        text: Option<&[u8]>,
        declared: Box<[u32]>,
        class: Class,
    ) -> Arc<Self> {
        let described = OnceLock::new();
        Arc::new(Self { id, name: key(name).into(), text: text.map(Arc::from), declared, described, class })
    }

    /// Its name, as far as the server looks at it.
    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn text(&self) -> Option<&Arc<[u8]>> {
        self.text.as_ref()
    }

    pub(super) fn class(&self) -> Class {
        self.class
    }

    pub(super) fn declared(&self) -> &[u32] {
        &self.declared
    }

    pub(super) fn describe(&self, types: Box<[u32]>) {
        // The same text may be described twice with the same answer; the first stays.
        let _ = self.described.set(types);
    }

    /// Parameter types: what the server described, or else what the client declared.
    pub(crate) fn types(&self) -> &[u32] {
        self.described.get().unwrap_or(&self.declared)
    }

    fn bytes(&self) -> usize {
        self.text.as_ref().map_or(0, |text| text.len()) + self.declared.len() * 4
    }
}

#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) prepared: Arc<Prepared>,
    /// The epoch in which it was defined; 0 where it must be defined again.
    pub(super) epoch: u64,
    /// How the server has read its text, when it was defined last.
    pub(super) reading: Reading,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Portal {
    pub(super) key: CommandKey,
    pub(super) epoch: u64,
    pub(super) class: Class,
}

#[derive(Debug)]
pub(super) enum Change {
    Define(Statement),
    /// Define again under the same name; if it fails, the server has lost it and we have not.
    Renew(Statement),
    Undefine,
    Open(Portal),
    Close,
}

#[derive(Debug)]
struct Pending {
    segment: u64,
    name: Box<[u8]>,
    change: Change,
}

pub(super) enum Lookup<T> {
    Ambiguous,
    Known(T),
    Unknown,
}

#[derive(Debug, Default)]
pub(super) struct Names {
    statements: BTreeMap<Box<[u8]>, Statement>,
    portals: BTreeMap<Box<[u8]>, Portal>,
    pending: VecDeque<Pending>,
    bytes: usize,
    pending_bytes: usize,
}

impl Names {
    pub(super) fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Whether a change of an earlier segment is still pending.
    pub(super) fn unsettled(&self, segment: u64) -> bool {
        self.pending.front().is_some_and(|pending| pending.segment < segment)
    }

    /// Whether the unnamed statement exists or may come to exist.
    pub(super) fn has_unnamed(&self) -> bool {
        !self.pending.is_empty() || self.statements.contains_key(&b""[..])
    }

    pub(super) fn statement(&self, name: &[u8], segment: u64) -> Lookup<Statement> {
        let name = key(name);
        for pending in self.pending.iter().rev() {
            if *pending.name != *name {
                continue;
            }
            let found = match &pending.change {
                Change::Define(statement) | Change::Renew(statement) => Lookup::Known(statement.clone()),
                Change::Undefine => Lookup::Unknown,
                Change::Open(_) | Change::Close => continue,
            };
            return if pending.segment < segment { Lookup::Ambiguous } else { found };
        }
        self.statements.get(name).map_or(Lookup::Unknown, |statement| Lookup::Known(statement.clone()))
    }

    pub(super) fn portal(&self, name: &[u8], segment: u64) -> Lookup<Portal> {
        let name = key(name);
        for pending in self.pending.iter().rev() {
            if *pending.name != *name {
                continue;
            }
            let found = match &pending.change {
                Change::Open(portal) => Lookup::Known(*portal),
                Change::Close => Lookup::Unknown,
                Change::Define(_) | Change::Renew(_) | Change::Undefine => continue,
            };
            return if pending.segment < segment { Lookup::Ambiguous } else { found };
        }
        self.portals.get(name).map_or(Lookup::Unknown, |portal| Lookup::Known(*portal))
    }

    /// The portal's own run cannot have replaced it: it is as good as bound now.
    pub(super) fn refresh_portal(&mut self, name: &[u8], epoch: u64) {
        let name = key(name);
        for pending in self.pending.iter_mut().rev() {
            if *pending.name == *name
                && let Change::Open(portal) = &mut pending.change
            {
                portal.epoch = epoch;
                return;
            }
        }
        if let Some(portal) = self.portals.get_mut(name) {
            portal.epoch = epoch;
        }
    }

    pub(super) fn expect(&mut self, segment: u64, name: &[u8], change: Change) {
        self.pending_bytes += change.bytes();
        self.pending.push_back(Pending { segment, name: key(name).into(), change });
    }

    /// Takes back the change that was expected last, and says of which name.
    pub(super) fn unexpect(&mut self) -> Option<Box<[u8]>> {
        let pending = self.pending.pop_back()?;
        self.pending_bytes -= pending.change.bytes();
        Some(pending.name)
    }

    /// The server discarded all that is pending.
    pub(super) fn forget_pending(&mut self) {
        self.pending.clear();
        self.pending_bytes = 0;
    }

    /// The server did it. Says which command's portal ended with it.
    pub(super) fn confirm(&mut self, limits: &TapLimits) -> Option<CommandKey> {
        let Pending { name, change, .. } = self.take()?;
        match change {
            Change::Define(statement) | Change::Renew(statement) => {
                self.forget(&name);
                let bytes = self.bytes + statement.prepared.bytes();
                if self.statements.len() < limits.names_max && bytes <= limits.names_bytes_max {
                    self.bytes = bytes;
                    self.statements.insert(name, statement);
                }
                None
            }
            Change::Undefine => {
                self.forget(&name);
                None
            }
            Change::Open(portal) => self.portals.insert(name, portal).map(|portal| portal.key),
            Change::Close => self.portals.remove(&name).map(|portal| portal.key),
        }
    }

    /// The server tried and failed.
    pub(super) fn fail(&mut self) {
        let Some(Pending { name, change, .. }) = self.take() else {
            return;
        };
        match change {
            // The unnamed statement is dropped before its successor is looked at.
            Change::Define(_) if name.is_empty() => self.forget(&name),
            Change::Renew(_) => {
                if let Some(statement) = self.statements.get_mut(&name) {
                    statement.epoch = 0;
                }
            }
            Change::Define(_) | Change::Undefine | Change::Open(_) | Change::Close => {}
        }
    }

    /// The server never looked at it.
    pub(super) fn skip(&mut self) {
        self.take();
    }

    /// The transaction ended, and all portals with it.
    pub(super) fn end_transaction(&mut self) {
        self.portals.clear();
    }

    pub(super) fn portals(&self) -> usize {
        self.portals.len()
    }

    fn take(&mut self) -> Option<Pending> {
        let pending = self.pending.pop_front()?;
        self.pending_bytes -= pending.change.bytes();
        Some(pending)
    }

    fn forget(&mut self, name: &[u8]) {
        if let Some(statement) = self.statements.remove(name) {
            self.bytes -= statement.prepared.bytes();
        }
    }
}

impl Change {
    fn bytes(&self) -> usize {
        match self {
            Self::Define(statement) | Self::Renew(statement) => statement.prepared.bytes(),
            Self::Undefine | Self::Open(_) | Self::Close => 0,
        }
    }
}

fn key(name: &[u8]) -> &[u8] {
    name.get(..NAME_BYTES_MAX).unwrap_or(name)
}

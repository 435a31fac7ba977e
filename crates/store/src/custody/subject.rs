//! What there is of a session's content: where its key is, which fields it has and who names them, which blobs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use model::{
    Body, CommandId, ContentKind, Digest, Entry, Field, IdentityName, Kind, Peek, SessionClose, SessionId, SessionOpen,
    Time,
};

use crate::disk::Disk;
use crate::error::StoreError;
use crate::walk::{GroupAt, Step, Tail, Walk};

/// That an entry names a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) command: CommandId,
    pub(crate) role: ContentKind,
    /// The field's number; none if it is absent.
    pub(crate) number: Option<u64>,
}

/// A session's content.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) session: SessionId,
    /// The index of its first entry.
    pub(crate) index: u64,
    pub(crate) slot: u64,
    pub(crate) commitment: Digest,
    pub(crate) connection: String,
    pub(crate) identity: IdentityName,
    /// When it ended; none if it has not.
    pub(crate) closed: Option<Time>,
    /// All fields have numbers below this.
    pub(crate) fields: u64,
    /// The blobs, by the numbers of their fields.
    pub(crate) blobs: BTreeMap<u64, Digest>,
    /// Who names which field, if that was asked for.
    pub(crate) uses: Vec<Use>,
}

/// What is gathered of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gather {
    /// Its blobs and how many fields it has.
    Blobs,
    /// Also who names which field.
    Uses,
}

/// The sessions that are being gathered while the log passes.
pub(crate) struct Gathering {
    what: Gather,
    pub(crate) open: HashMap<SessionId, Subject>,
}

impl Gathering {
    pub(crate) fn new(what: Gather) -> Self {
        Self { what, open: HashMap::new() }
    }

    /// Takes an entry; gives a session whose last entry it was.
    pub(crate) fn entry(
        &mut self,
        index: u64,
        leaf: &[u8],
        wanted: &mut dyn FnMut(&SessionOpen) -> bool,
    ) -> Result<Option<Subject>, StoreError> {
        let Some(peek) = Peek::new(leaf) else {
            return Ok(None);
        };
        let Some((id, _)) = peek.place else {
            return Ok(None);
        };
        if peek.kind != Kind::SessionOpen && !self.open.contains_key(&id) {
            return Ok(None);
        }
        let Entry { time, body } = Entry::decode(leaf).map_err(|source| StoreError::Entry { index, source })?;
        match body {
            Body::SessionOpen(open) if wanted(&open) => {
                self.open.insert(id, Subject::new(index, open));
            }
            Body::SessionClose(SessionClose { .. }) => {
                let closed = self.open.remove(&id);
                return Ok(closed.map(|subject| Subject { closed: Some(time), ..subject }));
            }
            body => body.contents().for_each(|(command, role, field)| self.field(id, command, role, field)),
        }
        Ok(None)
    }

    fn field(&mut self, session: SessionId, command: CommandId, role: ContentKind, field: &Field) {
        let Some(subject) = self.open.get_mut(&session) else {
            return;
        };
        let number = match field {
            Field::Absent(_) => None,
            Field::Sealed(sealed) => {
                subject.fields = subject.fields.max(sealed.number.saturating_add(1));
                Some(sealed.number)
            }
            Field::Blob(blob) => {
                subject.fields = subject.fields.max(blob.number.max(blob.head.number).saturating_add(1));
                subject.blobs.insert(blob.number, blob.sha256);
                Some(blob.number)
            }
        };
        if self.what == Gather::Uses {
            subject.uses.push(Use { command, role, number });
        }
    }
}

impl Subject {
    fn new(index: u64, open: SessionOpen) -> Self {
        Self {
            session: open.link.session,
            index,
            slot: open.key_slot,
            commitment: open.key_commitment,
            connection: open.connection,
            identity: open.identity.name,
            closed: None,
            fields: 0,
            blobs: BTreeMap::new(),
            uses: Vec::new(),
        }
    }
}

/// Finds sessions in the log. Those that have not ended are given without their end; those that are not there, not.
pub(crate) fn find(
    disk: &Arc<dyn Disk>,
    sessions: &BTreeSet<SessionId>,
    what: Gather,
) -> Result<BTreeMap<SessionId, Subject>, StoreError> {
    let mut gathering = Gathering::new(what);
    let mut found = BTreeMap::new();
    pass(disk, 0, &mut |group| {
        for (index, _, leaf) in group.entries() {
            let closed = gathering.entry(index, leaf, &mut |open| sessions.contains(&open.link.session))?;
            found.extend(closed.map(|subject| (subject.session, subject)));
        }
        Ok(if found.len() < sessions.len() { Pass::On } else { Pass::Stop })
    })?;
    found.extend(gathering.open);
    Ok(found)
}

/// Whether a pass over the log goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    On,
    Stop,
}

/// Passes over the log from this entry's segment to its end as it is now.
pub(crate) fn pass(
    disk: &Arc<dyn Disk>,
    from: u64,
    each: &mut dyn FnMut(&GroupAt) -> Result<Pass, StoreError>,
) -> Result<(), StoreError> {
    let mut walk = Walk::new(disk.clone(), from, Tail::Live)?;
    loop {
        match walk.step()? {
            Step::Group(group) => {
                if each(&group)? == Pass::Stop {
                    return Ok(());
                }
            }
            Step::Altered(damage, _) | Step::Damaged(damage) => return Err(damage.into()),
            Step::End(_) => return Ok(()),
        }
    }
}

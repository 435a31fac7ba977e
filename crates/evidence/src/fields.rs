//! Which sensitive content a bundle discloses: the one rule that export and verification share.
//!
//! A key opens one sealed field, and several entries may name the same one. So content that is withheld anywhere in the
//! bundle is withheld everywhere in it.

use std::collections::{BTreeMap, BTreeSet};

use model::{BlobField, Body, ContentKind, Digest, Entry, Erase, Field, SealedField, SessionId};

/// A sealed field: its session and its number there.
pub type FieldId = (SessionId, u64);

/// The parts of a field that have a key of their own.
pub(crate) fn sealed(field: &Field) -> (Option<&SealedField>, Option<&BlobField>) {
    match field {
        Field::Absent(_) => (None, None),
        Field::Sealed(sealed) => (Some(sealed), None),
        Field::Blob(blob) => (Some(&blob.head), Some(blob)),
    }
}

/// What a selection discloses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disclosure {
    /// The fields whose keys belong into the bundle.
    pub fields: BTreeSet<FieldId>,
    /// The blobs that belong into it.
    pub blobs: BTreeMap<Digest, FieldId>,
}

impl Disclosure {
    /// The content of these commands, without what is withheld.
    pub fn new<'a>(
        entries: impl Iterator<Item = &'a Entry> + Clone,
        commands: &BTreeMap<SessionId, BTreeSet<u32>>,
        withheld: &BTreeSet<ContentKind>,
    ) -> Self {
        let all = entries.flat_map(|entry| entry.body.contents());
        let mut kept_back = BTreeSet::new();
        for (command, kind, field) in all.clone() {
            if withheld.contains(&kind) {
                kept_back.extend(numbers(field).map(|number| (command.session, number)));
            }
        }
        let mut disclosure = Self::default();
        for (command, _, field) in all {
            let selected = commands.get(&command.session).is_some_and(|ordinals| ordinals.contains(&command.ordinal));
            let mut ids = numbers(field).map(|number| (command.session, number));
            if selected && !ids.clone().any(|id| kept_back.contains(&id)) {
                if let Field::Blob(blob) = field {
                    disclosure.blobs.insert(blob.sha256, (command.session, blob.number));
                }
                disclosure.fields.extend(ids.by_ref());
            }
        }
        disclosure
    }
}

/// The numbers of a field's keys: content in a blob has two.
pub fn numbers(field: &Field) -> impl Iterator<Item = u64> + Clone + use<> {
    let (sealed, blob) = sealed(field);
    sealed.map(|sealed| sealed.number).into_iter().chain(blob.map(|blob| blob.number))
}

/// What was erased, as far as the entries say so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    sessions: BTreeSet<SessionId>,
    fields: BTreeSet<FieldId>,
}

impl Erased {
    /// What these entries say was erased.
    pub fn new<'a>(entries: impl Iterator<Item = &'a Entry>) -> Self {
        let mut erased = Self::default();
        for entry in entries {
            if let Body::Erase(erase) = &entry.body {
                erased.add(erase);
            }
        }
        erased
    }

    fn add(&mut self, erase: &Erase) {
        match &erase.fields {
            None => _ = self.sessions.insert(erase.session),
            Some(fields) => self.fields.extend(fields.iter().map(|number| (erase.session, *number))),
        }
    }

    /// Whether a field, or the blob that it is the beginning of, was.
    #[must_use]
    pub fn has(&self, session: SessionId, field: &Field) -> bool {
        self.sessions.contains(&session) || numbers(field).any(|number| self.fields.contains(&(session, number)))
    }
}

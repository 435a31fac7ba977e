//! Which sensitive content a bundle discloses: the one rule that export and verification share.
//!
//! A key opens one sealed field, and several entries may name the same one. So content that is withheld anywhere in the
//! bundle is withheld everywhere in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use model::{BlobField, Body, CommandId, Digest, Entry, Erase, Field, SealedField, SessionId};

/// A kind of sensitive content, as it can be withheld.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The messages of the server.
    Message,
    /// What went over the streams of programs, and the digests of files.
    Output,
    /// The parameters of commands.
    Parameters,
    /// The text of commands.
    Statement,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Message, Self::Output, Self::Parameters, Self::Statement];

    /// The kind's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Statement => "statement",
            Self::Parameters => "parameters",
            Self::Message => "message",
            Self::Output => "output",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A sealed field: its session and its number there.
pub type FieldId = (SessionId, u64);

/// The sensitive content of an entry.
pub(crate) fn of(entry: &Entry) -> Vec<(CommandId, Kind, &Field)> {
    match &entry.body {
        Body::Intent(intent) => vec![
            (intent.command, Kind::Statement, &intent.text),
            (intent.command, Kind::Parameters, &intent.parameters),
        ],
        Body::Outcome(outcome) => {
            let transcript = outcome.transcript.iter().map(|transcript| &transcript.content);
            let output = transcript.chain(outcome.file.iter().map(|file| &file.sha256));
            let output = output.map(|field| (outcome.of, Kind::Output, field));
            std::iter::once((outcome.of, Kind::Message, &outcome.message)).chain(output).collect()
        }
        Body::Genesis(_)
        | Body::Start(_)
        | Body::Stop(_)
        | Body::Recovery(_)
        | Body::Heartbeat(_)
        | Body::SessionOpen(_)
        | Body::SessionClose(_)
        | Body::Refused(_)
        | Body::Cancel(_)
        | Body::Erase(_)
        | Body::Hold(_)
        | Body::Witnesses(_)
        | Body::Export(_)
        | Body::Configuration(_)
        | Body::IssuerKey(_)
        | Body::Token(_)
        | Body::Revocation(_)
        | Body::Shared(_)
        | Body::Outpost(_)
        | Body::Approval(_)
        | Body::Passkey(_)
        | Body::BreakGlass(_) => Vec::new(),
    }
}

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
        withheld: &BTreeSet<Kind>,
    ) -> Self {
        let all = entries.flat_map(of);
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

//! What belongs into a bundle: the selected commands, all entries of their sessions, and what puts them in place.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{IsTerminal as _, Write as _};

use evidence::{BUNDLE_BYTES_MAX, Disclosure, Erased, FieldId};
use model::seal::FieldKey;
use model::{
    ApprovalStep, Body, BreakGlassId, BreakGlassStep, ContentKind, Digest, Entry, Evidence, Field, Identity,
    PasskeyAction, SessionId,
};
use store::Reader;

use super::super::selection::Selection;
use super::super::source;
use crate::{Exit, Failure};

/// Between two signs of progress, in entries.
const PROGRESS_ENTRIES: u64 = 20_000;

/// The selected commands.
pub(super) struct Selected {
    pub(super) commands: BTreeMap<SessionId, BTreeSet<u32>>,
    /// Commands that were left out, because their intents are not signed yet.
    pub(super) unsigned: usize,
}

/// Which commands of the first `size` entries are selected.
pub(super) fn select(reader: &Reader, selection: &Selection, size: u64) -> Result<Selected, Failure> {
    let mut selected = Selected { commands: BTreeMap::new(), unsigned: 0 };
    let mut progress = Progress::new("commands looked at");
    for (count, view) in (1..).zip(source::commands(reader, selection)?) {
        let view = view.map_err(source::unreadable)?;
        progress.at(count);
        if view.index < size {
            selected.commands.entry(view.id.session).or_default().insert(view.id.ordinal);
        } else {
            selected.unsigned += 1;
        }
    }
    progress.end();
    Ok(selected)
}

/// The entries that the selection touches.
pub(super) struct Touched {
    /// The log's first entry, and all entries of the sessions.
    entries: BTreeMap<u64, Vec<u8>>,
    /// Starts, stops, recoveries and what the log says of its witnesses.
    around: BTreeMap<u64, (bool, Vec<u8>)>,
    holds: BTreeMap<u64, Vec<u8>>,
    /// The first and the last entry about approvals and break-glass of the sessions.
    people: (u64, u64),
    /// The first and the last entry of the sessions.
    range: (u64, u64),
    /// The last entry that must be covered.
    pub(super) last: u64,
}

/// These sessions, and those in which the approvals were asked for that they used in the first `size` entries: a command
/// is proven to be approved by what it was asked for with, too.
pub(super) fn with_approvals(
    reader: &Reader,
    selected: impl Iterator<Item = SessionId>,
    size: u64,
) -> Result<BTreeSet<SessionId>, Failure> {
    let mut sessions = BTreeSet::new();
    let mut todo: Vec<SessionId> = selected.collect();
    while let Some(session) = todo.pop() {
        if sessions.insert(session) {
            let used = reader.approvals_used(session, size).map_err(source::unreadable)?;
            todo.extend(used.iter().map(|approval| approval.session));
        }
    }
    Ok(sessions)
}

/// Reads the first `size` entries for those of the selected sessions.
pub(super) fn touch(reader: &Reader, sessions: &BTreeSet<SessionId>, size: u64) -> Result<Touched, Failure> {
    let mut touched = Touched {
        entries: BTreeMap::new(),
        around: BTreeMap::new(),
        holds: BTreeMap::new(),
        people: (u64::MAX, 0),
        range: (u64::MAX, 0),
        last: 0,
    };
    let mut left = BUNDLE_BYTES_MAX;
    // By its thumbprint, the newest entry of each key of an issuer: a session that a token proved names one.
    let mut issuer_keys: HashMap<Digest, (u64, Vec<u8>)> = HashMap::new();
    // By the credential's id, the enrolment of each passkey: a signed decision names one.
    let mut passkeys: HashMap<String, (u64, Vec<u8>)> = HashMap::new();
    // The steps of each break-glass, each with the key of whose token it tells, and those that commands here name.
    let mut glasses: HashMap<BreakGlassId, Vec<Step>> = HashMap::new();
    let mut named: BTreeSet<BreakGlassId> = BTreeSet::new();
    let mut progress = Progress::new("entries read");
    for stored in reader.entries(0) {
        let stored = stored.map_err(source::unreadable)?;
        if stored.index >= size {
            break;
        }
        progress.at(stored.index);
        let linked = stored.entry.body.link().is_some_and(|link| sessions.contains(&link.session));
        let index = stored.index;
        match &stored.entry.body {
            Body::Genesis(_) => touched.keep(index, stored.leaf, &mut left)?,
            Body::Erase(erase) if sessions.contains(&erase.session) => {
                touched.last = touched.last.max(index);
                touched.keep(index, stored.leaf, &mut left)?;
            }
            Body::Approval(approval) if sessions.contains(&approval.of.session) => {
                if let ApprovalStep::Decided(vote) = &approval.step {
                    touched.keep_issuer_key(&vote.by, &issuer_keys, &mut left)?;
                    let key = vote.signature.as_ref().and_then(|signature| passkeys.get(&signature.credential));
                    if let Some((index, leaf)) = key {
                        touched.keep(*index, leaf.clone(), &mut left)?;
                    }
                }
                touched.people = (touched.people.0.min(index), index);
                touched.last = touched.last.max(index);
                touched.keep(index, stored.leaf, &mut left)?;
            }
            Body::BreakGlass(glass) => {
                let by = match &glass.step {
                    BreakGlassStep::Opened(opening) => Some(&opening.by),
                    BreakGlassStep::Closed { by, .. } => by.as_deref(),
                    BreakGlassStep::Reviewed(review) => Some(&review.by),
                };
                let key = by.and_then(|by| issuer_key(by, &issuer_keys)).cloned();
                glasses.entry(glass.id).or_default().push(Step { index, leaf: stored.leaf, key });
            }
            Body::IssuerKey(key) => _ = issuer_keys.insert(key.thumbprint, (index, stored.leaf)),
            Body::Passkey(key) => match key.action {
                PasskeyAction::Enrolled => _ = passkeys.insert(key.credential.clone(), (index, stored.leaf)),
                PasskeyAction::Removed => _ = passkeys.remove(&key.credential),
            },
            Body::Hold(_) => _ = touched.holds.insert(index, stored.leaf),
            Body::Start(_) => _ = touched.around.insert(index, (true, stored.leaf)),
            Body::Stop(_) | Body::Recovery(_) | Body::Witnesses(_) => {
                touched.around.insert(index, (false, stored.leaf));
            }
            body if linked => {
                if let Body::SessionOpen(open) = body {
                    touched.keep_issuer_key(&open.identity, &issuer_keys, &mut left)?;
                }
                if let Body::Intent(intent) = body {
                    named.extend(intent.break_glass);
                }
                touched.range = (touched.range.0.min(index), index);
                touched.last = touched.last.max(index);
                touched.keep(index, stored.leaf, &mut left)?;
            }
            _ => {}
        }
    }
    progress.end();
    for Step { index, leaf, key } in named.iter().filter_map(|id| glasses.remove(id)).flatten() {
        if let Some((index, leaf)) = key {
            touched.keep(index, leaf, &mut left)?;
        }
        touched.people = (touched.people.0.min(index), touched.people.1.max(index));
        touched.last = touched.last.max(index);
        touched.keep(index, leaf, &mut left)?;
    }
    Ok(touched)
}

impl Touched {
    fn keep(&mut self, index: u64, leaf: Vec<u8>, left: &mut usize) -> Result<(), Failure> {
        *left = left.checked_sub(leaf.len() + 64).ok_or_else(|| {
            Failure::new("the selected sessions have more than 1 GiB of entries: select less, for example by --since")
        })?;
        self.entries.insert(index, leaf);
        Ok(())
    }

    /// Keeps the key with which somebody's token was signed.
    fn keep_issuer_key(
        &mut self,
        identity: &Identity,
        keys: &HashMap<Digest, (u64, Vec<u8>)>,
        left: &mut usize,
    ) -> Result<(), Failure> {
        let Some((index, leaf)) = issuer_key(identity, keys) else { return Ok(()) };
        self.keep(*index, leaf.clone(), left)
    }

    /// The entries of the bundle, under a checkpoint of this size.
    pub(super) fn within(self, size: u64) -> BTreeMap<u64, Vec<u8>> {
        let (first, last) = (self.range.0.min(self.people.0), self.range.1.max(self.people.1));
        let mut entries = self.entries;
        // The boot clock of an entry belongs to the start before it.
        let start = self.around.range(..first).rev().find(|(_, (is_start, _))| *is_start).map(|(index, _)| *index);
        let around =
            self.around.into_iter().filter(|(index, _)| (first..=last).contains(index) || Some(*index) == start);
        entries.extend(around.map(|(index, (_, leaf))| (index, leaf)));
        // A hold counts until it is released, wherever that is.
        entries.extend(self.holds.into_iter().filter(|(index, _)| *index < size));
        entries
    }
}

/// A step of break-glass.
struct Step {
    index: u64,
    leaf: Vec<u8>,
    /// The entry of the key with which the token was signed of whoever took it.
    key: Option<(u64, Vec<u8>)>,
}

/// The entry of the key with which somebody's token was signed.
fn issuer_key<'a>(identity: &Identity, keys: &'a HashMap<Digest, (u64, Vec<u8>)>) -> Option<&'a (u64, Vec<u8>)> {
    match &identity.proof.evidence {
        Some(Evidence::Token(token)) => keys.get(&token.key),
        Some(Evidence::Certificate(_)) | None => None,
    }
}

/// What opens the disclosed content.
pub(super) struct Opened {
    pub(super) keys: BTreeMap<FieldId, FieldKey>,
    pub(super) blobs: BTreeMap<Digest, Vec<u8>>,
}

/// The keys and the blobs of what is disclosed.
pub(super) fn open(
    reader: &Reader,
    entries: &BTreeMap<u64, Vec<u8>>,
    commands: &BTreeMap<SessionId, BTreeSet<u32>>,
    withheld: &BTreeSet<ContentKind>,
) -> Result<Opened, Failure> {
    let decoded: Result<Vec<Entry>, _> = entries.values().map(|leaf| Entry::decode(leaf)).collect();
    let decoded =
        decoded.map_err(|error| Failure::of(Exit::Integrity, format_args!("the record is damaged: {error}")))?;
    let disclosure = Disclosure::new(decoded.iter(), commands, withheld);
    let erased = Erased::new(decoded.iter());
    let mut opened = Opened { keys: BTreeMap::new(), blobs: BTreeMap::new() };
    for (command, _, field) in decoded.iter().flat_map(|entry| entry.body.contents()) {
        let session = command.session;
        for number in evidence::numbers(field) {
            let id = (session, number);
            if !disclosure.fields.contains(&id) || opened.keys.contains_key(&id) || erased.has(session, field) {
                continue;
            }
            let key = reader.reveal(session, number).map_err(source::unreadable)?;
            opened.keys.insert(id, key.ok_or_else(unreadable)?);
        }
        if let Field::Blob(blob) = field
            && disclosure.blobs.contains_key(&blob.sha256)
            && !erased.has(session, field)
            && !opened.blobs.contains_key(&blob.sha256)
        {
            opened.blobs.insert(blob.sha256, reader.sealed_blob(blob).map_err(source::unreadable)?);
        }
    }
    Ok(opened)
}

fn unreadable() -> Failure {
    Failure::new("the keys of the selected content cannot be read here, or were destroyed a moment ago")
        .hint("--withhold all exports without the content; of what was erased, the record says so within a second")
}

/// Long work shows that it goes on, to somebody who looks.
pub(super) struct Progress {
    watched: bool,
    what: &'static str,
    next: u64,
}

impl Progress {
    pub(super) fn new(what: &'static str) -> Self {
        Self { watched: std::io::stderr().is_terminal(), what, next: PROGRESS_ENTRIES }
    }

    pub(super) fn at(&mut self, count: u64) {
        if self.watched && count >= self.next {
            self.next = count + PROGRESS_ENTRIES;
            let _ = write!(std::io::stderr(), "\r{count} {} \x1b[K", self.what);
        }
    }

    pub(super) fn end(&self) {
        if self.watched && self.next > PROGRESS_ENTRIES {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

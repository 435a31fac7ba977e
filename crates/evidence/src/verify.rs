//! Verification of a bundle: needs nothing but its bytes, and is worth as much as the key that it is verified with.
//!
//! It goes on after the first finding, to name the entry that was altered rather than the file around it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ledger::audit::{Audit, BlobState, Place, Scope, Violation};
use ledger::{Checkpoint, Evaluation, SignedNote, TlogProof, VerifierKey, WitnessPolicy, verify_leaves};
use model::{Body, CommandId, ContentKind, Digest, Entry, Field, ProofMethod, SessionId};
use sha2::{Digest as _, Sha256};

use crate::archive::{self, File};
use crate::content::Keyring;
use crate::entries::{BadLine, Included, read_entries, read_hashes, read_keys};
use crate::fields::{self, Disclosure, Erased, FieldId};
use crate::manifest::Manifest;
use crate::names;
use crate::report::{ApprovalEntry, BreakGlassEntry, Command, Content, Counts, From, Report};

/// What whoever verifies brings along, from somewhere else than the bundle.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// The log's public key.
    pub key: Option<VerifierKey>,
    /// Which witnesses must have cosigned.
    pub policy: Option<WitnessPolicy>,
}

/// Verifies a bundle.
#[must_use]
pub fn verify(bytes: &[u8], trust: &Trust) -> Report {
    let read = archive::read(bytes);
    let list = read.as_deref().unwrap_or_default();
    let files = Files(list.iter().map(|file| (file.name, *file)).collect());
    let own: Option<VerifierKey> = files.text(names::VKEY).and_then(|(_, own)| own.strip_suffix('\n')?.parse().ok());
    let key = trust.key.clone().or_else(|| own.clone());
    let mut state = State::new(key.clone());
    let key_from = if trust.key.is_some() { From::Verifier } else { From::Bundle };
    match (&read, key) {
        (Err(error), _) => state.violate(None, &error.file, error.offset, error.what),
        (Ok(_), Some(key)) if own.as_ref() == Some(&key) => {
            return state.verify(list, &files, &key, trust).report(key_from);
        }
        // With another key, nothing else that could be said would mean anything.
        (Ok(_), Some(_)) if own.is_some() => {
            let what = "it is not the key that you gave: the bundle is of another log, or was not signed by this one";
            state.violate(None, names::VKEY, files.get(names::VKEY).map_or(0, |file| file.offset), what);
        }
        (Ok(_), _) => state.violate(None, names::VKEY, 0, "there is no verifier key"),
    }
    state.report(key_from)
}

struct State {
    audit: Audit,
    /// Whether there is a key at all.
    keyed: bool,
    manifest: Option<Manifest>,
    checkpoint: Option<Checkpoint>,
    witnessed: Option<(Evaluation, From)>,
    unknown_files: Vec<String>,
    left_out: u64,
    disclosure: BTreeMap<ContentKind, Counts>,
    approvals: Vec<ApprovalEntry>,
    break_glass: Vec<BreakGlassEntry>,
    commands: Vec<Command>,
}

/// The files of a bundle, by name.
struct Files<'a>(BTreeMap<&'a str, File<'a>>);

impl<'a> Files<'a> {
    fn get(&self, name: &str) -> Option<File<'a>> {
        self.0.get(name).copied()
    }

    fn text(&self, name: &str) -> Option<(File<'a>, &'a str)> {
        let file = self.get(name)?;
        Some((file, std::str::from_utf8(file.content).ok()?))
    }

    /// The files of a directory, each with the rest of its name.
    fn below(&self, dir: &'static str) -> impl Iterator<Item = (&'a str, File<'a>)> {
        self.0.iter().filter_map(move |(name, file)| Some((name.strip_prefix(dir)?, *file)))
    }
}

impl State {
    fn new(key: Option<VerifierKey>) -> Self {
        let keyed = key.is_some();
        Self {
            audit: Audit::new(Scope::Selection, &key.unwrap_or_else(nobody)),
            keyed,
            manifest: None,
            checkpoint: None,
            witnessed: None,
            unknown_files: Vec::new(),
            left_out: 0,
            disclosure: BTreeMap::new(),
            approvals: Vec::new(),
            break_glass: Vec::new(),
            commands: Vec::new(),
        }
    }

    fn verify(mut self, list: &[File<'_>], files: &Files<'_>, key: &VerifierKey, trust: &Trust) -> Self {
        self.manifest = self.manifest(list);
        if let Some(manifest) = self.manifest.take() {
            self.listed(list, &manifest);
            self.manifest = Some(manifest);
        }
        let unknown = list.iter().filter(|file| !names::is_known(file.name));
        self.unknown_files = unknown.map(|file| file.name.to_owned()).collect();
        self.checkpoint(files, key, trust);
        let Some(file) = files.get(names::ENTRIES) else {
            self.missing(names::ENTRIES);
            return self;
        };
        let (entries, bad) = read_entries(file.content);
        for BadLine { at, index, what } in bad {
            let index = index.or_else(|| place_of(&entries, at));
            self.violate(index, file.name, file.offset + at, &what);
        }
        let keyring = self.keyring(files);
        self.audit(file, &entries, &keyring);
        self.proof(files, &entries);
        self.genesis(file, entries.first(), key);
        self.session_proofs(files, key, &entries);
        if let Some(manifest) = self.manifest.take() {
            self.content(file, &manifest, &entries, &keyring);
            self.manifest = Some(manifest);
        }
        self
    }

    /// Sessions and everything else that entries say of each other: as in any record.
    fn audit(&mut self, file: File<'_>, entries: &[Included<'_>], keyring: &Keyring<'_>) {
        let name: Arc<str> = file.name.into();
        let mut blob = |_: SessionId, blob: &model::BlobField| {
            // One that is here has the name of its content; whether one should be here is another question.
            if keyring.blobs.contains_key(&blob.sha256) { BlobState::Right } else { BlobState::Unchecked }
        };
        for included in entries {
            let offset = u64::try_from(file.offset + included.at).unwrap_or(u64::MAX);
            let place = Place { file: name.clone(), offset, index: included.index };
            self.audit.entry(&place, included.leaf, included.hash, &mut blob);
            let (index, time, leaf) = (included.index, included.entry.time, included.hash);
            match &included.entry.body {
                Body::Approval(approval) => {
                    self.approvals.push(ApprovalEntry { index, time, leaf, approval: approval.clone() });
                }
                Body::BreakGlass(step) => {
                    self.break_glass.push(BreakGlassEntry { index, time, break_glass: step.clone() });
                }
                _ => {}
            }
        }
    }

    fn manifest(&mut self, list: &[File<'_>]) -> Option<Manifest> {
        let names: Vec<&str> = list.iter().take(2).map(|file| file.name).collect();
        if !list.is_empty() && names != [names::README, names::MANIFEST] {
            self.violate(None, "", 0, "a bundle begins with README.txt and manifest.json");
        }
        let file = list.iter().find(|file| file.name == names::MANIFEST)?;
        if !file.intact {
            self.violate(None, file.name, file.offset, "it was altered: its checksum is wrong");
        }
        match Manifest::parse(file.content) {
            Ok(manifest) => Some(manifest),
            Err(what) => {
                self.violate(None, file.name, file.offset, what);
                None
            }
        }
    }

    /// Holds the files against the manifest: the same names, in order, the same bytes.
    fn listed(&mut self, list: &[File<'_>], manifest: &Manifest) {
        let mut listed = manifest.files.iter();
        for file in list.iter().filter(|file| file.name != names::MANIFEST) {
            let Some(expected) = listed.next().filter(|expected| expected.name == file.name) else {
                return self.violate(None, file.name, file.offset, "the manifest does not name it at this place");
            };
            let sha256 = Digest(Sha256::digest(file.content).into());
            if !file.intact || sha256 != expected.sha256 || u64::try_from(file.content.len()) != Ok(expected.bytes) {
                self.violate(
                    None,
                    file.name,
                    file.offset,
                    "it was altered: it is not the file that the manifest names",
                );
            }
        }
        if let Some(missing) = listed.next() {
            self.missing(&missing.name);
        }
        let sorted = manifest.files.iter().skip(1).map(|file| file.name.as_str());
        if !sorted.is_sorted_by(|before, after| before < after) {
            self.violate(None, names::MANIFEST, 0, "the files are not in the order of their names");
        }
    }

    fn checkpoint(&mut self, files: &Files<'_>, key: &VerifierKey, trust: &Trust) {
        let Some((file, note)) = files.text(names::CHECKPOINT) else {
            return self.missing(names::CHECKPOINT);
        };
        match Checkpoint::open(note, key) {
            Ok(checkpoint) => {
                self.audit.expect(checkpoint.clone());
                self.checkpoint = Some(checkpoint);
            }
            Err(error) => return self.violate(None, file.name, file.offset, &error.to_string()),
        }
        let policy = match (&trust.policy, files.text(names::POLICY)) {
            (Some(policy), _) => Some((policy.clone(), From::Verifier)),
            (None, Some((own, text))) => match text.parse::<WitnessPolicy>() {
                Ok(policy) => Some((policy, From::Bundle)),
                Err(error) => {
                    self.violate(None, own.name, own.offset, &error.to_string());
                    None
                }
            },
            (None, None) => None,
        };
        let (Some((policy, from)), Ok(note)) = (policy, SignedNote::parse(note)) else {
            return;
        };
        if !policy.accepts(key) {
            self.violate(None, file.name, file.offset, "the policy does not name the log that signed it");
        }
        let evaluation = policy.evaluate(&note);
        if let Some(name) = evaluation.wrong.first() {
            let what = format!("the cosignature of the witness {name} is wrong");
            self.violate(None, file.name, file.offset, &what);
        }
        self.witnessed = Some((evaluation, from));
    }

    fn proof(&mut self, files: &Files<'_>, entries: &[Included<'_>]) {
        let Some(file) = files.get(names::PROOF) else {
            return self.missing(names::PROOF);
        };
        let Some(checkpoint) = self.checkpoint.clone() else {
            return;
        };
        let leaves: Vec<_> = entries.iter().map(|included| (included.index, included.hash)).collect();
        let proven = match read_hashes(file.content) {
            Some(hashes) => verify_leaves(&leaves, checkpoint.size, &hashes, &checkpoint.root)
                .map_err(|error| format!("the entries are not those of the signed log: {error}")),
            None => Err("it is not a list of hashes".to_owned()),
        };
        if let Err(what) = proven {
            self.violate(None, file.name, file.offset, &what);
        }
    }

    fn genesis(&mut self, file: File<'_>, first: Option<&Included<'_>>, key: &VerifierKey) {
        let what = match first {
            Some(Included { index: 0, entry: Entry { body: Body::Genesis(genesis), .. }, .. }) => {
                if genesis.vkey == key.to_string() {
                    return;
                }
                "it is the first entry of a log with another key"
            }
            Some(_) | None => "a bundle begins with the first entry of its log",
        };
        self.entry(file, first, what);
    }

    /// The standard proof of each session's last entry, under the very checkpoint of the bundle.
    fn session_proofs(&mut self, files: &Files<'_>, key: &VerifierKey, entries: &[Included<'_>]) {
        let mut last = BTreeMap::new();
        for included in entries {
            if let Some(link) = included.entry.body.link() {
                last.insert(names::session_proof(link.session), included);
            }
        }
        let note = files.text(names::CHECKPOINT).map_or("", |(_, note)| note);
        for (name, last) in &last {
            let Some(file) = files.get(name) else {
                self.missing(name);
                continue;
            };
            let proof: Option<TlogProof> = std::str::from_utf8(file.content).ok().and_then(|text| text.parse().ok());
            let what = match proof {
                None => "it is no tlog-proof".to_owned(),
                Some(proof) if proof.index != last.index || proof.checkpoint != note || proof.extra.is_some() => {
                    format!("it is not the proof of entry {} under the bundle's checkpoint", last.index)
                }
                Some(proof) => match proof.verify(&last.hash, key) {
                    Ok(_) => continue,
                    Err(error) => format!("entry {}: {error}", last.index),
                },
            };
            self.violate(None, file.name, file.offset, &what);
        }
        for (_, file) in files.below(names::SESSIONS) {
            if !last.contains_key(file.name) {
                self.violate(None, file.name, file.offset, "no session of the bundle has this name");
            }
        }
    }

    fn keyring<'a>(&mut self, files: &Files<'a>) -> Keyring<'a> {
        let keys = match files.get(names::KEYS) {
            None => BTreeMap::new(),
            Some(file) => read_keys(file.content).unwrap_or_else(|line| {
                self.violate(None, file.name, file.offset + line.at, &line.what);
                BTreeMap::new()
            }),
        };
        let mut blobs = BTreeMap::new();
        for (name, file) in files.below(names::BLOBS) {
            let sha256 = Digest(Sha256::digest(file.content).into());
            if Digest::from_hex(name) == Some(sha256) {
                blobs.insert(sha256, file.content);
            } else {
                self.violate(None, file.name, file.offset, "it is not the content that its name says");
            }
        }
        Keyring { keys, blobs }
    }

    /// Opens what is disclosed, and checks that what is not is accounted for.
    fn content(&mut self, file: File<'_>, manifest: &Manifest, entries: &[Included<'_>], keyring: &Keyring<'_>) {
        if let Some(Checkpoint { origin, size, .. }) = &self.checkpoint
            && (origin, *size) != (&manifest.origin, manifest.size)
        {
            self.violate(None, names::MANIFEST, 0, "it is about another log or another size than the checkpoint");
        }
        self.range(manifest, entries);
        let plain = || entries.iter().map(|included| &included.entry);
        let here: BTreeSet<CommandId> =
            plain().flat_map(|entry| entry.body.contents()).map(|(command, _, _)| command).collect();
        for (session, ordinals) in &manifest.commands {
            let missing = |ordinal: &&u32| !here.contains(&CommandId { session: *session, ordinal: **ordinal });
            if let Some(missing) = ordinals.iter().find(missing) {
                let what = format!("command {session}.{missing} was selected, and is not in the bundle");
                self.violate(None, names::MANIFEST, 0, &what);
            }
        }
        let wanted = Disclosure::new(plain(), &manifest.commands, &manifest.withheld);
        let mut opening = Opening {
            file,
            wanted,
            erased: Erased::new(plain()),
            keyring,
            counts: BTreeMap::new(),
            proofs: BTreeMap::new(),
        };
        let mut used = BTreeSet::new();
        let mut commands: BTreeMap<CommandId, Command> = BTreeMap::new();
        for included in entries {
            self.opened(&mut opening, manifest, included, &mut used, &mut commands);
        }
        for id in keyring.keys.keys().filter(|id| !used.contains(*id)) {
            let what = format!("the key of field {} of session {} opens nothing in the bundle", id.1, id.0);
            self.violate(None, names::KEYS, 0, &what);
        }
        for name in keyring.blobs.keys().filter(|name| !opening.wanted.blobs.contains_key(*name)) {
            let name = format!("{}{}", names::BLOBS, name.hex());
            self.violate(None, &name, 0, "no selected command names it");
        }
        self.disclosure = opening.counts;
        self.commands = commands.into_values().collect();
        self.commands.sort_by_key(|command| command.index);
    }

    /// The range that the manifest says, and how much of it is not here.
    fn range(&mut self, manifest: &Manifest, entries: &[Included<'_>]) {
        let of_sessions = entries.iter().filter(|included| included.entry.body.link().is_some());
        let indexes = of_sessions.map(|included| included.index);
        if indexes.clone().min().zip(indexes.max()) != Some(manifest.range) {
            self.violate(None, names::MANIFEST, 0, "the sessions of the bundle do not have the range that it says");
        }
        let (first, last) = manifest.range;
        let here = entries.iter().filter(|included| (first..=last).contains(&included.index)).count();
        let all = last.saturating_sub(first).saturating_add(1);
        self.left_out = all.saturating_sub(u64::try_from(here).unwrap_or(u64::MAX));
    }

    fn opened(
        &mut self,
        opening: &mut Opening<'_>,
        manifest: &Manifest,
        included: &Included<'_>,
        used: &mut BTreeSet<FieldId>,
        commands: &mut BTreeMap<CommandId, Command>,
    ) {
        if let Body::SessionOpen(open) = &included.entry.body {
            opening.proofs.insert(open.link.session, open.identity.proof.method);
        }
        for (command, kind, field) in included.entry.body.contents() {
            used.extend(fields::numbers(field).map(|number| (command.session, number)));
            let selected = manifest.commands.get(&command.session).is_some_and(|all| all.contains(&command.ordinal));
            let content = match opening.content(command, kind, field, selected) {
                Ok(content) => content,
                Err(what) => {
                    self.entry(opening.file, Some(included), &what);
                    Content::Damaged
                }
            };
            if !selected {
                continue;
            }
            match (&included.entry.body, kind) {
                (Body::Intent(intent), ContentKind::Statement) => {
                    let command = Command {
                        index: included.index,
                        time: included.entry.time,
                        intent: intent.clone(),
                        proof: opening.proofs.get(&command.session).copied(),
                        outcome: None,
                        text: content,
                        parameters: Content::Absent(model::AbsentReason::None),
                        message: Content::Absent(model::AbsentReason::None),
                    };
                    commands.insert(intent.command, command);
                }
                (Body::Intent(intent), _) => {
                    if let Some(command) = commands.get_mut(&intent.command) {
                        command.parameters = content;
                    }
                }
                // Checked like the rest; it is read with `onrecord output`.
                (Body::Outcome(_), ContentKind::Output) => {}
                (Body::Outcome(outcome), _) => {
                    if let Some(command) = commands.get_mut(&outcome.of) {
                        command.outcome = Some(outcome.clone());
                        command.message = content;
                    }
                }
                _ => {}
            }
        }
    }

    fn report(mut self, key_from: From) -> Report {
        if self.manifest.is_none() || self.checkpoint.is_none() {
            // Told already, unless the bundle has neither.
            self.violate(None, names::MANIFEST, 0, "there is no manifest, or no checkpoint that can be verified");
        }
        let root = self.checkpoint.map_or(ledger::EMPTY_ROOT, |checkpoint| checkpoint.root);
        let mut audit = self.audit.finish_selection(root);
        if !self.keyed {
            audit.integrity.vkey.clear();
            audit.integrity.origin.clear();
        }
        Report {
            audit,
            manifest: self.manifest,
            key_from,
            witnessed: self.witnessed,
            left_out: self.left_out,
            unknown_files: self.unknown_files,
            disclosure: self.disclosure,
            approvals: self.approvals,
            break_glass: self.break_glass,
            commands: self.commands,
        }
    }

    fn missing(&mut self, name: &str) {
        self.violate(None, name, 0, "it is missing");
    }

    fn entry(&mut self, file: File<'_>, included: Option<&Included<'_>>, what: &str) {
        let command = included.and_then(|included| match &included.entry.body {
            Body::Intent(intent) => Some(intent.command),
            Body::Outcome(outcome) => Some(outcome.of),
            _ => None,
        });
        let at = included.map_or(0, |included| included.at);
        self.found(included.map(|included| included.index), command, file.name, file.offset + at, what);
    }

    fn violate(&mut self, index: Option<u64>, file: &str, offset: usize, what: &str) {
        self.found(index, None, file, offset, what);
    }

    fn found(&mut self, index: Option<u64>, command: Option<CommandId>, file: &str, offset: usize, what: &str) {
        let offset = u64::try_from(offset).unwrap_or(u64::MAX);
        let violation = Violation { index, command, file: file.to_owned(), offset, what: what.to_owned() };
        self.audit.violate(index.unwrap_or(u64::MAX), violation);
    }
}

/// Stands in for the key of a bundle that has none; it verifies nothing.
#[allow(clippy::expect_used, reason = "the name is one that a key can have")]
fn nobody() -> VerifierKey {
    ledger::SigningKey::new("nobody", &[0; 32]).expect("a name").verifier()
}

/// The opening of fields.
struct Opening<'a> {
    file: File<'a>,
    wanted: Disclosure,
    erased: Erased,
    keyring: &'a Keyring<'a>,
    counts: BTreeMap<ContentKind, Counts>,
    /// How each session's identity was proven.
    proofs: BTreeMap<SessionId, ProofMethod>,
}

impl Opening<'_> {
    fn content(
        &mut self,
        command: CommandId,
        kind: ContentKind,
        field: &Field,
        selected: bool,
    ) -> Result<Content, String> {
        let mut fresh = Counts::default();
        let counts = if selected { self.counts.entry(kind).or_default() } else { &mut fresh };
        if let Field::Absent(reason) = field {
            return Ok(Content::Absent(*reason));
        }
        let session = command.session;
        match self.keyring.open(session, field) {
            Some(Ok(content)) => {
                counts.disclosed += 1;
                Ok(Content::Disclosed(content))
            }
            // The blob of a command that was not selected need not be here, though its key is.
            Some(Err(_)) if !selected && matches!(field, Field::Blob(_)) => Ok(Content::Withheld),
            Some(Err(what)) => Err(format!("the {kind} of command {command}: {what}")),
            None if self.erased.has(session, field) => {
                counts.erased += 1;
                Ok(Content::Erased)
            }
            None if !fields::numbers(field).all(|number| self.wanted.fields.contains(&(session, number))) => {
                counts.withheld += 1;
                Ok(Content::Withheld)
            }
            None => Err(format!(
                "the key of the {kind} of command {command} is missing, and nothing says that it was withheld or erased"
            )),
        }
    }
}

/// The index of the entry whose line is at this place, as far as its neighbours tell.
fn place_of(entries: &[Included<'_>], at: usize) -> Option<u64> {
    let next = entries.iter().find(|included| included.at > at);
    let before = entries.iter().rev().find(|included| included.at < at);
    match (before, next) {
        // Only where the log has exactly one entry in between is it certain which one it is.
        (Some(before), Some(next)) if next.index == before.index + 2 => Some(before.index + 1),
        _ => None,
    }
}

//! Verification of a bundle: needs nothing but its bytes, and is worth as much as the key that it is verified with.
//!
//! It goes on after the first finding, to name the entry that was altered rather than the file around it.

use std::collections::{BTreeMap, BTreeSet};

use ledger::{Checkpoint, Quorum, SignedNote, TlogProof, VerifierKey, WitnessPolicy, verify_leaves};
use model::{Body, CommandId, Digest, Entry, Field, Outcome};
use sha2::{Digest as _, Sha256};

use crate::archive::{self, File};
use crate::content::Keyring;
use crate::entries::{BadLine, Included, read_entries, read_hashes, read_keys};
use crate::fields::{self, Disclosure, Erased, FieldId, Kind};
use crate::manifest::Manifest;
use crate::names;
use crate::report::{Command, Complete, Content, Counts, From, Integrity, Report, Violation};
use crate::sessions::Sessions;

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
    let mut state = State::default();
    let files = match archive::read(bytes) {
        Ok(files) => files,
        Err(error) => {
            state.violate(None, &error.file, error.offset, error.what);
            Vec::new()
        }
    };
    state.verify(&files, trust)
}

#[derive(Default)]
struct State {
    /// The violation, and how well it is known where: lower is better.
    violation: Option<((u64, usize), Violation)>,
    origin: String,
    vkey: String,
    size: u64,
    root: Option<Digest>,
    cosigned: Vec<(String, u64)>,
    quorum: Option<(Quorum, From)>,
    unknown_files: Vec<String>,
    key_from: Option<From>,
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
    fn verify(mut self, list: &[File<'_>], trust: &Trust) -> Report {
        let manifest = self.manifest(list);
        if let Some(manifest) = &manifest {
            self.listed(list, manifest);
        }
        let files = Files(list.iter().map(|file| (file.name, *file)).collect());
        self.known(list);
        let checkpoint = self.checkpoint(&files, trust);
        let (file, (entries, bad)) = match files.get(names::ENTRIES) {
            Some(file) => (file, read_entries(file.content)),
            None => {
                self.missing(names::ENTRIES, !list.is_empty());
                (File { name: names::ENTRIES, content: &[], offset: 0, intact: true }, Default::default())
            }
        };
        for BadLine { at, index, what } in bad {
            let index = index.or_else(|| place_of(&entries, at));
            self.violate(index, file.name, file.offset + at, &what);
        }
        let sessions = Sessions::new(&entries);
        for (place, what) in &sessions.wrong {
            self.entry(file, entries.get(*place), what);
        }
        if let Some(checkpoint) = &checkpoint {
            self.proof(&files, checkpoint, &entries);
            self.genesis(file, entries.first(), checkpoint);
        }
        self.session_proofs(&files, trust, &entries, &sessions);
        let keyring = self.keyring(&files);
        let (disclosure, commands) = match &manifest {
            Some(manifest) => self.content(file, manifest, &entries, &sessions, &keyring),
            None => Default::default(),
        };
        self.report(manifest, &entries, sessions, &keyring, disclosure, commands)
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
            self.missing(&missing.name, true);
        }
        let sorted = manifest.files.iter().skip(1).map(|file| file.name.as_str());
        if !sorted.is_sorted_by(|before, after| before < after) {
            self.violate(None, names::MANIFEST, 0, "the files are not in the order of their names");
        }
    }

    fn known(&mut self, list: &[File<'_>]) {
        for file in list {
            if !names::is_known(file.name) {
                self.unknown_files.push(file.name.to_owned());
            }
        }
    }

    fn checkpoint(&mut self, files: &Files<'_>, trust: &Trust) -> Option<Checkpoint> {
        let (Some((key_file, own)), Some((file, note))) = (files.text(names::VKEY), files.text(names::CHECKPOINT))
        else {
            self.missing("vkey or checkpoint", !files.0.is_empty());
            return None;
        };
        let own: Option<VerifierKey> = own.strip_suffix('\n').and_then(|own| own.parse().ok());
        let Some(own) = own else {
            self.violate(None, key_file.name, key_file.offset, "it is no verifier key");
            return None;
        };
        let key = trust.key.as_ref().unwrap_or(&own);
        self.vkey = key.to_string();
        self.key_from = Some(if trust.key.is_some() { From::Verifier } else { From::Bundle });
        if *key != own {
            let what = format!("the bundle's key is not yours: it says {own}");
            self.violate(None, key_file.name, key_file.offset, &what);
        }
        let checkpoint = match Checkpoint::open(note, key) {
            Ok(checkpoint) => checkpoint,
            Err(error) => {
                self.violate(None, file.name, file.offset, &error.to_string());
                return None;
            }
        };
        self.origin.clone_from(&checkpoint.origin);
        self.size = checkpoint.size;
        self.root = Some(checkpoint.root);
        self.cosignatures(files, trust, file, note, key);
        Some(checkpoint)
    }

    fn cosignatures(&mut self, files: &Files<'_>, trust: &Trust, file: File<'_>, note: &str, key: &VerifierKey) {
        let policy = match (&trust.policy, files.text(names::POLICY)) {
            (Some(policy), _) => Some((policy.clone(), From::Verifier)),
            (None, Some((own, text))) => match text.parse() {
                Ok(policy) => Some((policy, From::Bundle)),
                Err(error) => {
                    let error: ledger::PolicyError = error;
                    self.violate(None, own.name, own.offset, &error.to_string());
                    None
                }
            },
            (None, None) => None,
        };
        let (Some((policy, from)), Ok(note)) = (policy, SignedNote::parse(note)) else {
            return;
        };
        if !policy.logs().is_empty() && !policy.logs().iter().any(|log| log.verifier == *key) {
            self.violate(None, file.name, file.offset, "the policy does not name the log that signed it");
        }
        let evaluation = policy.evaluate(&note);
        if let Some(name) = evaluation.wrong.first() {
            let what = format!("the cosignature of the witness {name} is wrong");
            self.violate(None, file.name, file.offset, &what);
        }
        if evaluation.quorum == Quorum::NotReached && from == From::Verifier {
            self.violate(None, file.name, file.offset, "it has not the cosignatures that your policy asks for");
        }
        self.cosigned = evaluation.cosigned;
        self.quorum = Some((evaluation.quorum, from));
    }

    fn proof(&mut self, files: &Files<'_>, checkpoint: &Checkpoint, entries: &[Included]) {
        let Some(file) = files.get(names::PROOF) else {
            return self.missing(names::PROOF, true);
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

    fn genesis(&mut self, file: File<'_>, first: Option<&Included>, checkpoint: &Checkpoint) {
        let what = match first {
            Some(Included { index: 0, entry: Entry { body: Body::Genesis(genesis), .. }, .. }) => {
                if genesis.origin == checkpoint.origin && genesis.vkey == self.vkey {
                    return;
                }
                "it is the first entry of another log, or of one with another key"
            }
            Some(_) | None => "a bundle begins with the first entry of its log",
        };
        self.entry(file, first, what);
    }

    /// The standard proof of each session's last entry, under the very checkpoint of the bundle.
    fn session_proofs(&mut self, files: &Files<'_>, trust: &Trust, entries: &[Included], sessions: &Sessions) {
        let own = files.text(names::VKEY).and_then(|(_, own)| own.strip_suffix('\n')?.parse().ok());
        let (Some(key), Some((_, note))) = (trust.key.clone().or(own), files.text(names::CHECKPOINT)) else {
            return;
        };
        for (session, place) in &sessions.last {
            let name = names::session_proof(*session);
            let (Some(file), Some(last)) = (files.get(&name), entries.get(*place)) else {
                self.missing(&name, true);
                continue;
            };
            let proof: Option<TlogProof> = std::str::from_utf8(file.content).ok().and_then(|text| text.parse().ok());
            let what = match proof {
                None => "it is no tlog-proof".to_owned(),
                Some(proof) if proof.index != last.index || proof.checkpoint != note || proof.extra.is_some() => {
                    format!("it is not the proof of entry {} under the bundle's checkpoint", last.index)
                }
                Some(proof) => match proof.verify(&last.hash, &key) {
                    Ok(_) => continue,
                    Err(error) => format!("entry {}: {error}", last.index),
                },
            };
            self.violate(None, file.name, file.offset, &what);
        }
        let expected: BTreeSet<String> = sessions.last.keys().map(|session| names::session_proof(*session)).collect();
        for (_, file) in files.below(names::SESSIONS) {
            if !expected.contains(file.name) {
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
    fn content(
        &mut self,
        file: File<'_>,
        manifest: &Manifest,
        entries: &[Included],
        sessions: &Sessions,
        keyring: &Keyring<'_>,
    ) -> (BTreeMap<Kind, Counts>, Vec<Command>) {
        if (manifest.origin.as_str(), manifest.size) != (self.origin.as_str(), self.size) && self.root.is_some() {
            self.violate(None, names::MANIFEST, 0, "it is about another log or another size than the checkpoint");
        }
        let of_sessions = || entries.iter().filter(|included| included.entry.body.link().is_some());
        let range = of_sessions().map(|included| included.index);
        if range.clone().min().zip(range.max()) != Some(manifest.range) {
            self.violate(None, names::MANIFEST, 0, "the sessions of the bundle do not have the range that it says");
        }
        for (session, ordinals) in &manifest.commands {
            let here = |ordinal: &u32| sessions.commands.contains(&CommandId { session: *session, ordinal: *ordinal });
            if let Some(missing) = ordinals.iter().find(|ordinal| !here(ordinal)) {
                let what = format!("command {session}.{missing} was selected, and is not in the bundle");
                self.violate(None, names::MANIFEST, 0, &what);
            }
        }
        let plain = || entries.iter().map(|included| &included.entry);
        let wanted = Disclosure::new(plain(), &manifest.commands, &manifest.withheld);
        let mut opening = Opening { file, wanted, erased: Erased::new(plain()), keyring, counts: BTreeMap::new() };
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
        (opening.counts, commands.into_values().collect())
    }

    fn opened(
        &mut self,
        opening: &mut Opening<'_>,
        manifest: &Manifest,
        included: &Included,
        used: &mut BTreeSet<FieldId>,
        commands: &mut BTreeMap<CommandId, Command>,
    ) {
        for (command, kind, field) in fields::of(&included.entry) {
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
                (Body::Intent(intent), Kind::Statement) => {
                    let command = Command {
                        index: included.index,
                        time: included.entry.time,
                        intent: intent.clone(),
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
                (Body::Outcome(outcome), _) => {
                    if let Some(command) = commands.get_mut(&outcome.of) {
                        command.outcome = Some(Outcome::clone(outcome));
                        command.message = content;
                    }
                }
                _ => {}
            }
        }
    }

    fn report(
        mut self,
        manifest: Option<Manifest>,
        entries: &[Included],
        sessions: Sessions,
        keyring: &Keyring<'_>,
        disclosure: BTreeMap<Kind, Counts>,
        mut commands: Vec<Command>,
    ) -> Report {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let Sessions { mut completeness, mut coverage, .. } = sessions;
        if manifest.is_none() || self.root.is_none() {
            // Each of these was told already, unless the bundle is one of nothing at all.
            self.violate(None, names::MANIFEST, 0, "there is no manifest, or no checkpoint that can be verified");
        }
        if self.violation.is_some() {
            completeness.verdict = Complete::NotEstablished;
        }
        if let Some(Manifest { range: (first, last), .. }) = &manifest {
            let here = entries.iter().filter(|included| (*first..=*last).contains(&included.index)).count();
            coverage.left_out = last.saturating_sub(*first).saturating_add(1).saturating_sub(count(here));
        }
        commands.sort_by_key(|command| command.index);
        Report {
            manifest,
            integrity: Integrity {
                violation: self.violation.map(|(_, violation)| violation),
                entries: count(entries.len()),
                origin: self.origin,
                vkey: self.vkey,
                key_from: self.key_from.unwrap_or(From::Bundle),
                size: self.size,
                root: self.root.unwrap_or(ledger::EMPTY_ROOT),
                cosigned: self.cosigned,
                quorum: self.quorum,
                blobs: count(keyring.blobs.len()),
                unknown_files: self.unknown_files,
            },
            completeness,
            coverage,
            disclosure,
            commands,
        }
    }

    fn missing(&mut self, name: &str, told: bool) {
        if told {
            self.violate(None, name, 0, "it is missing");
        }
    }

    fn entry(&mut self, file: File<'_>, included: Option<&Included>, what: &str) {
        let at = included.map_or(0, |included| included.at);
        let command = included.and_then(|included| match &included.entry.body {
            Body::Intent(intent) => Some(intent.command),
            Body::Outcome(outcome) => Some(outcome.of),
            _ => None,
        });
        self.violate(included.map(|included| included.index), file.name, file.offset + at, what);
        if let Some((_, violation)) = &mut self.violation
            && violation.index == included.map(|included| included.index)
        {
            violation.command = violation.command.or(command);
        }
    }

    /// Keeps the first violation. One that names an entry is better than one that does not.
    fn violate(&mut self, index: Option<u64>, file: &str, offset: usize, what: &str) {
        let rank = (index.unwrap_or(u64::MAX), usize::from(index.is_none()));
        if self.violation.as_ref().is_none_or(|(known, _)| rank < *known) {
            let offset = u64::try_from(offset).unwrap_or(u64::MAX);
            let (file, what) = (file.to_owned(), what.to_owned());
            self.violation = Some((rank, Violation { index, command: None, file, offset, what }));
        }
    }
}

/// The opening of fields.
struct Opening<'a> {
    file: File<'a>,
    wanted: Disclosure,
    erased: Erased,
    keyring: &'a Keyring<'a>,
    counts: BTreeMap<Kind, Counts>,
}

impl Opening<'_> {
    fn content(&mut self, command: CommandId, kind: Kind, field: &Field, selected: bool) -> Result<Content, String> {
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
fn place_of(entries: &[Included], at: usize) -> Option<u64> {
    let next = entries.iter().find(|included| included.at > at);
    let before = entries.iter().rev().find(|included| included.at < at);
    match (before, next) {
        // Only where the log has exactly one entry in between is it certain which one it is.
        (Some(before), Some(next)) if next.index == before.index + 2 => Some(before.index + 1),
        _ => None,
    }
}

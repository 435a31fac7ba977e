//! Which cosignatures are enough: C2SP tlog-policy.
//!
//! A policy names logs and witnesses by their keys, and the quorum: a witness, or a group of which so many must have
//! cosigned. Whoever verifies brings a policy of their own; one that comes with the evidence proves nothing.
//!
//! Keys of types that this program cannot verify (ML-DSA-44, and what comes after it) are read and kept. Their witnesses
//! never count as having cosigned, and their logs never as having signed: what is unknown makes nothing valid.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::cosignature::{COSIGNATURE_V1, CosignerVerifier};
use crate::note::{ED25519, NoteError, SignedNote, VerifierKey, check_name, key_id, split_any_key};
use crate::tlog_proof::decimal;

/// A policy is at most this long, in bytes.
pub const POLICY_BYTES_MAX: usize = 256 * 1024;
/// At most this many logs, witnesses and groups each.
pub const POLICY_ITEMS_MAX: usize = 256;
/// Types of keys that sign notes and never cosign: ECDSA and the tree heads of RFC 6962.
const SIGNING_ONLY: [u8; 3] = [ED25519, 0x02, 0x05];
/// The type of keys that sign and cosign with ML-DSA-44.
const ML_DSA_44: u8 = 0x06;

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessPolicy {
    logs: Vec<PolicyLog>,
    witnesses: Vec<PolicyWitness>,
    other_logs: Vec<Other>,
    other_witnesses: Vec<Other>,
    groups: Vec<Group>,
    quorum: Rule,
}

/// A log or a witness whose key is of a type that this program cannot verify.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Other {
    /// What the policy calls it; a log's is the name of its key.
    name: String,
    vkey: String,
    key: Vec<u8>,
    url: Option<String>,
}

/// A log of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyLog {
    /// Its key.
    pub verifier: VerifierKey,
    /// Where it is.
    pub url: Option<String>,
}

/// A witness of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyWitness {
    /// What the policy calls it.
    pub name: String,
    /// Its key.
    pub verifier: CosignerVerifier,
    /// Where it is asked.
    pub url: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    name: String,
    enough: usize,
    members: Vec<Rule>,
}

/// Who must have cosigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Nobody,
    /// By place in the list of witnesses.
    Witness(usize),
    /// By place in the list of witnesses whose keys cannot be verified.
    Other(usize),
    /// By place in the list of groups.
    Group(usize),
}

/// What a policy says of a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// The witnesses whose cosignature is right, as the policy names them, and when, in seconds since 1970.
    pub cosigned: Vec<(String, u64)>,
    /// The witnesses whose cosignature is wrong. Other programs refuse a note with one, so no quorum is reached with it.
    pub wrong: Vec<String>,
    /// Whether those that cosigned are enough.
    pub quorum: Quorum,
}

/// Whether a quorum was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quorum {
    /// It was.
    Reached,
    /// It was not.
    NotReached,
    /// The policy asks for none.
    NoneRequired,
}

/// What is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Longer than this program reads.
    #[error("a policy has at most {POLICY_BYTES_MAX} bytes and {POLICY_ITEMS_MAX} logs, witnesses and groups each")]
    TooLong,
    /// A line.
    #[error("line {line}: {what}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// No line `quorum`.
    #[error("a policy has exactly one line `quorum <name>`")]
    NoQuorum,
}

impl WitnessPolicy {
    /// The logs that the policy names, whose keys this program can verify. To ask whether one of them is accepted, use
    /// [`WitnessPolicy::accepts`].
    #[must_use]
    pub fn logs(&self) -> &[PolicyLog] {
        &self.logs
    }

    /// Whether the policy accepts checkpoints that this key signed: it names the key, or no log at all.
    #[must_use]
    pub fn accepts(&self, key: &VerifierKey) -> bool {
        let names_none = self.logs.is_empty() && self.other_logs.is_empty();
        names_none || self.logs.iter().any(|log| log.verifier == *key)
    }

    /// The witnesses that the policy knows, whose keys this program can verify.
    #[must_use]
    pub fn witnesses(&self) -> &[PolicyWitness] {
        &self.witnesses
    }

    /// What the policy calls the witnesses whose keys this program cannot verify. They never count.
    pub fn unverifiable(&self) -> impl Iterator<Item = &str> {
        self.other_witnesses.iter().map(|other| other.name.as_str())
    }

    /// Looks which of the witnesses have cosigned a note, and whether they are enough. Whether the log signed it is
    /// another question.
    #[must_use]
    pub fn evaluate(&self, note: &SignedNote) -> Evaluation {
        let found: Vec<_> = self.witnesses.iter().map(|witness| witness.verifier.verify(note)).collect();
        let names = || self.witnesses.iter().map(|witness| witness.name.clone()).zip(&found);
        let satisfied: Vec<bool> = found.iter().map(Result::is_ok).collect();
        let wrong: Vec<String> =
            names().filter(|(_, found)| **found == Err(NoteError::BadSignature)).map(|(name, _)| name).collect();
        let quorum = match self.quorum {
            Rule::Nobody => Quorum::NoneRequired,
            rule if wrong.is_empty() && self.holds(rule, &satisfied) => Quorum::Reached,
            _ => Quorum::NotReached,
        };
        Evaluation {
            cosigned: names().filter_map(|(name, found)| Some((name, *found.as_ref().ok()?))).collect(),
            wrong,
            quorum,
        }
    }

    /// What the policy says where nothing was cosigned at all.
    #[must_use]
    pub fn evaluate_nothing(&self) -> Evaluation {
        let quorum = if self.quorum == Rule::Nobody { Quorum::NoneRequired } else { Quorum::NotReached };
        Evaluation { cosigned: Vec::new(), wrong: Vec::new(), quorum }
    }

    /// Groups name only what stands before them, so this ends.
    fn holds(&self, rule: Rule, satisfied: &[bool]) -> bool {
        match rule {
            Rule::Nobody => true,
            Rule::Witness(at) => satisfied.get(at).copied().unwrap_or(false),
            Rule::Other(_) => false,
            Rule::Group(at) => self.groups.get(at).is_some_and(|group| {
                group.members.iter().filter(|member| self.holds(**member, satisfied)).count() >= group.enough
            }),
        }
    }

    fn name(&self, rule: Rule) -> &str {
        let found = match rule {
            Rule::Nobody => None,
            Rule::Witness(at) => self.witnesses.get(at).map(|witness| witness.name.as_str()),
            Rule::Other(at) => self.other_witnesses.get(at).map(|other| other.name.as_str()),
            Rule::Group(at) => self.groups.get(at).map(|group| group.name.as_str()),
        };
        found.unwrap_or("none")
    }
}

impl FromStr for WitnessPolicy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        if text.len() > POLICY_BYTES_MAX {
            return Err(PolicyError::TooLong);
        }
        let mut reading = Reading::default();
        for (number, line) in (1..).zip(text.split('\n')) {
            reading.line(line).map_err(|what| PolicyError::Line { line: number, what })?;
        }
        let quorum = reading.quorum.ok_or(PolicyError::NoQuorum)?;
        let Reading { logs, witnesses, other_logs, other_witnesses, groups, .. } = reading;
        let most = (logs.len() + other_logs.len()).max(witnesses.len() + other_witnesses.len()).max(groups.len());
        if most > POLICY_ITEMS_MAX {
            return Err(PolicyError::TooLong);
        }
        Ok(Self { logs, witnesses, other_logs, other_witnesses, groups, quorum })
    }
}

#[derive(Default)]
struct Reading {
    logs: Vec<PolicyLog>,
    witnesses: Vec<PolicyWitness>,
    other_logs: Vec<Other>,
    other_witnesses: Vec<Other>,
    groups: Vec<Group>,
    names: BTreeMap<String, (Rule, Listed)>,
    quorum: Option<Rule>,
}

/// Whether a name is a member of a group already: each can be only once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listed {
    Not,
    Already,
}

impl Reading {
    fn line(&mut self, line: &str) -> Result<(), &'static str> {
        if line.bytes().any(|b| (b < 0x20 && b != b'\t') || b == 0x7f) {
            return Err("a policy has no control characters but tabs and newlines");
        }
        let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
        let Some(first) = words.next().filter(|word| !word.starts_with('#')) else {
            return Ok(());
        };
        let rest: Vec<&str> = words.collect();
        match (first, rest.as_slice()) {
            ("log", [vkey]) => self.log(vkey, None),
            ("log", [vkey, url]) => self.log(vkey, Some(url)),
            ("witness", [name, vkey]) => self.witness(name, vkey, None),
            ("witness", [name, vkey, url]) => self.witness(name, vkey, Some(url)),
            ("group", [name, enough, members @ ..]) => self.group(name, enough, members),
            ("quorum", [name]) => self.set_quorum(name),
            _ => Err("a line is `log`, `witness`, `group` or `quorum` with its items"),
        }
    }

    fn log(&mut self, vkey: &str, url: Option<&str>) -> Result<(), &'static str> {
        const WRONG: &str = "not the public key of a log";
        let url = url.map(str::to_owned);
        let (name, key_type, key) = key_of(vkey).ok_or(WRONG)?;
        let others = self.other_logs.iter().map(|log| log.key.as_slice());
        if self.logs.iter().map(|log| log.verifier.key_bytes().as_slice()).chain(others).any(|known| known == key) {
            return Err("another line has the same key");
        }
        match key_type {
            ED25519 => self.logs.push(PolicyLog { verifier: vkey.parse().map_err(|_| WRONG)?, url }),
            COSIGNATURE_V1 => return Err("this is the public key of a witness, not of a log"),
            _ => self.other_logs.push(Other { name: name.to_owned(), vkey: vkey.to_owned(), key, url }),
        }
        Ok(())
    }

    fn witness(&mut self, name: &str, vkey: &str, url: Option<&str>) -> Result<(), &'static str> {
        const WRONG: &str = "not the public key of a witness";
        let (name, url) = (name.to_owned(), url.map(str::to_owned));
        let (_, key_type, key) = key_of(vkey).ok_or(WRONG)?;
        let known = self.witnesses.iter().map(|witness| witness.verifier.key_bytes().as_slice());
        if known.chain(self.other_witnesses.iter().map(|other| other.key.as_slice())).any(|known| known == key) {
            return Err("another line has the same key");
        }
        match key_type {
            COSIGNATURE_V1 => {
                let verifier = vkey.parse().map_err(|_| WRONG)?;
                self.define(&name, Rule::Witness(self.witnesses.len()))?;
                self.witnesses.push(PolicyWitness { name, verifier, url });
            }
            signing if SIGNING_ONLY.contains(&signing) => {
                return Err("this is a key that signs notes; a witness's key has the type 0x04");
            }
            _ => {
                self.define(&name, Rule::Other(self.other_witnesses.len()))?;
                self.other_witnesses.push(Other { name, vkey: vkey.to_owned(), key, url });
            }
        }
        Ok(())
    }

    fn group(&mut self, name: &str, enough: &str, members: &[&str]) -> Result<(), &'static str> {
        let mut rules = Vec::new();
        for member in members {
            let (rule, listed) = self.names.get_mut(*member).ok_or("a member is not defined on a line before")?;
            if *listed == Listed::Already {
                return Err("a name can be a member only once");
            }
            *listed = Listed::Already;
            rules.push(*rule);
        }
        let enough = match enough {
            "any" => 1,
            "all" => rules.len(),
            number => decimal(number)
                .and_then(|number| usize::try_from(number).ok())
                .ok_or("how many are enough is `any`, `all` or a number")?,
        };
        if !(1..=rules.len()).contains(&enough) {
            return Err("as many as are enough must be members, and at least one");
        }
        self.define(name, Rule::Group(self.groups.len()))?;
        self.groups.push(Group { name: name.to_owned(), enough, members: rules });
        Ok(())
    }

    fn set_quorum(&mut self, name: &str) -> Result<(), &'static str> {
        let rule = match name {
            "none" => Rule::Nobody,
            name => self.names.get(name).map(|(rule, _)| *rule).ok_or("the quorum is not defined on a line before")?,
        };
        if self.quorum.replace(rule).is_some() { Err("there is a line `quorum` already") } else { Ok(()) }
    }

    fn define(&mut self, name: &str, rule: Rule) -> Result<(), &'static str> {
        if name == "none" || self.names.insert(name.to_owned(), (rule, Listed::Not)).is_some() {
            return Err("this name is taken");
        }
        Ok(())
    }
}

/// Name, type and bytes of a public key of any type.
fn key_of(vkey: &str) -> Option<(&str, u8, Vec<u8>)> {
    let (name, id, key_type, key) = split_any_key(vkey).filter(|(_, _, _, key)| !key.is_empty())?;
    check_name(name).ok()?;
    // The id of this type must be the usual one; those of others are their own matter.
    (key_type != ML_DSA_44 || id == key_id(name, key_type, &key)).then_some((name, key_type, key))
}

/// The policy in its plainest form: no comments, one space between items.
impl fmt::Display for WitnessPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = |url: &Option<String>| url.as_ref().map_or_else(String::new, |url| format!(" {url}"));
        for log in &self.logs {
            writeln!(f, "log {}{}", log.verifier, url(&log.url))?;
        }
        for log in &self.other_logs {
            writeln!(f, "log {}{}", log.vkey, url(&log.url))?;
        }
        for witness in &self.witnesses {
            writeln!(f, "witness {} {}{}", witness.name, witness.verifier, url(&witness.url))?;
        }
        for other in &self.other_witnesses {
            writeln!(f, "witness {} {}{}", other.name, other.vkey, url(&other.url))?;
        }
        for group in &self.groups {
            let members: Vec<&str> = group.members.iter().map(|member| self.name(*member)).collect();
            writeln!(f, "group {} {} {}", group.name, group.enough, members.join(" "))?;
        }
        writeln!(f, "quorum {}", self.name(self.quorum))
    }
}

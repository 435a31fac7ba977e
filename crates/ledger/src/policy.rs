//! Which cosignatures are enough: C2SP tlog-policy.
//!
//! A policy names logs and witnesses by their keys, and the quorum: a witness, or a group of which so many must have
//! cosigned. Whoever verifies brings a policy of their own; one that comes with the evidence proves nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::cosignature::CosignerVerifier;
use crate::note::{NoteError, SignedNote, VerifierKey};

/// A policy is at most this long, in bytes.
pub const POLICY_BYTES_MAX: usize = 256 * 1024;
/// At most this many logs, witnesses and groups each.
pub const POLICY_ITEMS_MAX: usize = 256;

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessPolicy {
    logs: Vec<PolicyLog>,
    witnesses: Vec<PolicyWitness>,
    groups: Vec<Group>,
    quorum: Rule,
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
    /// By place in the list of groups.
    Group(usize),
}

/// What a policy says of a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// The witnesses whose cosignature is right, as the policy names them, and when, in seconds since 1970.
    pub cosigned: Vec<(String, u64)>,
    /// The witnesses whose cosignature is wrong.
    pub wrong: Vec<String>,
    /// Whether they are enough.
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
    /// The logs that the policy accepts; none if any will do.
    #[must_use]
    pub fn logs(&self) -> &[PolicyLog] {
        &self.logs
    }

    /// The witnesses that the policy knows.
    #[must_use]
    pub fn witnesses(&self) -> &[PolicyWitness] {
        &self.witnesses
    }

    /// Looks which of the witnesses have cosigned a note, and whether they are enough. Whether the log signed it is
    /// another question.
    #[must_use]
    pub fn evaluate(&self, note: &SignedNote) -> Evaluation {
        let found: Vec<_> = self.witnesses.iter().map(|witness| witness.verifier.verify(note)).collect();
        let names = || self.witnesses.iter().map(|witness| witness.name.clone()).zip(&found);
        let satisfied: Vec<bool> = found.iter().map(Result::is_ok).collect();
        let quorum = match self.quorum {
            Rule::Nobody => Quorum::NoneRequired,
            rule if self.holds(rule, &satisfied) => Quorum::Reached,
            _ => Quorum::NotReached,
        };
        Evaluation {
            cosigned: names().filter_map(|(name, found)| Some((name, *found.as_ref().ok()?))).collect(),
            wrong: names().filter(|(_, found)| **found == Err(NoteError::BadSignature)).map(|(name, _)| name).collect(),
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
            Rule::Group(at) => self.groups.get(at).is_some_and(|group| {
                group.members.iter().filter(|member| self.holds(**member, satisfied)).count() >= group.enough
            }),
        }
    }

    fn name(&self, rule: Rule) -> &str {
        let found = match rule {
            Rule::Nobody => None,
            Rule::Witness(at) => self.witnesses.get(at).map(|witness| witness.name.as_str()),
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
        let Reading { logs, witnesses, groups, .. } = reading;
        if logs.len().max(witnesses.len()).max(groups.len()) > POLICY_ITEMS_MAX {
            return Err(PolicyError::TooLong);
        }
        Ok(Self { logs, witnesses, groups, quorum })
    }
}

#[derive(Default)]
struct Reading {
    logs: Vec<PolicyLog>,
    witnesses: Vec<PolicyWitness>,
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
        let verifier: VerifierKey = vkey.parse().map_err(|_| "not the public key of a log (Ed25519)")?;
        if self.logs.iter().any(|log| log.verifier.key_bytes() == verifier.key_bytes()) {
            return Err("another line has the same key");
        }
        self.logs.push(PolicyLog { verifier, url: url.map(str::to_owned) });
        Ok(())
    }

    fn witness(&mut self, name: &str, vkey: &str, url: Option<&str>) -> Result<(), &'static str> {
        let verifier: CosignerVerifier = vkey.parse().map_err(|_| "not the public key of a witness (Ed25519)")?;
        if self.witnesses.iter().any(|witness| witness.verifier.key_bytes() == verifier.key_bytes()) {
            return Err("another line has the same key");
        }
        self.define(name, Rule::Witness(self.witnesses.len()))?;
        self.witnesses.push(PolicyWitness { name: name.to_owned(), verifier, url: url.map(str::to_owned) });
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
            number => number.parse().map_err(|_| "how many are enough is `any`, `all` or a number")?,
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

/// The policy in its plainest form: no comments, one space between items.
impl fmt::Display for WitnessPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = |url: &Option<String>| url.as_ref().map_or_else(String::new, |url| format!(" {url}"));
        for log in &self.logs {
            writeln!(f, "log {}{}", log.verifier, url(&log.url))?;
        }
        for witness in &self.witnesses {
            writeln!(f, "witness {} {}{}", witness.name, witness.verifier, url(&witness.url))?;
        }
        for group in &self.groups {
            let members: Vec<&str> = group.members.iter().map(|member| self.name(*member)).collect();
            writeln!(f, "group {} {} {}", group.name, group.enough, members.join(" "))?;
        }
        writeln!(f, "quorum {}", self.name(self.quorum))
    }
}

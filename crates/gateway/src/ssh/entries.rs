//! From what a client asks for to what policy sees and the record keeps.
//!
//! Pure translation: nothing is decided here but what the gateway can carry at all.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::{
    BreakGlassId, Claim, CommandId, Effect, Facts, Fidelity, Field, Label, Opaque, Operation, Reason, Status, Verdict,
    Via,
};
use policy::{Ruling, Target, TargetParts};
use russh::Sig;
use store::{IntentDraft, OutcomeDraft, SessionStart};
use wire::ssh::terminal::Seen;
use wire::ssh::{scp, sftp};

use super::lines::Line;
use super::program::COMMAND_BYTES_MAX;
use super::session::Said;
use super::upstream::{Staged, Start};
use crate::config::{Host, Shells};

/// The rule that refuses shells where the connection does: nobody decides over what is typed into one before it runs.
const RULE_SHELL: &str = "builtin:shell";
/// The rule that refuses subsystems that the gateway does not know.
const RULE_SUBSYSTEM: &str = "builtin:subsystem";
/// The rule that refuses what is asked of a file that is not open for it.
const RULE_HANDLE: &str = "builtin:file-handle";
/// The rule that refuses to speak another version of SFTP.
const RULE_VERSION: &str = "builtin:file-version";
/// The rule that refuses commands that are longer than is carried.
const RULE_SIZE: &str = "builtin:message-size";
/// A command that hosts read otherwise than it is written.
const RULE_NUL: &str = "builtin:nul";

/// What a client asks for, as policy and record see it.
pub(super) struct Asked {
    pub(super) via: Via,
    /// The command's exact bytes, or the name of a subsystem.
    pub(super) text: Vec<u8>,
    /// What it asks for besides: a JSON object. None where that is nothing.
    pub(super) parameters: Option<Vec<u8>>,
    pub(super) facts: Arc<Facts>,
    /// How exactly it is known.
    pub(super) fidelity: Fidelity,
}

impl Asked {
    /// Of what is to be started.
    pub(super) fn start(Staged { start, env, terminal }: &Staged) -> Self {
        let (via, text, operation, fidelity) = match start {
            Start::Exec(command) => (Via::Exec, command.clone(), Operation::Exec, Fidelity::Exact),
            Start::Subsystem(name) => {
                (Via::Subsystem, name.clone().into_bytes(), Operation::Subsystem, Fidelity::Exact)
            }
            // What it is told to do is not known.
            Start::Shell(_) => (Via::Shell, Vec::new(), Operation::Shell, Fidelity::Opaque),
        };
        let mut parameters = serde_json::Map::new();
        if !env.is_empty() {
            let env = env.iter().map(|(name, value)| (name.clone(), value.clone().into()));
            parameters.insert("env".to_owned(), serde_json::Value::Object(env.collect()));
        }
        if let Some(terminal) = terminal {
            parameters.insert("terminal".to_owned(), terminal.term.clone().into());
        }
        Self { via, text, parameters: json(parameters), facts: program(operation), fidelity }
    }

    /// Of a line that a shell was seen to run: that of the session's command with this number.
    pub(super) fn line(shell: u32, line: Line) -> Self {
        let mut parameters = serde_json::Map::new();
        parameters.insert("shell".to_owned(), shell.into());
        if let Some(directory) = line.directory {
            parameters.insert("directory".to_owned(), String::from_utf8_lossy(&directory).into());
        }
        let fidelity = match line.seen {
            Seen::Marked => Fidelity::Shell,
            Seen::Read | Seen::Screen => Fidelity::Screen,
            Seen::Unmarked => {
                parameters.insert("integration".to_owned(), "unmarked".into());
                Fidelity::Screen
            }
            Seen::Lost => {
                parameters.insert("integration".to_owned(), "lost".into());
                Fidelity::Screen
            }
        };
        let text = line.text.unwrap_or_default();
        Self { via: Via::Line, text, parameters: json(parameters), facts: program(Operation::Line), fidelity }
    }

    /// Of an operation on files. Its text is what it does and to which paths, byte by byte.
    pub(super) fn file(operation: &sftp::Operation) -> Self {
        let opens = operation.kind == sftp::Kind::Open;
        let (verb, does, effects) = match (operation.class, opens) {
            (sftp::Class::Read, true) => ("read", Operation::FileRead, vec![Effect::Read]),
            (sftp::Class::Look | sftp::Class::Read, _) => {
                (operation.kind.as_str(), Operation::FileRead, vec![Effect::Read])
            }
            (sftp::Class::Change, true) => {
                let reads = operation.flags.is_some_and(|flags| flags.names().contains(&"read"));
                let effects = if reads { vec![Effect::Read, Effect::Write] } else { vec![Effect::Write] };
                ("write", Operation::FileWrite, effects)
            }
            (sftp::Class::Change, false) => match operation.kind {
                sftp::Kind::Remove | sftp::Kind::RmDir => {
                    (operation.kind.as_str(), Operation::FileRemove, vec![Effect::Write])
                }
                sftp::Kind::Extended => (operation.kind.as_str(), Operation::FileChange, vec![Effect::Unknown]),
                _ => (operation.kind.as_str(), Operation::FileChange, vec![Effect::Write]),
            },
        };
        let mut text = verb.as_bytes().to_vec();
        for (before, path) in [(" ", &operation.name), (" ", &operation.path), (" -> ", &operation.target)] {
            if let Some(path) = path {
                text.extend_from_slice(before.as_bytes());
                text.extend_from_slice(path);
            }
        }
        let mut parameters = serde_json::Map::new();
        if let Some(flags) = operation.flags {
            parameters.insert("flags".to_owned(), flags.names().into());
        }
        let set = &operation.attributes;
        let numbers = [("size", set.size), ("permissions", set.permissions.map(u64::from))];
        parameters.extend(numbers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))));
        for (name, pair) in [("owner", set.owner), ("times", set.times)] {
            if let Some((one, two)) = pair {
                parameters.insert(name.to_owned(), vec![one, two].into());
            }
        }
        if let Some(copy) = operation.copy {
            let numbers = [("from_offset", copy.from_offset), ("length", copy.length), ("to_offset", copy.to_offset)];
            parameters.extend(numbers.into_iter().map(|(name, value)| (name.to_owned(), value.into())));
        }
        if let Some(data) = operation.data.as_ref().filter(|data| !data.is_empty()) {
            parameters.insert("data".to_owned(), STANDARD.encode(data).into());
        }
        let unknown = effects.contains(&Effect::Unknown);
        let facts = Facts {
            operation: does,
            operations: vec![does],
            effects,
            bounded: true,
            opaque: if unknown { vec![Opaque::Statement] } else { Vec::new() },
            ..Facts::unknown(Opaque::Statement)
        };
        let fidelity = Fidelity::Exact;
        Self { via: Via::File, text, parameters: json(parameters), facts: Arc::new(facts), fidelity }
    }

    /// Of a file that the old `scp` copies. Where the command's path ends and the file's name begins, only the host knows.
    pub(super) fn copy(verb: &str, path: &[u8], towards: &str, file: &scp::File) -> Self {
        let (operation, effect) = match verb {
            "read" => (Operation::FileRead, Effect::Read),
            _ => (Operation::FileWrite, Effect::Write),
        };
        let text = [verb.as_bytes(), b" ", path, towards.as_bytes(), &file.path].concat();
        let mut parameters = serde_json::Map::new();
        parameters.insert("size".to_owned(), file.size.into());
        parameters.insert("permissions".to_owned(), file.mode.into());
        let facts = Facts {
            operation,
            operations: vec![operation],
            effects: vec![effect],
            bounded: true,
            opaque: Vec::new(),
            ..Facts::unknown(Opaque::Statement)
        };
        let fidelity = Fidelity::Exact;
        Self { via: Via::File, text, parameters: json(parameters), facts: Arc::new(facts), fidelity }
    }

    /// The text, if it is one.
    pub(super) fn as_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.text).ok()
    }

    /// Bytes of it that the client sent.
    pub(super) fn bytes(&self) -> usize {
        self.text.len() + self.parameters.as_ref().map_or(0, Vec::len)
    }

    /// The gateway's own rule by which it is refused, whatever a policy says.
    pub(super) fn refused_by(&self, text_bytes_max: usize, shells: Shells) -> Option<&'static str> {
        match self.via {
            Via::Shell if shells == Shells::Refused => Some(RULE_SHELL),
            Via::Subsystem if self.text != b"sftp" => Some(RULE_SUBSYSTEM),
            _ if self.text.len() > text_bytes_max => Some(RULE_SIZE),
            _ if self.text.contains(&0) => Some(RULE_NUL),
            _ => None,
        }
    }

    /// Why, for whoever asked.
    pub(super) fn refusal(&self, rule: &str) -> String {
        match rule {
            RULE_SHELL => {
                "OnRecord carries commands and no shells to this host: give the command with `ssh HOST COMMAND`."
                    .to_owned()
            }
            RULE_SUBSYSTEM => {
                format!("OnRecord does not carry the subsystem \"{}\".", String::from_utf8_lossy(&self.text))
            }
            RULE_NUL => "OnRecord carries no command with a NUL in it: hosts end it there, or break off.".to_owned(),
            _ => format!("OnRecord carries no command of more than {} KiB.", COMMAND_BYTES_MAX / 1024),
        }
    }
}

/// What a program does, its command does not tell.
fn program(operation: Operation) -> Arc<Facts> {
    Arc::new(Facts { operation, operations: vec![operation], bounded: true, ..Facts::unknown(Opaque::Exec) })
}

fn json(object: serde_json::Map<String, serde_json::Value>) -> Option<Vec<u8>> {
    (!object.is_empty()).then(|| serde_json::to_vec(&object).unwrap_or_default())
}

/// The gateway's own rule by which an operation on files is refused.
pub(super) fn rule(refusal: sftp::Refusal) -> &'static str {
    match refusal {
        sftp::Refusal::NotFor | sftp::Refusal::NotOpen | sftp::Refusal::TooManyOpen => RULE_HANDLE,
        sftp::Refusal::Version => RULE_VERSION,
    }
}

/// The intent of what is asked for.
pub(super) fn intent<'a>(
    asked: &Asked,
    text: &'a Field,
    parameters: &'a Field,
    verdict: Verdict,
    said: &'a Said,
    rules: &'a [String],
) -> IntentDraft<'a> {
    let draft = IntentDraft { fidelity: asked.fidelity, ..IntentDraft::new(asked.via, text, parameters) };
    let bytes = u64::try_from(asked.bytes()).unwrap_or(u64::MAX);
    let Some((policy, decision)) = &said.policy else { return IntentDraft { verdict, rules, bytes, ..draft } };
    let wanted = match decision.ruling() {
        Ruling::Allow => Verdict::Allow,
        Ruling::Deny => Verdict::Deny,
        Ruling::Hold => Verdict::Hold,
    };
    IntentDraft {
        verdict,
        rules: if rules.is_empty() { decision.rules() } else { rules },
        effects: Some(&said.facts),
        policy: Some(policy.set.digest()),
        observed: (verdict == Verdict::Allow && wanted != verdict).then_some(wanted),
        bytes,
        ..draft
    }
}

/// The same, under the approval of another command, and while its sender has this break-glass open.
pub(super) fn under(
    draft: IntentDraft<'_>,
    approval: Option<CommandId>,
    break_glass: Option<BreakGlassId>,
) -> IntentDraft<'_> {
    IntentDraft { approval, break_glass, ..draft }
}

/// The outcome of a command that the gateway refused.
pub(super) fn denied(reason: Reason, message: Field) -> OutcomeDraft<'static> {
    OutcomeDraft { reason: Some(reason), message, ..OutcomeDraft::new(Status::Denied) }
}

/// The outcome of a command that was on the record and never went to the host.
pub(super) fn not_forwarded() -> OutcomeDraft<'static> {
    OutcomeDraft { reason: Some(Reason::NotForwarded), ..OutcomeDraft::new(Status::Skipped) }
}

/// The outcome of a command whose end nobody saw.
pub(super) fn unknown(reason: Reason) -> OutcomeDraft<'static> {
    OutcomeDraft { reason: Some(reason), executed: true, ..OutcomeDraft::new(Status::Unknown) }
}

/// What the commands of a session are sent to, as policies see it.
pub(super) fn target(host: &Host, user: &str) -> Target {
    Target::new(TargetParts { name: &host.name, kind: "ssh", labels: &host.labels, database: "", role: user })
}

/// A session's first entry.
pub(super) fn session_open(opening: &super::session::OpeningParts<'_>) -> SessionStart {
    let host = opening.host;
    SessionStart {
        identity: model::Identity::clone(opening.identity),
        connection: host.name.clone(),
        database: None,
        upstream_user: opening.user.to_owned(),
        protocol: "ssh 2.0".to_owned(),
        client: opening.peer.to_string(),
        tls: None,
        claims: vec![Claim { name: Label::new(b"client_version"), value: Label::new(opening.client_version) }],
        durability: host.durability,
        upstream: host.security(),
        outpost: opening.outpost.clone(),
    }
}

/// The name of a signal, without `SIG`.
pub(super) fn signal_name(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => name.chars().filter(char::is_ascii_alphanumeric).take(32).collect(),
        known => format!("{known:?}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use wire::ssh::sftp::{ClientStep, Limits, Looks, Tap};

    /// A packet, of which strings are counted.
    fn packet(kind: u8, id: u32, fields: &[&[u8]]) -> Vec<u8> {
        let mut body = vec![kind];
        body.extend_from_slice(&id.to_be_bytes());
        fields.iter().for_each(|field| body.extend_from_slice(field));
        counted(&body)
    }

    fn counted(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
    }

    /// What is asked for by a packet, where `g` and `h` are open.
    fn asked(request: &[u8]) -> Asked {
        let mut tap = Tap::new(Limits::default(), Looks::Count);
        let _ = tap.client(&packet(1, 3, &[])).unwrap();
        let _ = tap.server(&packet(2, 3, &[])).unwrap();
        for (id, handle) in [(1, b"g"), (2, b"h")] {
            let path = [b"/", &handle[..]].concat();
            let open = packet(3, id, &[&counted(&path), &3u32.to_be_bytes(), &[0; 4]]);
            let ClientStep::Operation(held, _) = tap.client(&open).unwrap() else { panic!("an open is an operation") };
            tap.forward(held);
            let _ = tap.server(&packet(102, id, &[&counted(handle)])).unwrap();
        }
        let ClientStep::Operation(_, operation) = tap.client(request).unwrap() else { panic!("not an operation") };
        Asked::file(&operation)
    }

    fn parameters(asked: &Asked) -> serde_json::Value {
        asked.parameters.as_ref().map_or(serde_json::Value::Null, |json| serde_json::from_slice(json).unwrap())
    }

    #[test]
    fn all_that_an_extension_carries_is_said() {
        let number = |number: u64| number.to_be_bytes();
        let name = counted(b"copy-data");
        let range = [&counted(b"g")[..], &number(1), &number(2), &counted(b"h"), &number(u64::MAX)].concat();
        let copy = asked(&packet(200, 3, &[&name, &range]));
        assert_eq!(copy.text, b"copy-data /g -> /h");
        let ranges = serde_json::json!({"from_offset": 1, "length": 2, "to_offset": u64::MAX});
        assert_eq!(parameters(&copy), ranges);

        let name = counted(b"unheard-of@example.com");
        let unknown = asked(&packet(200, 3, &[&name, b"\0\xff/etc"]));
        assert_eq!(unknown.text, b"extended unheard-of@example.com");
        assert_eq!(parameters(&unknown), serde_json::json!({"data": "AP8vZXRj"}));
        assert_eq!(parameters(&asked(&packet(200, 3, &[&name]))), serde_json::Value::Null);
    }
}

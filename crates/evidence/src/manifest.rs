//! `manifest.json`: what the bundle is about, and every other file by its digest.
//!
//! It has exactly one encoding, a line for each item, so that people read it and programs compare it. It proves nothing
//! by itself: what it says of the entries is held against them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use model::{ContentKind, Digest, SessionId};
use serde::Deserialize;

pub(crate) const FORMAT: &str = "onrecord evidence";
/// The version of the profile that this program writes and reads.
pub(crate) const VERSION: u32 = 1;

/// Ordinals of commands, from the first to the last of each run.
type Runs = Vec<(u32, u32)>;

/// What a bundle is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The program that wrote it.
    pub program: String,
    /// The log's name.
    pub origin: String,
    /// How many entries the checkpoint is about.
    pub size: u64,
    /// What was asked for, as a command line would say it.
    pub selection: String,
    /// The first and the last entry of the sessions that the selection touches.
    pub range: (u64, u64),
    /// Kinds of content that were left out on purpose.
    pub withheld: BTreeSet<ContentKind>,
    /// The commands that were selected.
    pub commands: BTreeMap<SessionId, BTreeSet<u32>>,
    /// Every other file.
    pub files: Vec<Listed>,
}

/// A file of the bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// How many bytes it has.
    pub bytes: u64,
    /// Their SHA-256.
    pub sha256: Digest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    format: String,
    version: u32,
    program: String,
    origin: String,
    size: u64,
    selection: String,
    range: (u64, u64),
    withheld: Vec<String>,
    commands: Vec<ReadCommands>,
    files: Vec<ReadFile>,
}

#[derive(Deserialize)]
struct Version {
    format: String,
    version: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadCommands {
    session: String,
    ordinals: Runs,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadFile {
    name: String,
    bytes: u64,
    sha256: String,
}

impl Manifest {
    /// Reads what [`Manifest::text`] writes, and nothing else.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        const MALFORMED: &str = "it has not the form of a manifest";
        let version: Version = serde_json::from_slice(bytes).map_err(|_| MALFORMED)?;
        if version.format != FORMAT {
            return Err("it is not the manifest of an evidence bundle");
        }
        if version.version != VERSION {
            return Err("the bundle has a version that this program does not know: use a newer one");
        }
        let read: Read = serde_json::from_slice(bytes).map_err(|_| MALFORMED)?;
        let manifest = Self::of(read).ok_or(MALFORMED)?;
        // Writing it again settles every question of form at once: order, spaces, escapes, ranges.
        if manifest.text().as_bytes() == bytes { Ok(manifest) } else { Err(MALFORMED) }
    }

    fn of(read: Read) -> Option<Self> {
        let mut commands = BTreeMap::new();
        // Every command has at least an entry of some bytes, so that more than this cannot be in a bundle.
        let mut left = crate::archive::BUNDLE_BYTES_MAX / 64;
        for ReadCommands { session, ordinals } in read.commands {
            let mut set = BTreeSet::new();
            for (first, last) in ordinals {
                left = left.checked_sub(usize::try_from(last.checked_sub(first)?).ok()?.checked_add(1)?)?;
                set.extend(first..=last);
            }
            commands.insert(session.parse().ok()?, set);
        }
        let files = read
            .files
            .into_iter()
            .map(|file| Some(Listed { name: file.name, bytes: file.bytes, sha256: Digest::from_hex(&file.sha256)? }));
        debug_assert_eq!((read.format.as_str(), read.version), (FORMAT, VERSION));
        Some(Self {
            program: read.program,
            origin: read.origin,
            size: read.size,
            selection: read.selection,
            range: read.range,
            withheld: read.withheld.iter().map(|kind| ContentKind::parse(kind)).collect::<Option<_>>()?,
            commands,
            files: files.collect::<Option<_>>()?,
        })
    }

    pub(crate) fn text(&self) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut out = String::from("{\n");
        let (first, last) = self.range;
        let withheld: Vec<String> = self.withheld.iter().map(|kind| quoted(kind.as_str())).collect();
        let mut line = |key: &str, value: &str| _ = writeln!(out, "\"{key}\": {value},");
        line("format", &quoted(FORMAT));
        line("version", &VERSION.to_string());
        line("program", &quoted(&self.program));
        line("origin", &quoted(&self.origin));
        line("size", &self.size.to_string());
        line("selection", &quoted(&self.selection));
        line("range", &format!("[{first}, {last}]"));
        line("withheld", &format!("[{}]", withheld.join(", ")));
        let commands = self.commands.iter().map(|(session, ordinals)| {
            let runs: Vec<String> = runs(ordinals).iter().map(|(first, last)| format!("[{first}, {last}]")).collect();
            format!("{{\"session\": \"{session}\", \"ordinals\": [{}]}}", runs.join(", "))
        });
        let files = self.files.iter().map(|file| {
            let (name, sha256) = (quoted(&file.name), file.sha256.hex());
            format!("{{\"name\": {name}, \"bytes\": {}, \"sha256\": \"{sha256}\"}}", file.bytes)
        });
        line("commands", &list(commands));
        let files = list(files);
        let _ = write!(out, "\"files\": {files}\n}}\n");
        out
    }

    /// How many commands were selected.
    #[must_use]
    pub fn count(&self) -> usize {
        self.commands.values().map(BTreeSet::len).sum()
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    if items.is_empty() { "[]".to_owned() } else { format!("[\n{}\n]", items.join(",\n")) }
}

fn runs(ordinals: &BTreeSet<u32>) -> Runs {
    let mut runs: Runs = Vec::new();
    for ordinal in ordinals {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*ordinal) => *last = *ordinal,
            _ => runs.push((*ordinal, *ordinal)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            program: "onrecord 0.1.0".to_owned(),
            origin: "gateway.example.com/1".to_owned(),
            size: 90,
            selection: "--contains \"a\u{202e}\"".to_owned(),
            range: (3, 80),
            withheld: [ContentKind::Parameters].into(),
            commands: [(SessionId::from_bytes([1; 16]), [1, 2, 3, 7].into())].into(),
            files: vec![Listed { name: "vkey".to_owned(), bytes: 3, sha256: Digest([5; 32]) }],
        }
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let manifest = manifest();
        let text = manifest.text();
        assert!(text.contains("\"ordinals\": [[1, 3], [7, 7]]"), "{text}");
        assert_eq!(Manifest::parse(text.as_bytes()).unwrap(), manifest);
        for (from, to) in [
            ("\"version\": 1", "\"version\": 2"),
            ("\"version\": 1", "\"version\": 1, \"more\": 1"),
            ("[[1, 3], [7, 7]]", "[[1, 2], [3, 3], [7, 7]]"),
            ("[[1, 3], [7, 7]]", "[[7, 7], [1, 3]]"),
            ("[[1, 3], [7, 7]]", "[[0, 4294967295]]"),
            ("[[1, 3], [7, 7]]", "[[3, 1]]"),
            ("\"size\": 90", "\"size\":90"),
            ("\"parameters\"", "\"secrets\""),
        ] {
            let other = text.replace(from, to);
            assert!(other != text && Manifest::parse(other.as_bytes()).is_err(), "{to}");
        }
    }
}

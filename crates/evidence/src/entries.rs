//! The bundle's own text files: entries, proof, field keys. A line for each item, in order, nothing else.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ledger::leaf_hash;
use model::seal::FieldKey;
use model::{Digest, Entry, SessionId};

use crate::fields::FieldId;

/// An entry of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Included<'a> {
    pub(crate) index: u64,
    pub(crate) leaf: &'a [u8],
    /// The hash of the leaf as it is in the bundle.
    pub(crate) hash: Digest,
    /// Where its line begins in the file.
    pub(crate) at: usize,
    pub(crate) entry: Entry,
}

/// A line that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadLine {
    pub(crate) at: usize,
    /// The entry that it is or should be about.
    pub(crate) index: Option<u64>,
    pub(crate) what: String,
}

/// `index SP hash SP leaf LF` for each entry.
pub(crate) fn write_entry(index: u64, leaf: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{index} {} ", leaf_hash(leaf).base64()).as_bytes());
    out.extend_from_slice(leaf);
    out.push(b'\n');
}

/// Reads `entries.txt`, and says of every line that is bad why it is.
pub(crate) fn read_entries(bytes: &[u8]) -> (Vec<Included<'_>>, Vec<BadLine>) {
    let (mut entries, mut bad) = (Vec::new(), Vec::new());
    let mut next = 0;
    for (at, line) in lines(bytes) {
        match entry(at, line, next) {
            Ok(included) => {
                next = included.index.saturating_add(1);
                entries.push(included);
            }
            Err(line) => bad.push(line),
        }
    }
    (entries, bad)
}

fn entry<'a>(at: usize, line: Result<&'a [u8], &'static str>, next: u64) -> Result<Included<'a>, BadLine> {
    let bad = |index: Option<u64>, what: &dyn ToString| BadLine { at, index, what: what.to_string() };
    let line = line.map_err(|what| bad(None, &what))?;
    let form = "a line has an index, a hash and an entry";
    let (index, rest) = word(line).ok_or_else(|| bad(None, &form))?;
    let index = std::str::from_utf8(index).ok().and_then(decimal).ok_or_else(|| bad(None, &form))?;
    let (hash, leaf) = word(rest).ok_or_else(|| bad(Some(index), &form))?;
    let hash = std::str::from_utf8(hash).ok().and_then(Digest::from_base64);
    let hash = hash.ok_or_else(|| bad(Some(index), &form))?;
    let found = leaf_hash(leaf);
    if found != hash {
        return Err(bad(Some(index), &"it was altered: its hash is not the one that is written beside it"));
    }
    let entry = Entry::decode(leaf).map_err(|error| bad(Some(index), &error))?;
    if index < next {
        return Err(bad(Some(index), &"the entries are not in the order of their indexes"));
    }
    Ok(Included { index, leaf, hash, at, entry })
}

/// A hash in base64 on each line.
pub(crate) fn write_hashes(hashes: &[Digest]) -> String {
    hashes.iter().fold(String::new(), |mut out, hash| {
        let _ = writeln!(out, "{}", hash.base64());
        out
    })
}

/// Reads `proof.txt`.
pub(crate) fn read_hashes(bytes: &[u8]) -> Option<Vec<Digest>> {
    lines(bytes).map(|(_, line)| Digest::from_base64(std::str::from_utf8(line.ok()?).ok()?)).collect()
}

/// `session SP number SP key LF` for each field.
pub(crate) fn write_keys(keys: &BTreeMap<FieldId, FieldKey>) -> String {
    keys.iter().fold(String::new(), |mut out, ((session, number), key)| {
        let _ = writeln!(out, "{session} {number} {}", STANDARD.encode(key.bytes()));
        out
    })
}

/// Reads `keys.txt`.
pub(crate) fn read_keys(bytes: &[u8]) -> Result<BTreeMap<FieldId, FieldKey>, BadLine> {
    let mut keys = BTreeMap::new();
    for (at, line) in lines(bytes) {
        let bad = |what: &str| BadLine { at, index: None, what: what.to_owned() };
        let read = line.ok().and_then(key).ok_or_else(|| bad("a line has a session, a number and a key"))?;
        if keys.last_key_value().is_some_and(|(last, _)| *last >= read.0) {
            return Err(bad("the keys are not in order"));
        }
        keys.insert(read.0, read.1);
    }
    Ok(keys)
}

fn key(line: &[u8]) -> Option<(FieldId, FieldKey)> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let session: SessionId = words.next()?.parse().ok()?;
    let number = decimal(words.next()?)?;
    let key = Digest::from_base64(words.next()?)?;
    words.next().is_none().then_some(((session, number), FieldKey::new(key.0)))
}

/// The lines, each with its place; the last one must end too.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, Result<&[u8], &'static str>)> {
    let mut at = 0;
    bytes.split_inclusive(|byte| *byte == b'\n').map(move |line| {
        let start = at;
        at += line.len();
        (start, line.strip_suffix(b"\n").ok_or("the file is cut off"))
    })
}

fn word(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = line.iter().position(|byte| *byte == b' ')?;
    Some((line.get(..at)?, line.get(at + 1..)?))
}

/// An ASCII decimal without leading zeros.
fn decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()));
    text.parse().ok().filter(|_| canonical)
}

//! What each version added to the format, byte for byte: every later version reads and writes it so.
#![allow(clippy::unwrap_used)]

mod v0_2;
mod v0_3;
mod v0_4;
mod v0_5;
mod v0_6;

use model::Entry;

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

fn held_to(file: &str, entries: &[Entry]) {
    let file = std::fs::read_to_string(format!("{DIRECTORY}/{file}")).unwrap();
    let lines: Vec<&str> = file.lines().collect();
    assert_eq!(lines.len(), entries.len());
    for (line, entry) in lines.into_iter().zip(entries) {
        assert_eq!(Entry::decode(line.as_bytes()).as_ref(), Ok(entry), "{line}");
        let mut leaf = Vec::new();
        entry.encode(&mut leaf);
        assert_eq!(String::from_utf8(leaf).unwrap(), line);
    }
}

#[test]
fn what_0_2_wrote_reads_and_is_written_so() {
    held_to("entries-0.2.ndjson", &v0_2::entries());
}

#[test]
fn what_0_3_wrote_reads_and_is_written_so() {
    held_to("entries-0.3.ndjson", &v0_3::entries());
}

#[test]
fn what_0_4_wrote_reads_and_is_written_so() {
    held_to("entries-0.4.ndjson", &v0_4::entries());
}

#[test]
fn what_0_5_wrote_reads_and_is_written_so() {
    held_to("entries-0.5.ndjson", &v0_5::entries());
}

#[test]
fn what_0_6_wrote_reads_and_is_written_so() {
    held_to("entries-0.6.ndjson", &v0_6::entries());
}

/// How the newest file was made. Never run again: another version gets a file of its own.
#[test]
#[ignore = "makes the golden file, once per version of the format"]
fn make_0_6() {
    let file = format!("{DIRECTORY}/entries-0.6.ndjson");
    assert!(!std::path::Path::new(&file).exists(), "golden files are never made again");
    let mut lines = Vec::new();
    for entry in v0_6::entries() {
        entry.encode(&mut lines);
        lines.push(b'\n');
    }
    std::fs::write(file, lines).unwrap();
}

//! Golden transcripts, captured from PostgreSQL 15: `C>` is what the client sent, `S>` what the server sent, `=` what
//! the tap makes of it. Any split of the bytes gives the same.
//!
//! `ONRECORD_BLESS=1 cargo test -p wire --test transcripts` writes the `=` lines anew; read the difference.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::path::Path;
use support::Session;

struct Transcript {
    lines: Vec<String>,
    sends: Vec<(char, Vec<u8>)>,
    expected: Vec<String>,
}

fn read(path: &Path) -> Transcript {
    let text = std::fs::read_to_string(path).unwrap();
    let mut transcript = Transcript { lines: Vec::new(), sends: Vec::new(), expected: Vec::new() };
    for line in text.lines() {
        if let Some(expected) = line.strip_prefix("= ") {
            transcript.expected.push(expected.to_owned());
            continue;
        }
        transcript.lines.push(line.to_owned());
        for side in ['C', 'S'] {
            if let Some(hex) = line.strip_prefix(&format!("{side}> ")) {
                let hex = hex.split('#').next().unwrap().trim();
                transcript.sends.push((side, unhex(hex)));
            }
        }
    }
    transcript
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[derive(PartialEq)]
struct Said {
    log: Vec<String>,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
}

impl Said {
    /// A client that had to wait goes on somewhere in the middle of the server's bytes: only the order within each
    /// direction is given. Where it waits for room, a Flush of ours goes with it.
    fn by_direction(mut self) -> Self {
        let mut rest = std::mem::take(&mut self.to_server);
        while let Some(length) = rest.get(1..5) {
            let end = 1 + u32::from_be_bytes(length.try_into().unwrap()) as usize;
            let later = rest.split_off(end.min(rest.len()));
            if rest != b"H\0\0\0\x04" {
                self.to_server.extend_from_slice(&rest);
            }
            rest = later;
        }
        self.log.sort_by_key(|line| {
            ["outcome", "ready", "parse", "parameter", "fatal"].iter().any(|word| line.starts_with(word))
        });
        self
    }
}

/// What is said in the end.
fn replay(sends: &[(char, Vec<u8>)], cut: impl Fn(usize, usize) -> usize) -> Said {
    let mut session = Session::new(support::limits());
    'all: for (index, (side, bytes)) in sends.iter().enumerate() {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(cut(index, bytes.len() - rest.len()).clamp(1, rest.len()));
            let done = match side {
                'C' => session.client(now),
                _ => session.server(now),
            };
            if done.is_err() {
                break 'all;
            }
            rest = later;
        }
    }
    let open = session.tap.abandon();
    if !open.is_empty() {
        session.log.push(format!("abandoned {:?}", open.iter().map(|key| key.0).collect::<Vec<_>>()));
    }
    Said { log: session.log, to_server: session.to_server, to_client: session.to_client }
}

fn transcripts() -> Vec<std::path::PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 10);
    paths
}

#[test]
fn transcripts_give_what_they_say() {
    for path in transcripts() {
        let transcript = read(&path);
        let Said { log, .. } = replay(&transcript.sends, |_, _| usize::MAX);
        if std::env::var_os("ONRECORD_BLESS").is_some() {
            let mut text = transcript.lines.join("\n");
            for line in &log {
                text.push_str("\n= ");
                text.push_str(line);
            }
            std::fs::write(&path, text + "\n").unwrap();
            continue;
        }
        assert_eq!(log, transcript.expected, "{}", path.display());
    }
}

#[test]
fn any_split_gives_the_same() {
    for path in transcripts() {
        let transcript = read(&path);
        let same = |cut: &dyn Fn(usize, usize) -> usize, how: &str| {
            let (whole, cut) = (replay(&transcript.sends, |_, _| usize::MAX), replay(&transcript.sends, cut));
            let (whole, cut) = (whole.by_direction(), cut.by_direction());
            assert_eq!(cut.log, whole.log, "{how}: {}", path.display());
            assert!(cut == whole, "{how}: {}", path.display());
        };
        same(&|_, _| 1, "byte by byte");
        for (index, (_, bytes)) in transcript.sends.iter().enumerate() {
            for cut in 1..bytes.len().min(400) {
                let cut_here = |at, start| {
                    if at == index && start == 0 { cut } else { usize::MAX }
                };
                same(&cut_here, &format!("send {index} cut at {cut}"));
            }
        }
    }
}

//! What the fuzz target `playback` runs on any bytes: everything here that works on what a program wrote.
//!
//! Nothing may panic, and what is drawn may do nothing but draw.

use model::transcript::{Frame, Reader};

use super::canvas::{self, Canvas};
use super::cast::{self, About, Version};
use super::lines::{Lines, Search, StreamSearch};
use super::sieve::Sieve;
use super::{Emulator, Frames, Mark, Utf8};

/// Draws, reads and writes out the bytes: as a transcript, and as the output of a program in a terminal whose size the first
/// two bytes say.
pub fn everything(data: &[u8]) {
    let mut frames = Vec::new();
    let _ = Reader::default().push(data, |frame| frames.push(frame));
    shown(frames);
    if let [columns, rows, written @ ..] = data {
        let size = Frame::Size { at_us: 0, columns: u32::from(*columns), rows: u32::from(*rows) };
        let halves = written.split_at(written.len() / 2);
        let bytes = |bytes: &[u8]| Frame::Bytes {
            stream: model::transcript::Stream::Stdout,
            at_us: u64::from(*rows),
            bytes: bytes.to_vec(),
        };
        let narrow = Frame::Size { at_us: 0, columns: u32::from(*rows), rows: u32::from(*columns) };
        shown(vec![size, bytes(halves.0), narrow, bytes(halves.1)]);
    }
}

fn shown(frames: Vec<Frame>) {
    let mut emulator = Emulator::default();
    let mut canvas = Canvas::new(37, 11, true);
    let mut lines = Lines::new(|line: &str| assert!(!line.contains('\n'), "{line:?} is one line"));
    let (mut search, mut stream) = (Search::new("needle"), StreamSearch::new("needle"));
    for frame in &frames {
        match frame {
            Frame::Bytes { bytes, .. } => {
                emulator.write(bytes, (&mut lines, &mut search));
                stream.push(bytes);
                let sieved = Sieve::default().push(&Utf8::default().push(bytes));
                assert_eq!(Sieve::default().push(&sieved), sieved, "what was let through is let through");
            }
            Frame::Size { columns, rows, .. } => emulator.resize(*columns, *rows, (&mut lines, &mut search)),
            Frame::End { .. } => {}
        }
        let drawn = canvas.draw(&emulator, None);
        assert!(canvas::is_safe(&drawn), "{drawn:?} is drawn");
    }
    lines.finish(emulator.terminal());
    let mut tape = Frames::from(frames);
    for version in [Version::V2, Version::V3] {
        let about = About {
            title: String::new(),
            began_us: 0,
            duration_us: 0,
            terminal: None,
            exit: None,
            marks: vec![Mark { at_us: 1, text: "line".to_owned() }],
        };
        let mut out = Vec::new();
        let written = cast::write(&mut tape, about, version, &mut out);
        assert!(written.is_ok(), "nothing can fail in memory");
        for line in out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let value: Result<serde_json::Value, _> = serde_json::from_slice(line);
            assert!(value.is_ok(), "a line is JSON");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::everything;

    /// Pieces that a terminal makes something of, so that more than text comes of them.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let known = [
            "\x1b[",
            "\x1b]",
            "\x1bP",
            "\x1b_",
            "\x1b\\",
            "\x1b",
            "\x07",
            "\u{9b}",
            "\u{9d}",
            "\u{9c}",
            ";",
            ":",
            "?",
            "0",
            "1",
            "5",
            "7",
            "12",
            "37",
            "999",
            "65535",
            "A",
            "B",
            "C",
            "D",
            "H",
            "J",
            "K",
            "L",
            "M",
            "P",
            "S",
            "T",
            "X",
            "@",
            "b",
            "c",
            "d",
            "h",
            "l",
            "m",
            "n",
            "r",
            "s",
            "u",
            "1049h",
            "1049l",
            "\r",
            "\n",
            "\t",
            "\x08",
            "\x0e",
            "\x0f",
            "\x18",
            "(0",
            "7",
            "8",
            "#8",
            "日",
            "e\u{301}",
            "\u{202e}",
            "\u{1f468}\u{200d}\u{1f469}",
            "needle",
            " ",
            "633;A",
            "52;c;",
            "x",
        ];
        let known = prop::sample::select(known.to_vec()).prop_map(|known| known.as_bytes().to_vec());
        let any = prop::collection::vec(any::<u8>(), 1..4);
        prop::collection::vec(prop_oneof![9 => known, 1 => any], 0..120).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_drawn_without_a_panic(size in any::<[u8; 2]>(), small in any::<bool>(), written in pieces()) {
            let size = if small { size.map(|side| side % 14) } else { size };
            everything(&[&size[..], &written].concat());
        }
    }

    #[test]
    fn the_corpus_is_drawn_without_a_panic() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/playback");
        let files: Vec<_> = std::fs::read_dir(corpus).unwrap().flatten().collect();
        assert!(files.len() >= 19, "the corpus is there");
        for file in files {
            everything(&std::fs::read(file.path()).unwrap());
        }
    }
}

//! Transcripts: what went over the streams of a program, in the order in which it did. `docs/format.md`, "Transcripts".
//!
//! A transcript is a sequence of frames: a byte that says of which stream, microseconds since the frame before and the
//! length of the payload, both LEB128, and the payload. A frame of its own says how large the terminal is from here on. The
//! last frame has the lengths and digests of all streams.

use crate::Digest;

/// The longest payload of a frame that is read, bytes.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// The byte of a frame with the size of the terminal.
const SIZE: u8 = 3;
/// The payload of such a frame: columns and rows.
const SIZE_BYTES: usize = 2 * 4;
/// The byte of the last frame.
const END: u8 = 0x7f;
/// The payload of the last frame: a length and a SHA-256 of each stream.
const END_BYTES: usize = 3 * (8 + 32);
/// The longest last frame.
pub const END_FRAME_BYTES_MAX: usize = 1 + 10 + 2 + END_BYTES;

/// A stream of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard input.
    Stdin,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Stdin, Self::Stdout, Self::Stderr];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdin => "stdin",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// Its place in [`Stream::ALL`], and the first byte of its frames.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Stdin => 0,
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }
}

/// Length and SHA-256 of a stream; no digest of what was only counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Bytes.
    pub bytes: u64,
    /// SHA-256 of them.
    pub sha256: Option<Digest>,
}

/// A frame of a transcript.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Bytes of a stream.
    Bytes {
        /// Which.
        stream: Stream,
        /// Microseconds since the program began.
        at_us: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// The size of the terminal from here on.
    Size {
        /// Microseconds since the program began.
        at_us: u64,
        /// Characters in a line.
        columns: u32,
        /// Lines.
        rows: u32,
    },
    /// The end: what each stream was as a whole, kept or not.
    End {
        /// Microseconds since the program began.
        at_us: u64,
        /// Of [`Stream::ALL`].
        wholes: [Whole; 3],
    },
}

/// The beginning of a frame, up to its payload of `bytes` bytes; `since_us` is the time since the frame before.
#[must_use]
pub fn head(stream: Stream, since_us: u64, bytes: u64) -> Vec<u8> {
    let mut head = vec![stream.number()];
    leb128(&mut head, since_us);
    leb128(&mut head, bytes);
    head
}

/// A frame with the size of the terminal.
#[must_use]
pub fn size(since_us: u64, columns: u32, rows: u32) -> Vec<u8> {
    let mut size = vec![SIZE];
    leb128(&mut size, since_us);
    leb128(&mut size, u64::try_from(SIZE_BYTES).unwrap_or(0));
    size.extend_from_slice(&columns.to_be_bytes());
    size.extend_from_slice(&rows.to_be_bytes());
    size
}

/// The last frame.
#[must_use]
pub fn end(since_us: u64, wholes: &[Whole; 3]) -> Vec<u8> {
    let mut end = vec![END];
    leb128(&mut end, since_us);
    leb128(&mut end, u64::try_from(END_BYTES).unwrap_or(0));
    for whole in wholes {
        end.extend_from_slice(&whole.bytes.to_be_bytes());
        end.extend_from_slice(&whole.sha256.map_or([0; 32], |digest| digest.0));
    }
    end
}

/// Why bytes are no transcript.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TranscriptError {
    /// No stream has this number.
    #[error("the transcript has a frame of kind {0}, which there is not")]
    Kind(u8),
    /// A number is longer than 64 bits.
    #[error("a number in the transcript has more than 64 bits")]
    Number,
    /// A frame is longer than one may be.
    #[error("the transcript has a frame of {0} bytes")]
    Length(u64),
    /// There is more behind the last frame.
    #[error("the transcript goes on behind its end")]
    BehindEnd,
    /// It ends before its last frame.
    #[error("the transcript breaks off")]
    Truncated,
}

/// Reads a transcript that comes in pieces.
#[derive(Debug, Default)]
pub struct Reader {
    rest: Vec<u8>,
    at_us: u64,
    ended: bool,
}

impl Reader {
    /// Takes the next piece, and gives the frames that are whole with it. Memory is bounded by a piece and a frame.
    ///
    /// # Errors
    /// It is no transcript.
    pub fn push(&mut self, piece: &[u8], mut frame: impl FnMut(Frame)) -> Result<(), TranscriptError> {
        self.rest.extend_from_slice(piece);
        let mut taken = 0;
        while let Some(rest) = self.rest.get(taken..).filter(|rest| !rest.is_empty()) {
            if self.ended {
                return Err(TranscriptError::BehindEnd);
            }
            let Some((next, consumed, since_us)) = one(rest, self.at_us)? else { break };
            self.at_us = self.at_us.saturating_add(since_us);
            self.ended = matches!(next, Frame::End { .. });
            taken += consumed;
            frame(next);
        }
        self.rest.drain(..taken);
        Ok(())
    }

    /// There are no more pieces.
    ///
    /// # Errors
    /// The transcript has no end.
    pub fn finish(self) -> Result<(), TranscriptError> {
        if self.ended { Ok(()) } else { Err(TranscriptError::Truncated) }
    }
}

/// The first frame in `bytes`, how many of them it is, and how long after the one before; none if it is not whole.
fn one(bytes: &[u8], before_us: u64) -> Result<Option<(Frame, usize, u64)>, TranscriptError> {
    let Some((&kind, rest)) = bytes.split_first() else { return Ok(None) };
    let stream = Stream::ALL.into_iter().find(|stream| stream.number() == kind);
    let whole_bytes = match kind {
        SIZE => Some(SIZE_BYTES),
        END => Some(END_BYTES),
        _ if stream.is_some() => None,
        _ => return Err(TranscriptError::Kind(kind)),
    };
    let Some((since_us, rest)) = number(rest)? else { return Ok(None) };
    let Some((length, rest)) = number(rest)? else { return Ok(None) };
    let fits = usize::try_from(length).ok().filter(|length| match whole_bytes {
        Some(exactly) => *length == exactly,
        None => *length <= FRAME_BYTES_MAX,
    });
    let length = fits.ok_or(TranscriptError::Length(length))?;
    let Some(payload) = rest.get(..length) else { return Ok(None) };
    let consumed = bytes.len() - rest.len() + length;
    let at_us = before_us.saturating_add(since_us);
    let frame = match stream {
        Some(stream) => Frame::Bytes { stream, at_us, bytes: payload.to_vec() },
        None if kind == SIZE => {
            let (columns, rows) = payload.split_at(SIZE_BYTES / 2);
            let number = |part: &[u8]| u32::from_be_bytes(part.try_into().unwrap_or_default());
            Frame::Size { at_us, columns: number(columns), rows: number(rows) }
        }
        None => {
            let mut wholes = [Whole { bytes: 0, sha256: None }; 3];
            for (whole, part) in wholes.iter_mut().zip(payload.chunks_exact(8 + 32)) {
                let (count, digest) = part.split_at(8);
                whole.bytes = u64::from_be_bytes(count.try_into().unwrap_or_default());
                let digest: [u8; 32] = digest.try_into().unwrap_or_default();
                whole.sha256 = (digest != [0; 32]).then_some(Digest(digest));
            }
            Frame::End { at_us, wholes }
        }
    };
    Ok(Some((frame, consumed, since_us)))
}

/// Unsigned LEB128: seven bits a byte, the lowest first, the high bit set on all but the last.
fn leb128(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        if value == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

fn number(bytes: &[u8]) -> Result<Option<(u64, &[u8])>, TranscriptError> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().enumerate() {
        let shift = 7 * u32::try_from(index).unwrap_or(u32::MAX);
        let part = u64::from(byte & 0x7f);
        if shift > 63 || (part << shift) >> shift != part {
            return Err(TranscriptError::Number);
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return Ok(Some((value, bytes.get(index + 1..).unwrap_or_default())));
        }
    }
    Ok(None)
}

/// For fuzzing: any bytes, in any pieces, are read or refused alike, without a panic and within the limits.
pub fn fuzz(data: &[u8]) {
    let mut whole = Vec::new();
    let mut reader = Reader::default();
    let result = reader.push(data, |frame| whole.push(frame));
    let mut pieces = Vec::new();
    let mut reader = Reader::default();
    let split = data.chunks(7).try_for_each(|piece| reader.push(piece, |frame| pieces.push(frame)));
    assert_eq!(result, split, "pieces change what is refused");
    assert_eq!(whole, pieces, "pieces change what is read");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames() -> impl Strategy<Value = Vec<(Stream, u64, Vec<u8>)>> {
        let stream = prop::sample::select(Stream::ALL.to_vec());
        prop::collection::vec((stream, 0..1u64 << 40, prop::collection::vec(any::<u8>(), 0..300)), 0..20)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(frames in frames(), cut in 1..50usize) {
            let mut bytes = Vec::new();
            let mut expected = Vec::new();
            let mut at_us = 0;
            bytes.extend(size(3, 80, 24));
            at_us += 3;
            expected.push(Frame::Size { at_us, columns: 80, rows: 24 });
            for (stream, since_us, payload) in frames {
                bytes.extend(head(stream, since_us, payload.len() as u64));
                bytes.extend(&payload);
                at_us += since_us;
                expected.push(Frame::Bytes { stream, at_us, bytes: payload });
            }
            let wholes = [
                Whole { bytes: 1, sha256: None },
                Whole { bytes: u64::MAX, sha256: Some(Digest([7; 32])) },
                Whole { bytes: 0, sha256: Some(Digest([9; 32])) },
            ];
            bytes.extend(end(5, &wholes));
            expected.push(Frame::End { at_us: at_us + 5, wholes });
            let mut read = Vec::new();
            let mut reader = Reader::default();
            for piece in bytes.chunks(cut) {
                reader.push(piece, |frame| read.push(frame)).unwrap();
            }
            prop_assert_eq!(reader.finish(), Ok(()));
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn any_bytes_are_read_or_refused(data in prop::collection::vec(any::<u8>(), 0..400)) {
            fuzz(&data);
        }
    }

    #[test]
    fn the_corpus_is_read_without_a_panic() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/transcript");
        let files: Vec<_> = std::fs::read_dir(corpus).into_iter().flatten().flatten().collect();
        assert!(files.len() >= 6, "the corpus is there");
        for file in files {
            fuzz(&std::fs::read(file.path()).unwrap());
        }
    }

    #[test]
    fn what_is_no_transcript_is_refused() {
        let refused = |bytes: &[u8]| Reader::default().push(bytes, |_| ()).unwrap_err();
        assert_eq!(refused(&[4]), TranscriptError::Kind(4));
        assert_eq!(refused(&[3, 0, 7]), TranscriptError::Length(7));
        assert_eq!(refused(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]), TranscriptError::Number);
        assert_eq!(refused(&head(Stream::Stdin, 0, u64::MAX)), TranscriptError::Length(u64::MAX));
        let mut behind = end(0, &[Whole { bytes: 0, sha256: None }; 3]);
        behind.push(0);
        assert_eq!(refused(&behind), TranscriptError::BehindEnd);
        let mut reader = Reader::default();
        reader.push(&head(Stream::Stdout, 1, 5), |_| ()).unwrap();
        assert_eq!(reader.finish(), Err(TranscriptError::Truncated));
    }
}

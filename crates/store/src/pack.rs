//! Packing of long content before it is sealed: raw DEFLATE (RFC 1951), which every language reads.
//!
//! Not for: anything that could tell a length to someone who chose a part of the content. Statements of different
//! sessions are never packed together, and who can measure a blob's file can read the record.
//!
//! Invariant: memory is bounded on both sides.

use std::io;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use model::Packing;

use crate::error::RecordError;

/// How much of the beginning is tried, to see whether packing is worth it.
const SAMPLE_BYTES: usize = 64 * 1024;
/// Packing must save at least this part of the sample: a reader's time is worth something too.
const GAIN_PART: usize = 16;
/// Packed bytes that are handed on at a time.
const OUTPUT_BYTES: usize = 16 * 1024;

/// Takes what is packed.
pub(crate) type Put<'a> = dyn FnMut(&[u8]) -> io::Result<()> + 'a;

/// Packs content, unless its beginning says that it does not get smaller.
pub(crate) struct Packer {
    state: State,
    effort: Effort,
}

/// How much time packing may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Little: a command waits for it.
    Little,
    /// More: what terminals show is kept for long, and comes no faster than a program writes.
    More,
}

enum State {
    /// The beginning is collected.
    Sample(Vec<u8>),
    Deflate(Box<Compress>),
    Plain,
}

impl Packer {
    pub(crate) fn new(effort: Effort) -> Self {
        Self { state: State::Sample(Vec::new()), effort }
    }

    pub(crate) fn pack(&mut self, content: &[u8], put: &mut Put<'_>) -> io::Result<()> {
        match &mut self.state {
            State::Plain => put(content),
            State::Deflate(deflate) => run(deflate, content, FlushCompress::None, put),
            State::Sample(sample) => {
                let (now, later) = content.split_at(content.len().min(SAMPLE_BYTES - sample.len()));
                sample.extend_from_slice(now);
                if later.is_empty() {
                    return Ok(());
                }
                self.decide(FlushCompress::Sync, put)?;
                self.pack(later, put)
            }
        }
    }

    /// Hands on what is left and says how all of it was packed.
    pub(crate) fn finish(&mut self, put: &mut Put<'_>) -> io::Result<Option<Packing>> {
        match &mut self.state {
            State::Sample(_) => self.decide(FlushCompress::Finish, put)?,
            State::Deflate(deflate) => run(deflate, &[], FlushCompress::Finish, put)?,
            State::Plain => {}
        }
        Ok(match self.state {
            State::Deflate(_) => Some(Packing::Deflate),
            State::Plain | State::Sample(_) => None,
        })
    }

    fn decide(&mut self, flush: FlushCompress, put: &mut Put<'_>) -> io::Result<()> {
        let State::Sample(sample) = std::mem::replace(&mut self.state, State::Plain) else {
            return Ok(());
        };
        let level = match self.effort {
            Effort::Little => Compression::fast(),
            Effort::More => Compression::default(),
        };
        let mut deflate = Box::new(Compress::new(level, false));
        let mut packed = Vec::with_capacity(sample.len() / 2);
        run(&mut deflate, &sample, flush, &mut |bytes| {
            packed.extend_from_slice(bytes);
            Ok(())
        })?;
        if packed.len() + sample.len() / GAIN_PART < sample.len() {
            self.state = State::Deflate(deflate);
            put(&packed)
        } else {
            put(&sample)
        }
    }
}

fn run(deflate: &mut Compress, mut content: &[u8], flush: FlushCompress, put: &mut Put<'_>) -> io::Result<()> {
    let mut output = [0; OUTPUT_BYTES];
    loop {
        let (taken, given) = (deflate.total_in(), deflate.total_out());
        let status = deflate.compress(content, &mut output, flush).map_err(io::Error::other)?;
        let taken = usize::try_from(deflate.total_in() - taken).unwrap_or(usize::MAX);
        let given = usize::try_from(deflate.total_out() - given).unwrap_or(0);
        content = content.get(taken..).unwrap_or_default();
        put(output.get(..given).unwrap_or_default())?;
        let done = match flush {
            FlushCompress::Finish => status == Status::StreamEnd,
            // Room that was left says that nothing waits to be handed on.
            _ => content.is_empty() && given < output.len(),
        };
        if done {
            return Ok(());
        }
        if taken == 0 && given == 0 {
            return Err(io::Error::other("the packer makes no progress"));
        }
    }
}

/// Gives the next packed bytes; false when there are no more.
pub(crate) type Fill<'a> = dyn FnMut(&mut Vec<u8>) -> Result<bool, RecordError> + 'a;

/// Unpacks what [`Packer`] packed. It makes no more than it is asked for, whatever the packed bytes say.
pub(crate) struct Unpacker {
    inflate: Decompress,
    input: Vec<u8>,
    at: usize,
    state: Unpacking,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unpacking {
    /// The input may hold more.
    More,
    /// The input is used up.
    Hungry,
    /// The packed content ended.
    Ended,
}

impl Unpacker {
    pub(crate) fn new() -> Self {
        Self { inflate: Decompress::new(false), input: Vec::new(), at: 0, state: Unpacking::Hungry }
    }

    /// Unpacks into the buffer, at least one byte; none at the end of the content, which must be the end of the input.
    pub(crate) fn unpack(&mut self, output: &mut [u8], fill: &mut Fill<'_>) -> Result<usize, RecordError> {
        loop {
            match self.state {
                Unpacking::Ended => {
                    let trailing = self.at < self.input.len() || (fill(&mut self.input)? && !self.input.is_empty());
                    return if trailing { Err(malformed("bytes follow the packed content")) } else { Ok(0) };
                }
                Unpacking::Hungry => {
                    self.at = 0;
                    if !fill(&mut self.input)? {
                        return Err(malformed("the packed content is cut off"));
                    }
                    self.state = Unpacking::More;
                }
                Unpacking::More => {}
            }
            let (taken, given) = (self.inflate.total_in(), self.inflate.total_out());
            let input = self.input.get(self.at..).unwrap_or_default();
            let status = self.inflate.decompress(input, output, FlushDecompress::None);
            let status = status.map_err(|_| malformed("the packed content is no DEFLATE"))?;
            let taken = usize::try_from(self.inflate.total_in() - taken).unwrap_or(usize::MAX);
            let given = usize::try_from(self.inflate.total_out() - given).unwrap_or(0);
            self.at = self.at.saturating_add(taken);
            if status == Status::StreamEnd {
                self.state = Unpacking::Ended;
            } else if taken == 0 && given == 0 {
                if self.at < self.input.len() {
                    return Err(malformed("the packed content is no DEFLATE"));
                }
                self.state = Unpacking::Hungry;
            }
            if given > 0 {
                return Ok(given);
            }
        }
    }
}

fn malformed(what: &str) -> RecordError {
    RecordError::Blob { why: format!("reading a blob failed: {what}").into() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(content: &[u8], step: usize) -> (Vec<u8>, Option<Packing>) {
        let (mut packer, mut out) = (Packer::new(Effort::Little), Vec::new());
        let mut put = |bytes: &[u8]| {
            out.extend_from_slice(bytes);
            Ok(())
        };
        for piece in content.chunks(step.max(1)) {
            packer.pack(piece, &mut put).unwrap();
        }
        let packing = packer.finish(&mut put).unwrap();
        (out, packing)
    }

    /// Unpacks with a buffer of this size; an error, or what came and how often the input was asked for.
    fn unpacked(packed: &[u8], step: usize, room: usize) -> Result<Vec<u8>, RecordError> {
        let (mut unpacker, mut pieces, mut content) = (Unpacker::new(), packed.chunks(step.max(1)), Vec::new());
        let mut output = vec![0; room];
        loop {
            let count = unpacker.unpack(&mut output, &mut |input| {
                input.clear();
                Ok(pieces.next().map(|piece| input.extend_from_slice(piece)).is_some())
            })?;
            if count == 0 {
                return Ok(content);
            }
            content.extend_from_slice(&output[..count]);
        }
    }

    /// Text that repeats in parts, as statements do, or not at all.
    fn content() -> impl Strategy<Value = Vec<u8>> {
        let noise = prop::collection::vec(any::<u8>(), 0..3000);
        let length = prop_oneof![0..200usize, 60_000..70_000usize, 150_000..200_000usize];
        (noise, any::<u8>(), length).prop_map(|(noise, step, length)| {
            let mut state = u64::from(step);
            let from_noise = |i: usize| noise.get(i % noise.len().max(1)).copied().unwrap_or(7);
            (0..length)
                .map(|i| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    if step < 128 { from_noise(i) } else { state.to_be_bytes()[0] }
                })
                .collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn what_was_packed_is_unpacked(content in content(), steps in (1..90_000usize, 1..70_000usize, 1..70_000usize)) {
            let (packed, packing) = packed(&content, steps.0);
            match packing {
                None => prop_assert!(packed == content),
                Some(Packing::Deflate) => {
                    prop_assert!(packed.len() < content.len());
                    prop_assert!(unpacked(&packed, steps.1, steps.2).unwrap() == content);
                }
            }
        }

        #[test]
        fn hostile_bytes_do_not_hang(bytes in prop::collection::vec(any::<u8>(), 0..400), step in 1..50usize) {
            // Either outcome will do; a stored block can be anything.
            let _ = unpacked(&bytes, step, 64);
        }
    }

    #[test]
    fn a_cut_and_an_appended_stream_are_told() {
        let (packed, packing) = packed(&b"select 1; ".repeat(5000), 1000);
        assert_eq!(packing, Some(Packing::Deflate));
        assert!(packed.len() < 1000, "{}", packed.len());
        for cut in 0..packed.len() {
            assert!(unpacked(&packed[..cut], 7, 100).is_err(), "{cut}");
        }
        assert!(unpacked(&[&packed[..], b"x"].concat(), 7, 100).is_err());
    }

    #[test]
    fn a_bomb_gives_no_more_than_is_asked_for() {
        let mut put_bytes = Vec::new();
        let mut deflate = Compress::new(Compression::best(), false);
        for _ in 0..256 {
            run(&mut deflate, &[0; 1 << 16], FlushCompress::None, &mut |bytes| {
                put_bytes.extend_from_slice(bytes);
                Ok(())
            })
            .unwrap();
        }
        let (mut unpacker, mut output, mut given) = (Unpacker::new(), [1; 10], false);
        let count = unpacker.unpack(&mut output, &mut |input| {
            input.clone_from(&put_bytes);
            Ok(!std::mem::replace(&mut given, true))
        });
        assert_eq!((count.unwrap(), unpacker.inflate.total_out()), (10, 10));
    }
}

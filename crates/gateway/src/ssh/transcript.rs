//! What goes over the streams of a program, written down as it goes: see "Transcripts" in `docs/format.md`.
//!
//! Invariant: a byte is written down before it is passed on, and of all bytes that pass there is a digest, whether they
//! are kept or not.

use std::time::Instant;

use model::transcript::{self, END_FRAME_BYTES_MAX, Stream, Whole};
use model::{BlobForm, Digest, Field, Transcript};
use sha2::{Digest as _, Sha256};
use store::{BlobWriter, INLINE_BYTES_MAX, RecordError};

use crate::access::Showing;

/// What a change of a terminal's size costs of what may be kept.
const SIZE_COST_BYTES: u64 = 16;

/// What is kept of standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// All of it.
    Kept,
    /// How much there was: what somebody types at a terminal may be a password. What is echoed is in the output.
    Counted,
}

/// Writes one.
pub(super) struct Scribe {
    input: Input,
    /// Those who watch it.
    showing: Showing,
    began: Instant,
    /// Microseconds from the beginning to the last frame.
    last_us: u64,
    /// How many bytes are kept at most.
    kept_max: u64,
    kept: u64,
    inline: Vec<u8>,
    blob: Option<BlobWriter>,
    bytes: [u64; 3],
    digests: [Sha256; 3],
}

impl Scribe {
    /// Of a program that begins now.
    pub(super) fn new(kept_max: u64, input: Input, showing: Showing) -> Self {
        Self {
            input,
            showing,
            began: Instant::now(),
            last_us: 0,
            kept_max,
            kept: 0,
            inline: Vec::new(),
            blob: None,
            bytes: [0; 3],
            digests: Default::default(),
        }
    }

    /// Writes down that the terminal has so many columns and rows from here on. `log` as for [`Scribe::write`].
    ///
    /// # Errors
    /// As there.
    pub(super) fn size(
        &mut self,
        [columns, rows]: [u32; 2],
        log: impl FnOnce() -> Result<BlobWriter, RecordError>,
    ) -> Result<(), RecordError> {
        self.showing.sized(self.now_us(), [columns, rows]);
        // Sizes are charged like bytes, so that they cannot fill the disk either.
        self.kept_max = self.kept_max.saturating_sub(SIZE_COST_BYTES);
        if self.kept_max <= self.kept {
            return Ok(());
        }
        let since_us = self.since_us();
        self.put(&transcript::size(since_us, columns, rows), &[], log)
    }

    /// Microseconds since the beginning, to the millisecond: nobody sees more of a terminal, and times that differ in
    /// nothing but noise are most of what small frames cost.
    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_mul(1000)
    }

    /// Microseconds since the last frame, for the next one.
    fn since_us(&mut self) -> u64 {
        let now_us = self.now_us();
        now_us.saturating_sub(std::mem::replace(&mut self.last_us, now_us))
    }

    /// Writes down bytes of a stream, then shows what was put out to those who watch. `log` gives a blob once they are too
    /// many for an entry.
    ///
    /// # Errors
    /// The disk refused, so the bytes must not be passed on.
    pub(super) fn write(
        &mut self,
        stream: Stream,
        bytes: &[u8],
        log: impl FnOnce() -> Result<BlobWriter, RecordError>,
    ) -> Result<(), RecordError> {
        self.write_down(stream, bytes, log)?;
        if stream != Stream::Stdin {
            self.showing.wrote(stream, self.now_us(), bytes);
        }
        Ok(())
    }

    fn write_down(
        &mut self,
        stream: Stream,
        bytes: &[u8],
        log: impl FnOnce() -> Result<BlobWriter, RecordError>,
    ) -> Result<(), RecordError> {
        let index = usize::from(stream.number());
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if let (Some(count), Some(digest)) = (self.bytes.get_mut(index), self.digests.get_mut(index)) {
            *count += length;
            if stream == Stream::Stdin && self.input == Input::Counted {
                return Ok(());
            }
            digest.update(bytes);
        }
        let room = self.kept_max.saturating_sub(self.kept).min(length);
        // Once something was left out, nothing more is kept: what is kept is the beginning.
        let kept = bytes.get(..usize::try_from(room).unwrap_or(usize::MAX)).unwrap_or_default();
        if room < length {
            self.kept_max = 0;
        }
        if kept.is_empty() {
            return Ok(());
        }
        self.kept += room;
        let head = transcript::head(stream, self.since_us(), room);
        self.put(&head, kept, log)
    }

    fn put(
        &mut self,
        head: &[u8],
        kept: &[u8],
        log: impl FnOnce() -> Result<BlobWriter, RecordError>,
    ) -> Result<(), RecordError> {
        if let Some(blob) = &mut self.blob {
            blob.write(head)?;
            return blob.write(kept);
        }
        if self.inline.len() + head.len() + kept.len() <= INLINE_BYTES_MAX - END_FRAME_BYTES_MAX {
            self.inline.extend_from_slice(head);
            self.inline.extend_from_slice(kept);
            return Ok(());
        }
        let mut blob = log()?.form(BlobForm::Transcript);
        blob.write(&std::mem::take(&mut self.inline))?;
        blob.write(head)?;
        blob.write(kept)?;
        self.blob = Some(blob);
        Ok(())
    }

    /// The end of it: a part of the outcome. `log` seals what is short. What is long is made durable here, which waits for
    /// the disk.
    ///
    /// # Errors
    /// The disk refused.
    pub(super) async fn finish(mut self, log: impl FnOnce(&[u8]) -> Field) -> Result<Transcript, RecordError> {
        let since_us = self.since_us();
        let digests = std::mem::take(&mut self.digests).map(|digest| Some(Digest(digest.finalize().into())));
        let [mut input, output, errors] = digests;
        if self.input == Input::Counted {
            input = None;
        }
        let [stdin, stdout, stderr] = self.bytes;
        let wholes =
            [(stdin, input), (stdout, output), (stderr, errors)].map(|(bytes, sha256)| Whole { bytes, sha256 });
        let end = transcript::end(since_us, &wholes);
        let content = match self.blob {
            None => {
                self.inline.extend_from_slice(&end);
                log(&self.inline)
            }
            Some(mut blob) => {
                let finishing = tokio::task::spawn_blocking(move || {
                    blob.write(&end)?;
                    blob.finish().map(|(field, _)| field)
                });
                finishing.await.map_err(|_| RecordError::Blob { why: "the writing thread ended".into() })??
            }
        };
        Ok(Transcript { content, stdin, stdout, stderr, kept: self.kept })
    }
}

//! What is kept of break-glass over a restart: the steps of those that were not reviewed, and up to where the record was
//! looked through for them.
//!
//! The record is what counts. What came after that place is read from it, so that a crash between an entry and this file
//! loses nothing; the file only saves reading all of the record at each start. Where it is missing, that is what is done.
//!
//! Lines: `onrecord/v1 break-glass`; the log's public key; the index from which on the record has to be read; and for each
//! step its index and its entry, as the record has it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use model::{Body, BreakGlass, BreakGlassId, Entry, Time};
use store::{BreakGlassEntry, Reader, StoreError};

use crate::files;

const MAGIC: &str = "onrecord/v1 break-glass";

/// A step, and where and when it was recorded.
pub(super) type Step = (BreakGlassId, BreakGlassEntry);

/// The file.
pub(super) struct Kept {
    file: PathBuf,
    vkey: String,
}

/// Why it cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error(transparent)]
    File(#[from] io::Error),
    #[error(transparent)]
    Record(#[from] StoreError),
}

impl Kept {
    pub(super) fn new(file: PathBuf, reader: &Reader) -> Self {
        Self { file, vkey: reader.vkey().to_string() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.file
    }

    /// The steps of all that may not have been reviewed, those after the file from the record; without a file, all.
    ///
    /// # Errors
    /// The file cannot be read or is damaged, or the record cannot be read.
    pub(super) fn read(&self, reader: &Reader) -> Result<Vec<Step>, Unreadable> {
        let text = match fs::read_to_string(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(reader.break_glass_from(0)?),
            read => read?,
        };
        let mut lines = text.lines();
        let (magic, vkey, first) = (lines.next(), lines.next(), lines.next());
        let first = first.and_then(|first| first.parse::<u64>().ok());
        let (Some(MAGIC), Some(vkey), Some(first)) = (magic, vkey, first) else { return Err(files::damaged().into()) };
        let mut steps = Vec::new();
        for line in lines {
            let (index, leaf) = line.split_once(' ').ok_or_else(files::damaged)?;
            let index = index.parse().map_err(|_| files::damaged())?;
            match Entry::decode(leaf.as_bytes()) {
                Ok(Entry { time, body: Body::BreakGlass(BreakGlass { id, step }) }) => {
                    steps.push((id, BreakGlassEntry { index, time, step }));
                }
                _ => return Err(files::damaged().into()),
            }
        }
        // Of another log: this one continues it, and its indexes are others.
        let same = vkey == self.vkey;
        if !same {
            steps.iter_mut().for_each(|(_, entry)| entry.index = 0);
        }
        steps.extend(reader.break_glass_from(if same { first } else { 0 })?);
        Ok(steps)
    }

    /// Writes these steps, and that the record is to be read from `first` on.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn write<'a>(
        &self,
        first: u64,
        steps: impl Iterator<Item = (BreakGlassId, &'a BreakGlassEntry)>,
    ) -> io::Result<()> {
        let mut bytes = format!("{MAGIC}\n{}\n{first}\n", self.vkey).into_bytes();
        for (id, BreakGlassEntry { index, time, step }) in steps {
            bytes.extend_from_slice(format!("{index} ").as_bytes());
            let time: Time = *time;
            Entry { time, body: Body::BreakGlass(BreakGlass { id, step: step.clone() }) }.encode(&mut bytes);
            bytes.push(b'\n');
        }
        files::replace(&self.file, &bytes)
    }
}

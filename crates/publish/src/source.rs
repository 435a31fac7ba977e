//! A log to hold something against: in a data directory, or at a URL.
//!
//! Nothing that comes from there is believed: its checkpoint is verified with a key, and its entries and hashes against
//! the checkpoint.

use std::path::Path;
use std::time::Duration;

use ledger::{
    BUNDLE_BYTES_MAX, Checkpoint, CheckpointError, NOTE_BYTES_MAX, TILE_BYTES_MAX, Tile, TileError, TileKind,
    TileNodes, VerifierKey, bundle_entries, leaf_hash, root_of, verify_inclusion,
};
use store::{Published, StoreError};

use crate::receipt::Receipt;
use crate::tiles;
use fetch::{Client, FetchError};

/// How long one request may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// A log.
pub struct Source {
    place: Place,
}

enum Place {
    Directory(Published),
    Http { client: Client, prefix: String },
}

/// Why a log does not bear a receipt out.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The data directory cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log cannot be had over HTTP.
    #[error("{url}: {what}")]
    Http {
        /// What was asked for.
        url: String,
        /// What is wrong.
        what: String,
    },
    /// A tile is not one.
    #[error(transparent)]
    Tile(#[from] TileError),
    /// Nothing is published there.
    #[error("there is no published checkpoint")]
    NoCheckpoint,
    /// Its checkpoint is not this log's.
    #[error("the log's checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The log has fewer entries than it has signed for.
    #[error(
        "entry {index}, the end of session {session}, is not in this log any more: it has {size} entries, and had signed \
         for {signed}"
    )]
    Shorter {
        /// The entry's index.
        index: u64,
        /// The session.
        session: model::SessionId,
        /// How many entries the log has.
        size: u64,
        /// For how many the receipt has its signature.
        signed: u64,
    },
    /// The log does not continue what it has signed.
    #[error(
        "entry {index}, the end of session {session}, is not what this log has signed for: its first {signed} entries are \
         others now"
    )]
    Forked {
        /// The entry's index.
        index: u64,
        /// The session.
        session: model::SessionId,
        /// At which size they differ.
        signed: u64,
    },
    /// What it hands out is not what its own checkpoint says.
    #[error("the log's tiles do not lead to its own checkpoint of {size} entries: it is damaged")]
    Damaged {
        /// The checkpoint's size.
        size: u64,
    },
}

impl SourceError {
    /// Whether the log was shown to have lost or changed what it signed, rather than not having answered.
    #[must_use]
    pub fn is_removal(&self) -> bool {
        matches!(self, Self::Shorter { .. } | Self::Forked { .. } | Self::Damaged { .. })
    }
}

impl Source {
    /// The published log of a data directory.
    #[must_use]
    pub fn directory(data: &Path) -> Self {
        Self { place: Place::Directory(Published::open_dir(data)) }
    }

    /// The log below a URL.
    #[must_use]
    pub fn http(prefix: &str) -> Self {
        let prefix = prefix.trim_end_matches('/').to_owned();
        Self { place: Place::Http { client: Client::of_system(ANSWER_MAX), prefix } }
    }

    /// A directory or a URL, as a person writes it.
    #[must_use]
    pub fn of(text: &str) -> Self {
        if text.starts_with("http://") || text.starts_with("https://") {
            Self::http(text)
        } else {
            Self::directory(Path::new(text))
        }
    }

    /// The log's newest checkpoint, verified.
    ///
    /// # Errors
    /// It cannot be had, or is not this log's.
    pub fn checkpoint(&self, key: &VerifierKey) -> Result<Checkpoint, SourceError> {
        let note = match &self.place {
            Place::Directory(published) => published.checkpoint()?.ok_or(SourceError::NoCheckpoint)?,
            Place::Http { client, prefix } => {
                let bytes = fetch(client, &format!("{prefix}/checkpoint"), NOTE_BYTES_MAX)?;
                String::from_utf8(bytes).unwrap_or_default()
            }
        };
        Ok(Checkpoint::open(&note, key)?)
    }

    /// Verifies that the log still has what a receipt, which was checked, is for: the same entry at the same place, in a
    /// tree that continues the one that the receipt is about. Gives the log's checkpoint.
    ///
    /// # Errors
    /// It has not, or it cannot be told.
    pub fn bears_out(
        &self,
        receipt: &Receipt,
        signed: &Checkpoint,
        key: &VerifierKey,
    ) -> Result<Checkpoint, SourceError> {
        let (index, session) = (receipt.index(), receipt.session());
        let now = self.checkpoint(key)?;
        if now.size < signed.size {
            return Err(SourceError::Shorter { index, session, size: now.size, signed: signed.size });
        }
        let mut nodes = TileNodes::new(now.size, |tile: &Tile| self.tile(tile));
        if root_of(&mut nodes, now.size)? != now.root {
            return Err(SourceError::Damaged { size: now.size });
        }
        if root_of(&mut nodes, signed.size)? != signed.root {
            return Err(SourceError::Forked { index, session, signed: signed.size });
        }
        let proof = ledger::prove_inclusion(&mut nodes, index, now.size)?;
        let leaf = self.entry(index, now.size)?;
        verify_inclusion(&leaf_hash(&leaf), index, now.size, &proof, &now.root)
            .map_err(|_| SourceError::Damaged { size: now.size })?;
        if leaf != receipt.leaf() {
            return Err(SourceError::Forked { index, session, signed: signed.size });
        }
        Ok(now)
    }

    fn entry(&self, index: u64, size: u64) -> Result<Vec<u8>, SourceError> {
        let number = index / ledger::TILE_WIDTH;
        let width = tiles::width_at(TileKind::Entries, number, size);
        let damaged = SourceError::Damaged { size };
        let Some(tile) = Tile::new(TileKind::Entries, number, width) else { return Err(damaged) };
        let bytes = self.tile(&tile)?;
        let at = usize::try_from(index % ledger::TILE_WIDTH).unwrap_or(usize::MAX);
        match bundle_entries(&bytes).nth(at) {
            Some(entry) => Ok(entry?.to_vec()),
            None => Err(damaged),
        }
    }

    fn tile(&self, tile: &Tile) -> Result<Vec<u8>, SourceError> {
        match &self.place {
            Place::Directory(published) => Ok(tiles::tile(published, tile)?.ok_or_else(|| tiles::missing(tile))?),
            Place::Http { client, prefix } => {
                let bytes_max = match tile.kind() {
                    TileKind::Hashes(_) => TILE_BYTES_MAX,
                    TileKind::Entries => BUNDLE_BYTES_MAX,
                };
                fetch(client, &format!("{prefix}/{}", tile.path()), bytes_max)
            }
        }
    }
}

fn fetch(client: &Client, url: &str, bytes_max: usize) -> Result<Vec<u8>, SourceError> {
    let error = |what: String| SourceError::Http { url: url.to_owned(), what };
    let reply = client.get(url, &[], u64::try_from(bytes_max).unwrap_or(u64::MAX));
    let reply = reply.map_err(|failed: FetchError| error(failed.to_string()))?;
    if reply.status == 200 { Ok(reply.body) } else { Err(error(format!("the answer's status is {}", reply.status))) }
}

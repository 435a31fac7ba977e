//! The log for anyone to read: C2SP tlog-tiles over HTTP, and receipts.
//!
//! Only what a published checkpoint covers is served, by paths that are parsed and never joined to a directory.

use std::io::Write as _;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use ledger::{Tile, TileKind};
use store::{Published, StoreError};

use crate::closes::Closes;
use crate::server::{Answer, Encoding, Method, Request, Site};
use crate::tiles;

const NOTE: &str = "text/plain; charset=utf-8";
const BYTES: &str = "application/octet-stream";
/// Tiles never change.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// Bundles shorter than this are sent as they are.
const GZIP_BYTES_MIN: usize = 256;

/// The published log of a data directory.
pub struct LogSite {
    published: Published,
    closes: Arc<Closes>,
}

impl LogSite {
    /// The site of this log.
    #[must_use]
    pub fn new(published: Published, closes: Arc<Closes>) -> Self {
        Self { published, closes }
    }

    fn found(&self, request: &Request) -> Result<Answer, StoreError> {
        let Some(path) = request.path.strip_prefix('/') else { return Ok(Answer::not_found()) };
        match path {
            "checkpoint" => Ok(note(self.published.checkpoint()?)),
            "cosigned" => Ok(note(self.published.cosigned()?)),
            path => match (path.strip_prefix("receipts/"), Tile::from_path(path)) {
                (Some(session), _) => self.receipt(session),
                (None, Some(tile)) => self.tile(&tile, request.encoding),
                (None, None) => Ok(Answer::not_found()),
            },
        }
    }

    fn tile(&self, tile: &Tile, encoding: Encoding) -> Result<Answer, StoreError> {
        let Some(bytes) = tiles::tile(&self.published, tile)? else { return Ok(Answer::not_found()) };
        let answer = |bytes: Vec<u8>| Answer::new(200, BYTES, bytes).with("cache-control", FOR_EVER);
        Ok(match tile.kind() {
            TileKind::Hashes(_) => answer(bytes),
            TileKind::Entries => {
                let zipped = (encoding == Encoding::Gzip && bytes.len() >= GZIP_BYTES_MIN).then(|| gzip(&bytes));
                match zipped {
                    Some(Ok(zipped)) => answer(zipped).with("content-encoding", "gzip"),
                    Some(Err(_)) | None => answer(bytes),
                }
                .with("vary", "accept-encoding")
            }
        })
    }

    fn receipt(&self, session: &str) -> Result<Answer, StoreError> {
        let Ok(session) = session.parse() else { return Ok(Answer::not_found()) };
        Ok(match self.closes.receipt(session)? {
            Some(receipt) => Answer::new(200, NOTE, receipt.to_string()).with("cache-control", "no-cache"),
            None => Answer::not_found(),
        })
    }
}

impl Site for LogSite {
    fn answer(&self, request: &Request) -> Answer {
        match request.method {
            Method::Post => Answer::text(405, "this log can only be read").with("allow", "GET, HEAD"),
            Method::Get => self.found(request).unwrap_or_else(|error| {
                tracing::warn!("the published log cannot be read: {error}");
                Answer::text(500, "the log cannot be read at the moment")
            }),
        }
    }
}

fn note(note: Option<String>) -> Answer {
    match note {
        Some(note) => Answer::new(200, NOTE, note).with("cache-control", "no-cache"),
        None => Answer::not_found(),
    }
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

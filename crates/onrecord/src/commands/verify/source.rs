//! What `onrecord verify` can be pointed at, and how a published log is read from there.

use std::path::PathBuf;
use std::time::Duration;

use ledger::{BUNDLE_BYTES_MAX, NOTE_BYTES_MAX, TILE_BYTES_MAX, Tile, TileKind, partial_tiles};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};

use crate::Failure;
use crate::http::Client;

/// Where a record is.
#[derive(Debug)]
pub(super) enum Source {
    /// A data directory, or one of its earlier logs below `epochs`.
    Data(PathBuf),
    /// An evidence bundle.
    Bundle(PathBuf),
    /// A published log in a directory.
    Tiles(PathBuf),
    /// A published log behind HTTP: its prefix, without a slash at the end.
    Http(String),
    /// A published log in an object store.
    S3 {
        /// The bucket.
        bucket: String,
        /// What the names begin with; empty, or with a slash at the end.
        prefix: String,
    },
}

impl Source {
    /// What a person means by this.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        if text.starts_with("http://") || text.starts_with("https://") {
            return Ok(Self::Http(text.trim_end_matches('/').to_owned()));
        }
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let prefix = prefix.trim_matches('/');
            let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
            return Ok(Self::S3 { bucket: bucket.to_owned(), prefix });
        }
        let path = PathBuf::from(text);
        if path.join("log").is_dir() {
            Ok(Self::Data(path))
        } else if path.join("checkpoint").is_file() && path.join("tile").is_dir() {
            Ok(Self::Tiles(path))
        } else if path.is_file() {
            Ok(Self::Bundle(path))
        } else if path.exists() {
            Err(Failure::usage(format_args!(
                "{text} is neither a data directory, nor an evidence bundle, nor a published log"
            )))
        } else {
            Err(Failure::not_found(format_args!("{text} does not exist")))
        }
    }
}

/// How often a tile is looked for under the name that it has by now.
const GROWTH_TRIES: usize = 3;

/// Reads a published log.
pub(super) trait Fetch {
    /// The file of this name, of at most this many bytes; none if it is not there.
    fn file(&self, name: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, Failure>;

    /// A text, none if it is not there.
    fn text(&self, name: &str) -> Result<Option<String>, Failure> {
        let bytes = self.file(name, NOTE_BYTES_MAX)?;
        bytes.map(String::from_utf8).transpose().map_err(|_| Failure::new(format_args!("{name} is not text")))
    }

    /// A tile or bundle. A log that grows while it is read may have put a wider or a full one in a partial one's place:
    /// then this one is cut from that.
    fn tile(&self, tile: &Tile) -> Result<Option<Vec<u8>>, Failure> {
        let bytes_max = match tile.kind() {
            TileKind::Entries => BUNDLE_BYTES_MAX,
            TileKind::Hashes(_) => TILE_BYTES_MAX,
        };
        let mut now = *tile;
        for _ in 0..GROWTH_TRIES {
            for tile_now in [now, now.full()] {
                if let Some(bytes) = self.file(&tile_now.path(), bytes_max)? {
                    return Ok(Some(if tile_now == *tile { bytes } else { tile.cut(bytes) }));
                }
                if tile_now.is_full() {
                    break;
                }
            }
            // What the newest checkpoint says is not trusted: it only tells a name.
            let size = self.text("checkpoint")?.and_then(|note| note.lines().nth(1)?.parse::<u64>().ok());
            let same_place = |other: &Tile| other.kind() == tile.kind() && other.index() == tile.index();
            match size.and_then(|size| partial_tiles(size).find(same_place)) {
                Some(wider) if wider.width() > now.width() => now = wider,
                _ => return Ok(None),
            }
        }
        Ok(None)
    }
}

/// From a directory.
pub(super) struct Directory(pub(super) PathBuf);

impl Fetch for Directory {
    fn file(&self, name: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, Failure> {
        let path = self.0.join(name);
        let failed = |error: std::io::Error| Failure::new(format_args!("{}: {error}", path.display()));
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
            Ok(found) if found.len() > u64::try_from(bytes_max).unwrap_or(u64::MAX) => {
                return Err(Failure::new(format_args!("{} is longer than it can be", path.display())));
            }
            Ok(_) => {}
        }
        std::fs::read(&path).map(Some).map_err(failed)
    }
}

/// From a web server.
pub(super) struct Http {
    client: Client,
    prefix: String,
}

impl Http {
    /// The log below this URL.
    pub(super) fn new(prefix: &str) -> Self {
        Self { client: Client::new(), prefix: prefix.to_owned() }
    }
}

impl Fetch for Http {
    fn file(&self, name: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, Failure> {
        self.client.get(&format!("{}/{name}", self.prefix), bytes_max).map_err(Failure::new)
    }
}

/// From an object store that speaks S3.
pub(super) struct S3 {
    client: Client,
    bucket: Bucket,
    credentials: Option<Credentials>,
    prefix: String,
}

/// For how long a signed request is good.
const SIGNED_FOR: Duration = Duration::from_secs(300);

impl S3 {
    /// The log below a prefix. Region, endpoint and credentials come from the environment, as for other S3 tools:
    /// `AWS_REGION`, `AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`.
    pub(super) fn new(bucket: &str, prefix: &str) -> Result<Self, Failure> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let region = set("AWS_REGION").or_else(|| set("AWS_DEFAULT_REGION")).unwrap_or_else(|| "us-east-1".to_owned());
        let endpoint = set("AWS_ENDPOINT_URL_S3").or_else(|| set("AWS_ENDPOINT_URL"));
        // A store of one's own seldom has a name for each bucket.
        let style = if endpoint.is_some() { UrlStyle::Path } else { UrlStyle::VirtualHost };
        let endpoint = endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        let endpoint =
            endpoint.parse().map_err(|error| Failure::usage(format_args!("AWS_ENDPOINT_URL {endpoint}: {error}")))?;
        let bucket = Bucket::new(endpoint, style, bucket.to_owned(), region)
            .map_err(|error| Failure::usage(format_args!("bucket {bucket}: {error}")))?;
        let credentials = match (set("AWS_ACCESS_KEY_ID"), set("AWS_SECRET_ACCESS_KEY"), set("AWS_SESSION_TOKEN")) {
            (Some(key), Some(secret), Some(token)) => Some(Credentials::new_with_token(key, secret, token)),
            (Some(key), Some(secret), None) => Some(Credentials::new(key, secret)),
            _ => None,
        };
        Ok(Self { client: Client::new(), bucket, credentials, prefix: prefix.to_owned() })
    }
}

impl Fetch for S3 {
    fn file(&self, name: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, Failure> {
        let object = format!("{}{name}", self.prefix);
        let url = self.bucket.get_object(self.credentials.as_ref(), &object).sign(SIGNED_FOR);
        self.client.get(url.as_str(), bytes_max).map_err(Failure::new)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A log that had 600 entries when its checkpoint was read, and has more now.
    #[test]
    fn a_tile_of_a_moment_ago_is_cut_from_what_is_there_now() {
        let dir = tempfile::tempdir().unwrap();
        let log = Directory(dir.path().to_owned());
        let entry = |number: u16| [&[0, 2][..], &number.to_be_bytes()].concat();
        let bundle = |count: u16| (0..count).flat_map(entry).collect::<Vec<u8>>();
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        let (entries, hashes) =
            (Tile::from_path("tile/entries/002.p/88").unwrap(), Tile::from_path("tile/0/002.p/88").unwrap());
        write("checkpoint", b"log.example.com/1\n620\nroot\n\nsignatures\n");
        assert_eq!(log.tile(&entries).unwrap(), None);
        write("tile/entries/002.p/108", &bundle(108));
        write("tile/0/002.p/108", &[7; 108 * 32]);
        assert_eq!(log.tile(&entries).unwrap().unwrap(), bundle(88));
        assert_eq!(log.tile(&hashes).unwrap().unwrap().len(), 88 * 32);
        std::fs::remove_dir_all(dir.path().join("tile/entries/002.p")).unwrap();
        write("tile/entries/002", &bundle(256));
        // The right name has the right length, or else verification says so.
        write("tile/0/002.p/88", &[7; 89 * 32]);
        assert_eq!(log.tile(&hashes).unwrap().unwrap().len(), 89 * 32);
        assert_eq!(log.tile(&entries).unwrap().unwrap(), bundle(88));
        // A log that says that it is shorter, or nothing at all.
        for checkpoint in ["log.example.com/1\n90\nroot\n", "", "a\nb\n"] {
            write("checkpoint", checkpoint.as_bytes());
            assert_eq!(log.tile(&Tile::from_path("tile/0/002.p/99").unwrap()).unwrap(), None);
        }
    }
}

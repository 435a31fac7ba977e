//! What `onrecord verify` can be pointed at, and how a published log is read from there.

use std::path::PathBuf;
use std::time::Duration;

use ledger::{BUNDLE_BYTES_MAX, NOTE_BYTES_MAX, TILE_BYTES_MAX, Tile, TileKind};
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

/// Reads a published log.
pub(super) trait Fetch {
    /// The file of this name, of at most this many bytes; none if it is not there.
    fn file(&self, name: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, Failure>;

    /// A text, none if it is not there.
    fn text(&self, name: &str) -> Result<Option<String>, Failure> {
        let bytes = self.file(name, NOTE_BYTES_MAX)?;
        bytes.map(String::from_utf8).transpose().map_err(|_| Failure::new(format_args!("{name} is not text")))
    }

    /// A tile or bundle; a partial one from the full one, if that has taken its place.
    fn tile(&self, tile: &Tile) -> Result<Option<Vec<u8>>, Failure> {
        let bytes_max = match tile.kind() {
            TileKind::Entries => BUNDLE_BYTES_MAX,
            TileKind::Hashes(_) => TILE_BYTES_MAX,
        };
        if let Some(bytes) = self.file(&tile.path(), bytes_max)? {
            return Ok(Some(bytes));
        }
        if tile.is_full() {
            return Ok(None);
        }
        Ok(self.file(&tile.full().path(), bytes_max)?.map(|full| tile.cut(full)))
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

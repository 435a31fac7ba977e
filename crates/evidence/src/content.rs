//! Opens what a bundle discloses, and says of everything else why it stays closed.

use std::collections::BTreeMap;
use std::io::Read as _;

use flate2::read::DeflateDecoder;
use model::seal::{CHUNK_BYTES, ChunkOpener, FieldKey, Last, TAG_BYTES, open};
use model::{BlobField, Digest, Field, Packing, SessionId};

use crate::fields::FieldId;

/// Content that was packed is at most this long, in bytes: what a small file unpacks to must not fill the memory.
pub const UNPACKED_BYTES_MAX: u64 = 256 << 20;

/// The keys and the blobs of a bundle.
pub(crate) struct Keyring<'a> {
    pub(crate) keys: BTreeMap<FieldId, FieldKey>,
    pub(crate) blobs: BTreeMap<Digest, &'a [u8]>,
}

impl Keyring<'_> {
    /// The content of a field; none if its key is not here.
    pub(crate) fn open(&self, session: SessionId, field: &Field) -> Option<Result<Vec<u8>, String>> {
        match field {
            Field::Absent(_) => None,
            Field::Sealed(sealed) => {
                let key = self.keys.get(&(session, sealed.number))?;
                Some(open(session, key, sealed).map_err(|error| error.to_string()))
            }
            Field::Blob(blob) => {
                let key = self.keys.get(&(session, blob.number))?;
                let head = self.keys.get(&(session, blob.head.number))?;
                Some(self.blob(session, key, head, blob))
            }
        }
    }

    fn blob(
        &self,
        session: SessionId,
        key: &FieldKey,
        head_key: &FieldKey,
        blob: &BlobField,
    ) -> Result<Vec<u8>, String> {
        let name = blob.sha256.hex();
        let sealed = *self.blobs.get(&blob.sha256).ok_or_else(|| format!("the blob {name} is missing"))?;
        if u64::try_from(sealed.len()) != Ok(blob.bytes) {
            return Err(format!("the blob {name} has not the length that the entry says"));
        }
        let packed = chunks(session, key, blob, sealed)?;
        let content = match blob.packing {
            None => packed,
            Some(Packing::Deflate) => {
                unpack(&packed).ok_or_else(|| format!("the blob {name} does not unpack, or to more than 256 MiB"))?
            }
        };
        if u64::try_from(content.len()) != Ok(blob.length) {
            return Err(format!("the content of the blob {name} has not the length that the entry says"));
        }
        let head = open(session, head_key, &blob.head).map_err(|error| error.to_string())?;
        if !content.starts_with(&head) {
            return Err(format!("the content of the blob {name} does not begin as the entry says"));
        }
        Ok(content)
    }
}

fn chunks(session: SessionId, key: &FieldKey, blob: &BlobField, sealed: &[u8]) -> Result<Vec<u8>, String> {
    let mut opener = ChunkOpener::new(session, key, blob.number, blob.commitment).map_err(|error| error.to_string())?;
    let mut content = Vec::with_capacity(sealed.len());
    let mut rest = sealed;
    loop {
        let (chunk, after) = rest.split_at(rest.len().min(CHUNK_BYTES + TAG_BYTES));
        let last = if after.is_empty() { Last::Yes } else { Last::No };
        let mut chunk = chunk.to_vec();
        opener.open(&mut chunk, last).map_err(|error| error.to_string())?;
        content.extend_from_slice(&chunk);
        if last == Last::Yes {
            return Ok(content);
        }
        rest = after;
    }
}

fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    let read = DeflateDecoder::new(packed).take(UNPACKED_BYTES_MAX + 1).read_to_end(&mut content).ok()?;
    (u64::try_from(read).ok()? <= UNPACKED_BYTES_MAX).then_some(content)
}

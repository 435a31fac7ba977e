//! Segments and groups, byte by byte. `docs/format.md` is the specification.

use model::{Digest, LEAF_BYTES_MAX};
use sha2::{Digest as _, Sha256};

pub(crate) const HEADER_BYTES: usize = 4096;
pub(crate) const GROUP_HEADER_BYTES: usize = 64;
/// Length and checksum before each entry.
pub(crate) const ENTRY_HEADER_BYTES: usize = 6;
/// The largest group, its header included.
pub(crate) const GROUP_BYTES_MAX: usize = 1 << 20;
/// The smallest segment: its header, and a group with one entry of the greatest length.
pub(crate) const SEGMENT_BYTES_MIN: u64 = 128 * 1024;

const MAGIC: &[u8; 16] = b"onrecord segment";
const VERSION: u32 = 1;

/// The first 4 KiB of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) number: u64,
    pub(crate) first: u64,
    pub(crate) origin: Digest,
    pub(crate) salt: [u8; 16],
    pub(crate) chain: Digest,
}

/// What precedes the entries of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    pub(crate) body_bytes: u32,
    pub(crate) count: u32,
    pub(crate) first: u64,
    /// All entries below this index were durable when the group was written.
    pub(crate) durable: u64,
    pub(crate) chain: Digest,
}

pub(crate) fn origin_hash(origin: &str) -> Digest {
    Digest(Sha256::digest(origin.as_bytes()).into())
}

pub(crate) fn segment_path(first: u64) -> String {
    format!("log/{first:020}.seg")
}

/// The first index that a segment's name says.
pub(crate) fn segment_first(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

/// `SHA-256(chain before || leaf hashes)`: the group's own link to everything before it.
pub(crate) fn chain(before: &Digest, leaves: &[Digest]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(before.0);
    for leaf in leaves {
        hash.update(leaf.0);
    }
    Digest(hash.finalize().into())
}

/// Groups begin at multiples of eight.
pub(crate) fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(8)
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.number.to_be_bytes());
        bytes.extend_from_slice(&self.first.to_be_bytes());
        bytes.extend_from_slice(&self.origin.0);
        bytes.extend_from_slice(&self.salt);
        bytes.extend_from_slice(&self.chain.0);
        bytes.resize(HEADER_BYTES - 4, 0);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut r = Bytes(bytes);
        if bytes.len() != HEADER_BYTES || r.take::<16>() != Some(*MAGIC) {
            return Err("this is no segment of a log");
        }
        match r.u32() {
            Some(VERSION) => {}
            _ => {
                return Err("the segment has another version than this program reads: use a newer one");
            }
        }
        let (body, crc) = bytes.split_at(HEADER_BYTES - 4);
        if Bytes(crc).u32() != Some(crc32c::crc32c(body)) {
            return Err("the segment's header is damaged");
        }
        let header = (|| {
            r.take::<4>().filter(|zero| *zero == [0; 4])?;
            Some(Self {
                number: r.u64()?,
                first: r.u64()?,
                origin: Digest(r.take()?),
                salt: r.take()?,
                chain: Digest(r.take()?),
            })
        })();
        header.filter(|_| r.0.iter().rev().skip(4).all(|&b| b == 0)).ok_or("the segment's header is malformed")
    }
}

impl GroupHeader {
    /// Completes a group whose first 64 bytes were left free: fills in the header and pads to a multiple of eight.
    pub(crate) fn seal(&self, salt: &[u8; 16], group: &mut Vec<u8>) {
        let mut header = Vec::with_capacity(GROUP_HEADER_BYTES);
        header.extend_from_slice(&self.body_bytes.to_be_bytes());
        header.extend_from_slice(&self.count.to_be_bytes());
        header.extend_from_slice(&self.first.to_be_bytes());
        header.extend_from_slice(&self.durable.to_be_bytes());
        header.extend_from_slice(&self.chain.0);
        header.extend_from_slice(&[0; 4]);
        let body = group.get(GROUP_HEADER_BYTES..).unwrap_or_default();
        let crc = group_crc(salt, &header, body);
        header.extend_from_slice(&crc.to_be_bytes());
        for (to, from) in group.iter_mut().zip(&header) {
            *to = *from;
        }
        group.resize(padded(group.len()), 0);
    }

    /// Reads a header that could be one; only the checksum says whether it is.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, u32)> {
        let mut r = Bytes(bytes);
        let header = Self {
            body_bytes: r.u32()?,
            count: r.u32()?,
            first: r.u64()?,
            durable: r.u64()?,
            chain: Digest(r.take()?),
        };
        let body = usize::try_from(header.body_bytes).ok()?;
        let count = usize::try_from(header.count).ok()?;
        let zero = r.u32()? == 0;
        let sizes = count > 0 && body >= count.checked_mul(ENTRY_HEADER_BYTES)? && body <= GROUP_BYTES_MAX;
        (zero && sizes && header.durable <= header.first).then_some((header, r.u32()?))
    }

    /// The group's length in the segment.
    pub(crate) fn total_bytes(&self) -> usize {
        padded(GROUP_HEADER_BYTES + usize::try_from(self.body_bytes).unwrap_or(usize::MAX - 128))
    }
}

pub(crate) fn group_crc(salt: &[u8; 16], header_60: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(salt), header_60), body)
}

/// Appends an entry to a group's body.
pub(crate) fn push_entry(body: &mut Vec<u8>, leaf: &[u8]) {
    debug_assert!(leaf.len() <= LEAF_BYTES_MAX, "the caller has checked the length");
    body.extend_from_slice(&u16::try_from(leaf.len()).unwrap_or(u16::MAX).to_be_bytes());
    body.extend_from_slice(&crc32c::crc32c(leaf).to_be_bytes());
    body.extend_from_slice(leaf);
}

/// One entry in a group's body.
pub(crate) struct EntryAt<'a> {
    /// Where the entry's own bytes begin, counted from the body's first.
    pub(crate) at: usize,
    pub(crate) leaf: &'a [u8],
    crc: u32,
}

impl EntryAt<'_> {
    /// Whether the entry's own checksum is right.
    pub(crate) fn is_intact(&self) -> bool {
        self.crc == crc32c::crc32c(self.leaf)
    }
}

/// The entries of a group's body, as long as their lengths make sense.
pub(crate) fn entries(body: &[u8]) -> impl Iterator<Item = EntryAt<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let mut r = Bytes(body.get(at..)?);
        let length = usize::from(u16::from_be_bytes(r.take()?));
        let crc = r.u32()?;
        let leaf = r.0.get(..length)?;
        let start = at + ENTRY_HEADER_BYTES;
        at = start + length;
        Some(EntryAt { at: start, leaf, crc })
    })
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }
}

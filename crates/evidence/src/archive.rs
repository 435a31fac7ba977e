//! The one file: a zip archive in its plainest form, so that any program unpacks it and nothing can hide in it.
//!
//! Every file is stored, not deflated. Times, attributes and the order are fixed, so that the same files are the same
//! bytes. The reader accepts only what the writer writes: each header is compared with the one that belongs there, byte
//! by byte. There is no room for extra fields, comments, second names, or anything before, between or after.

use std::collections::BTreeSet;

/// A bundle is at most this long, in bytes.
pub const BUNDLE_BYTES_MAX: usize = 1 << 30;
/// A bundle has at most this many files: what a zip archive without extensions can have.
pub const FILES_MAX: usize = 65_534;
/// A file's name is at most this long, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 128;

const LOCAL: [u8; 4] = *b"PK\x03\x04";
const CENTRAL: [u8; 4] = *b"PK\x01\x02";
const END: [u8; 4] = *b"PK\x05\x06";
const LOCAL_BYTES: usize = 30;
/// What a reader must know to unpack: 1.0, nothing beyond stored files.
const VERSION_NEEDED: u16 = 10;
/// Made as version 2.0 does on Unix, whose file modes follow.
const VERSION_MADE: u16 = (3 << 8) | 20;
/// A plain file, mode 0644.
const ATTRIBUTES: u32 = 0o100_644 << 16;
/// 1980-01-01, the earliest day that a zip archive can name: no clock has a part in a bundle.
const DATE: u16 = (1 << 5) | 1;

/// A file of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct File<'a> {
    pub(crate) name: &'a str,
    pub(crate) content: &'a [u8],
    /// Where the content begins in the archive.
    pub(crate) offset: usize,
    /// Whether the content is the one that the archive's checksum is of.
    pub(crate) intact: bool,
}

/// Bytes that are no archive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(crate) struct ArchiveError {
    /// The last file whose header was read.
    pub(crate) file: String,
    /// Where in the archive.
    pub(crate) offset: usize,
    pub(crate) what: &'static str,
}

/// What a header says of a file.
struct Header<'a> {
    name: &'a str,
    crc: u32,
    size: u32,
}

/// Writes an archive.
#[derive(Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    directory: Vec<u8>,
    files: u16,
}

/// More than a bundle can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

impl Writer {
    /// Appends a file.
    pub(crate) fn add(&mut self, name: &str, content: &[u8]) -> Result<(), TooLarge> {
        let room = BUNDLE_BYTES_MAX.saturating_sub(self.bytes.len() + self.directory.len() + 4 * NAME_BYTES_MAX);
        if content.len() > room || usize::from(self.files) >= FILES_MAX || !is_name(name) {
            return Err(TooLarge);
        }
        let header = Header { name, crc: crc32(content), size: u32::try_from(content.len()).map_err(|_| TooLarge)? };
        let offset = u32::try_from(self.bytes.len()).map_err(|_| TooLarge)?;
        header.write_local(&mut self.bytes);
        header.write_central(offset, &mut self.directory);
        self.bytes.extend_from_slice(content);
        self.files += 1;
        Ok(())
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let offset = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&self.directory);
        let size = u32::try_from(self.directory.len()).unwrap_or(u32::MAX);
        write_end(self.files, size, offset, &mut self.bytes);
        self.bytes
    }
}

/// Reads an archive: its files in order.
pub(crate) fn read(bytes: &[u8]) -> Result<Vec<File<'_>>, ArchiveError> {
    let mut files: Vec<File<'_>> = Vec::new();
    let (mut at, mut directory, mut names) = (0, Vec::new(), BTreeSet::new());
    let error = |files: &[File<'_>], offset, what| {
        let file = files.last().map(|file| file.name.to_owned()).unwrap_or_default();
        Err(ArchiveError { file, offset, what })
    };
    if bytes.len() > BUNDLE_BYTES_MAX {
        return error(&files, 0, "a bundle has at most 1 GiB");
    }
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.starts_with(&LOCAL)) {
        let Some((header, content)) = Header::read_local(rest) else {
            return error(&files, at, "the archive's header of this place is not one that a bundle has");
        };
        if !names.insert(header.name) {
            return error(&files, at, "the archive has two files of one name");
        }
        if files.len() >= FILES_MAX {
            return error(&files, at, "the archive has more files than a bundle can have");
        }
        header.write_central(u32::try_from(at).unwrap_or(u32::MAX), &mut directory);
        let offset = at + LOCAL_BYTES + header.name.len();
        files.push(File { name: header.name, content, offset, intact: crc32(content) == header.crc });
        at = offset + content.len();
    }
    let start = at;
    let mut expected = directory;
    let size = u32::try_from(expected.len()).unwrap_or(u32::MAX);
    let count = u16::try_from(files.len()).unwrap_or(u16::MAX);
    write_end(count, size, u32::try_from(start).unwrap_or(u32::MAX), &mut expected);
    let found = bytes.get(start..).unwrap_or_default();
    if found != expected {
        let same = found.iter().zip(&expected).take_while(|(found, expected)| found == expected).count();
        let what = match (same == expected.len(), same == found.len(), files.is_empty()) {
            (_, _, true) => "this is no evidence bundle: it is not a zip archive as bundles are",
            (true, _, _) => "something follows after the archive's end",
            (_, true, _) => "the archive is cut off",
            _ => "the archive's directory is not that of its files",
        };
        return error(&files, start + same, what);
    }
    Ok(files)
}

impl<'a> Header<'a> {
    /// Reads a header and the content after it. The header must be the one that [`Header::write_local`] writes.
    fn read_local(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (header, rest) = bytes.split_at_checked(LOCAL_BYTES)?;
        let number = |at: usize| header.get(at..at + 4).and_then(|n| n.try_into().ok()).map(u32::from_le_bytes);
        let (crc, size) = (number(14)?, number(18)?);
        let name_bytes = header.get(26..28).and_then(|n| n.try_into().ok()).map(u16::from_le_bytes)?;
        let (name, rest) = rest.split_at_checked(usize::from(name_bytes))?;
        let name = std::str::from_utf8(name).ok().filter(|name| is_name(name))?;
        let content = rest.get(..usize::try_from(size).ok()?)?;
        let read = Self { name, crc, size };
        let mut written = Vec::with_capacity(LOCAL_BYTES + name.len());
        read.write_local(&mut written);
        (bytes.get(..written.len()) == Some(&written)).then_some((read, content))
    }

    fn write_local(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&LOCAL);
        self.write_shared(out);
        out.extend_from_slice(self.name.as_bytes());
    }

    fn write_central(&self, offset: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&CENTRAL);
        out.extend_from_slice(&VERSION_MADE.to_le_bytes());
        self.write_shared(out);
        // No comment, the first disk, no internal attributes.
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(&ATTRIBUTES.to_le_bytes());
        out.extend_from_slice(&offset.to_le_bytes());
        out.extend_from_slice(self.name.as_bytes());
    }

    /// Version, flags, method, time, date, checksum, size twice, the name's length, no extra field.
    fn write_shared(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&VERSION_NEEDED.to_le_bytes());
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(&DATE.to_le_bytes());
        out.extend_from_slice(&self.crc.to_le_bytes());
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&u16::try_from(self.name.len()).unwrap_or(0).to_le_bytes());
        out.extend_from_slice(&[0; 2]);
    }
}

fn write_end(files: u16, size: u32, offset: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&END);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&files.to_le_bytes());
    out.extend_from_slice(&files.to_le_bytes());
    out.extend_from_slice(&size.to_le_bytes());
    out.extend_from_slice(&offset.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
}

/// Names that mean the same everywhere and lead nowhere else: plain words, joined by slashes.
fn is_name(name: &str) -> bool {
    let word = |word: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        !word.is_empty() && !word.starts_with('.') && word.bytes().all(plain)
    };
    name.len() <= NAME_BYTES_MAX && name.split('/').all(word)
}

/// The checksum of zip archives: CRC-32 of IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        let [low, ..] = crc.to_le_bytes();
        TABLE.get(usize::from(low ^ byte)).copied().unwrap_or(0) ^ (crc >> 8)
    };
    !bytes.iter().fold(u32::MAX, step)
}

const TABLE: [u32; 256] = table();

#[allow(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "evaluated when compiled")]
const fn table() -> [u32; 256] {
    let mut table = [0u32; 256];
    let mut n = 0;
    while n < 256 {
        let mut crc = n as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn archive() -> Vec<u8> {
        let mut writer = Writer::default();
        writer.add("README.txt", b"hello").unwrap();
        writer.add("blobs/aa", b"").unwrap();
        writer.add("z", &[7; 300]).unwrap();
        writer.finish()
    }

    #[test]
    fn the_checksum_is_that_of_zip() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = archive();
        let files = read(&bytes).unwrap();
        let names: Vec<_> = files.iter().map(|file| file.name).collect();
        assert_eq!(names, ["README.txt", "blobs/aa", "z"]);
        assert!(files.iter().all(|file| file.intact && bytes[file.offset..].starts_with(file.content)));
        assert_eq!(files[0].content, b"hello");
    }

    #[test]
    fn every_changed_byte_is_noticed_and_nothing_can_be_added_or_cut() {
        let bytes = archive();
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 0x20;
            let noticed = read(&other).map_or(true, |files| files.iter().any(|file| !file.intact));
            assert!(noticed, "byte {at}");
            assert!(read(&bytes[..at]).is_err(), "cut at {at}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(read(&longer).unwrap_err().what.contains("follows"));
        let mut before = vec![0];
        before.extend(&bytes);
        assert!(read(&before).is_err());
    }

    #[test]
    fn names_that_lead_elsewhere_and_second_files_of_a_name_are_refused() {
        for name in ["../x", "/x", "a//b", "a/", "", ".", "a/..", "C:\\x", "a b", "a\u{e9}", &"x".repeat(200)] {
            assert!(Writer::default().add(name, b"").is_err(), "{name}");
            assert!(!is_name(name), "{name}");
        }
        let mut writer = Writer::default();
        writer.add("a", b"1").unwrap();
        writer.add("a", b"2").unwrap();
        assert!(read(&writer.finish()).unwrap_err().what.contains("two files"));
    }
}

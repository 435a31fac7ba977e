//! What the fuzzer runs: any bytes as a segment, read by everything that reads segments; and as the files about keys.

use std::any::Any;
use std::io;
use std::sync::Arc;

use ledger::SigningKey;

use crate::disk::{Disk, DiskFile, Mode};
use crate::format::{HEADER_BYTES, SegmentHeader, origin_hash};
use crate::reader::Reader;
use crate::recover::recover;
use crate::verify::verify_on;
use crate::wrapping::{LocalKey, SealFile, WrappingKey};

const ORIGIN: &str = "fuzz.example/1";

/// Reads the bytes as the only segment of a log: nothing may panic, use memory without bound, or take damage for an
/// entry that recovery would keep and verification would not.
pub fn segment(data: &[u8]) {
    let Ok(key) = SigningKey::new(ORIGIN, &[7; 32]) else {
        return;
    };
    // Most inputs would end at the header's checksum: the fuzzer gives what follows it.
    let header = SegmentHeader {
        number: 0,
        first: 0,
        origin: origin_hash(ORIGIN),
        salt: [7; 16],
        chain: model::Digest([0; 32]),
    };
    for segment in [data.to_vec(), [header.encode(), data.to_vec()].concat()] {
        let disk: Arc<dyn Disk> = Arc::new(OneSegment { segment, vkey: format!("{}\n", key.verifier()) });
        let report = verify_on(disk.clone(), None, &[], &mut |_| {});
        let read = Reader::on(disk.clone()).map(|reader| reader.entries(0).take_while(Result::is_ok).count());
        let recovered = recover(&disk, &origin_hash(ORIGIN), &[], crate::recover::Begin::First);
        if let (Ok(report), Ok(found)) = (&report, &recovered) {
            assert_eq!(report.integrity.entries, found.recovery.entries, "recovery and verification agree");
        }
        if let (Ok(read), Ok(report)) = (read, &report) {
            assert!(u64::try_from(read).is_ok_and(|read| read <= report.integrity.entries), "no reader sees more");
        }
        let _ = SegmentHeader::decode(data.get(..HEADER_BYTES).unwrap_or(data));
    }
    let _ = model::Entry::decode(data);
    let _ = model::Peek::new(data);
}

/// Reads the bytes as the files that say how keys are kept and what was erased, and as a slot of keys: whatever is read
/// is written again as it was, and no slot opens that was not sealed.
pub fn keys(data: &[u8]) {
    let local = LocalKey::parse(data);
    if let Ok(file) = SealFile::parse(data) {
        assert_eq!(&**file.encode(), data, "a seal key's file has one form");
        let opened = file.open(local.as_ref().ok().map(|key| key as &dyn WrappingKey));
        assert!(opened.is_ok() == (data.len() == 32), "nobody wrapped this");
    }
    crate::custody::fuzz(data);
    let crc = format!("{:08x}\n", crc32c::crc32c(data));
    crate::custody::fuzz(&[data, crc.as_bytes()].concat());
}

/// A data directory with one segment, to which nothing is written.
struct OneSegment {
    segment: Vec<u8>,
    vkey: String,
}

struct Bytes(Vec<u8>);

impl Disk for OneSegment {
    fn open(&self, path: &str, _: Mode) -> io::Result<Box<dyn DiskFile>> {
        match path {
            "log/00000000000000000000.seg" => Ok(Box::new(Bytes(self.segment.clone()))),
            "vkey" => Ok(Box::new(Bytes(self.vkey.clone().into_bytes()))),
            "head" => Ok(Box::new(Bytes(vec![b'\n'; 1024]))),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, _: &str) -> io::Result<Vec<String>> {
        Ok(vec!["00000000000000000000.seg".to_owned()])
    }

    fn create_dir(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove_dir(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _: &str) -> io::Result<Box<dyn Any + Send + Sync>> {
        Ok(Box::new(()))
    }
}

impl DiskFile for Bytes {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = self.0.get(from..).unwrap_or_default();
        for (to, from) in buffer.iter_mut().zip(bytes) {
            *to = *from;
        }
        Ok(bytes.len().min(buffer.len()))
    }

    fn write_at(&self, bytes: &[u8], _: u64) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        u64::try_from(self.0.len()).map_err(|_| io::ErrorKind::FileTooLarge.into())
    }
}

//! What the fuzz target `bundle` runs on any bytes. Nothing may panic.

use crate::{Trust, verify};

/// Verifies the bytes as a bundle; and, since hardly any bytes are an archive, as each of its files.
pub fn bundle(data: &[u8]) {
    let report = verify(data, &Trust::default());
    let _ = report.json(10);
    if let Ok(files) = crate::archive::read(data) {
        // What is accepted can be written again, and is the same.
        let mut writer = crate::archive::Writer::default();
        if files.iter().all(|file| file.intact && writer.add(file.name, file.content).is_ok()) {
            assert_eq!(writer.finish(), data);
        }
    }
    let _ = crate::Manifest::parse(data);
    let _ = crate::entries::read_entries(data);
    let _ = crate::entries::read_hashes(data);
    let _ = crate::entries::read_keys(data);
    // An archive around the bytes, so that what is inside an archive is reached.
    for name in ["entries.txt", "manifest.json", "keys.txt"] {
        let mut writer = crate::archive::Writer::default();
        for file in ["README.txt", name, "checkpoint", "vkey"] {
            let _ = writer.add(file, if file == name { data } else { b"" });
        }
        let _ = verify(&writer.finish(), &Trust::default());
    }
}

//! `README.txt`: the bundle explained to an auditor who has never heard of it.

use crate::manifest::Manifest;

pub(crate) fn text(manifest: &Manifest) -> String {
    let Manifest { origin, size, range: (first, last), .. } = manifest;
    let commands = match manifest.count() {
        1 => "1 command".to_owned(),
        count => format!("{count} commands"),
    };
    let withheld: Vec<&str> = manifest.withheld.iter().map(|kind| kind.as_str()).collect();
    let withheld = match withheld.as_slice() {
        [] => "Nothing was withheld.".to_owned(),
        kinds => format!("Withheld by whoever exported it: {}.", kinds.join(", ")),
    };
    format!(
        "\
EVIDENCE FROM AN ONRECORD LOG

What this is
  Part of the record of an OnRecord gateway. The gateway stands between clients (AI agents, people, scripts) and a
  resource such as a database. It records each command before the command is passed on, and its outcome after.
  This file has {commands} of the log
    {origin}
  with every entry of their sessions, from entry {first} to entry {last}, and the proof that these entries are in the
  log as it was signed when it had {size} entries. What was asked for is in manifest.json under \"selection\".
  {withheld}

How to check it, three ways
  Before you begin, get the log's public key (one line, in the file vkey of the gateway's data directory) from somebody
  other than whoever gave you this file, or compare it with a copy that you kept. The key inside this file proves only
  that the file agrees with itself.

  1. In a browser, without a network: open verify.html and choose this file. Convenient, but the page came with the
     file; so confirm what it says by 2 or 3, with a program that you got elsewhere.
  2. On the command line:      onrecord verify FILE --vkey VKEY
     (or VKEY's line pasted)   onrecord evidence show FILE
  3. Independently:            python3 onrecord_verify.py FILE --vkey VKEY
     It is one file that shares no code with OnRecord; it comes with OnRecord's source. docs/format.md there says all
     that is needed to write another. The files sessions/*.tlog-proof are C2SP tlog-proofs, which other people's
     tools read.

  Each gives three verdicts, because they are three questions.
    integrity      Is every entry as it was written and signed? A changed byte is named by the entry it is in.
    completeness   Is every session here from its beginning, without gaps, and has every command its outcome?
    coverage       What was recorded, from when to when.

What is in it
  manifest.json   what was asked for, and every other file with its SHA-256
  entries.txt     the entries: index, hash, and the exact bytes that the hash is of
  proof.txt       the hashes that lead from these entries to the signed root
  checkpoint      the signed root, with the signatures of witnesses if there are any
  vkey            the log's public key
  keys.txt        keys that open the disclosed content, each one field and no other
  blobs/          long content, encrypted; opened by the same keys
  sessions/       for each session a standard proof of its last entry
  policy          which witnesses the gateway asked for, if it did
  verify.html     the page for the browser

What it does not prove
  - That nothing else happened. Commands that went around the gateway are in no record.
  - That these are all commands that match the selection. It has whole sessions, so nothing is missing inside them; but
    a session that was left out cannot be seen here. The log itself has an entry of each export.
  - What a command did inside the database beyond what the database answered.
  - That the gateway's machine was honest when the entries were written. From then on they cannot be changed
    unnoticed; the witnesses' signatures, if there are any, say from which time on somebody else watched.
  - That the clock was right. Each entry has the gateway's time; witnesses sign theirs.
"
    )
}

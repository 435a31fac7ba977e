//! Witnesses, as processes: they cosign, they remember, they show rollbacks and forks, and nobody waits for them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use testkit::process::poll;
use testkit::raw::{Raw, kinds, query};
use testkit::{Gateway, Postgres, Witness, copy_directory, http};

use crate::plan;
use crate::publish::{receipt, session};

fn witness(name: &str) -> Witness {
    Witness::start(env!("CARGO_BIN_EXE_onrecord"), &format!("witness.example.com/{name}"))
}

/// A policy in a file of its own, and the configuration that names it.
struct Policy {
    _dir: tempfile::TempDir,
    file: PathBuf,
}

impl Policy {
    fn new(witnesses: &[&Witness], quorum: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("policy.tlog");
        let lines: String = witnesses.iter().map(|witness| witness.policy_line()).collect();
        let names: Vec<String> = witnesses.iter().map(|witness| witness.policy_name()).collect();
        fs::write(&file, format!("{lines}group g {quorum} {}\nquorum g\n", names.join(" "))).unwrap();
        Self { _dir: dir, file }
    }

    fn tables(&self) -> String {
        format!("[witness]\npolicy = \"file:{}\"\ninterval_seconds = 1\ntimeout_seconds = 5\n", self.file.display())
    }
}

/// What `onrecord witness status` says: how far behind each is; none if nothing is known.
fn status(gateway: &Gateway) -> Vec<serde_json::Value> {
    let ran = gateway.cli(&["witness", "status", "--output", "json"]);
    serde_json::from_str::<Vec<serde_json::Value>>(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {}", ran.stderr))
}

/// Size and root of the note at a place.
fn head(note: &str) -> Option<(u64, String)> {
    let mut lines = note.lines().skip(1);
    Some((lines.next()?.parse().ok()?, lines.next()?.to_owned()))
}

/// What a witness has cosigned last of a log.
fn cosigned(witness: &Witness, vkey: &str) -> Option<(u64, String)> {
    use sha2::Digest as _;
    let origin = vkey.split('+').next().unwrap();
    let hex: String = sha2::Sha256::digest(origin).iter().map(|b| format!("{b:02x}")).collect();
    let reply = http::request("GET", &format!("{}/{hex}/checkpoint", witness.url()), "", b"")?;
    (reply.status == 200).then(|| head(&reply.text()))?
}

/// The last entry about the witnesses, as it is in the log's bundles.
fn last_notice(gateway: &Gateway) -> Option<serde_json::Value> {
    let mut found = None;
    for file in walk(&gateway.data().join("tiles/tile/entries")) {
        let bytes = fs::read(file).unwrap_or_default();
        let mut rest = bytes.as_slice();
        while let Some((length, after)) = rest.split_first_chunk::<2>() {
            let Some((entry, after)) = after.split_at_checked(usize::from(u16::from_be_bytes(*length))) else { break };
            rest = after;
            if entry.starts_with(b"{\"v\":1,\"k\":\"witnesses\"") {
                found = serde_json::from_slice(entry).ok();
            }
        }
    }
    found
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

#[test]
fn two_witnesses_cosign_and_satisfy_the_policy() {
    let server = Postgres::start();
    let (one, two) = (witness("one"), witness("two"));
    let policy = Policy::new(&[&one, &two], "all");
    let gateway = plan().tables(&policy.tables()).start(&server);
    one.add_log(&gateway.vkey());
    two.add_log(&gateway.vkey());
    let ended = session(&gateway, 5);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("receipt");
    let policy_file = policy.file.to_str().unwrap();
    poll("a receipt that both have cosigned", || {
        fs::write(&file, receipt(&gateway, &ended)).unwrap();
        let args = ["receipt", "check", file.to_str().unwrap(), "--vkey", &gateway.vkey(), "--policy", policy_file];
        let ran = gateway.cli(&args);
        let both = ran.stdout.contains(&one.policy_name()) && ran.stdout.contains(&two.policy_name());
        (ran.status.success() && both).then_some(())
    });
    poll("an entry that says that both are current", || {
        let notice = last_notice(&gateway)?;
        let states: Vec<_> =
            notice["witnesses"].as_array()?.iter().map(|w| w["state"].as_str().unwrap_or("")).collect();
        (states == ["current", "current"] && notice["enough"].is_u64()).then_some(())
    });
    for row in status(&gateway) {
        assert!(row["size"].as_u64().unwrap() > 0 && row["error"].is_null(), "{row}");
    }
    let said = gateway.cli(&["doctor"]).stdout;
    assert!(said.contains("witness witness.example.com-one: has cosigned"), "{said}");
    gateway.verify();
}

/// Killed again and again while a gateway asks: what it shows never goes back, and never says two things of one size.
#[test]
fn a_killed_witness_forgets_nothing() {
    let server = Postgres::start();
    let mut witness = witness("killed");
    let policy = Policy::new(&[&witness], "all");
    let gateway = plan().tables(&policy.tables()).start(&server);
    let vkey = gateway.vkey();
    witness.add_log(&vkey);
    let mut roots: BTreeMap<u64, String> = BTreeMap::new();
    let mut last = 0;
    for _ in 0..6 {
        session(&gateway, 1);
        let (size, root) = poll("a later cosignature", || cosigned(&witness, &vkey).filter(|(size, _)| *size > last));
        assert_eq!(*roots.entry(size).or_insert(root.clone()), root);
        witness.kill9();
        witness.restart();
        let (again, root) = cosigned(&witness, &vkey).expect("it remembers");
        assert!(again >= size, "{again} after {size}");
        assert_eq!(*roots.entry(again).or_insert(root.clone()), root);
        last = again;
    }
    // What the log keeps as cosigned says the same.
    let kept = fs::read_to_string(gateway.data().join("tiles/cosigned")).unwrap();
    let (size, root) = head(&kept).unwrap();
    assert_eq!(*roots.entry(size).or_insert(root.clone()), root);
}

#[test]
fn nobody_waits_for_an_absent_witness_and_the_record_says_so() {
    let server = Postgres::start();
    let (here, mut away) = (witness("here"), witness("away"));
    away.kill9();
    let policy = Policy::new(&[&here, &away], "all");
    let gateway = plan().tables(&policy.tables()).start(&server);
    here.add_log(&gateway.vkey());
    let mut raw = Raw::login(&gateway.target());
    assert_eq!(kinds(&raw.exchange(&query("select 'recorded'"), 1)), "TDCZ");
    let states = || -> Option<Vec<String>> {
        let notice = last_notice(&gateway)?;
        let states = notice["witnesses"].as_array()?.iter().map(|w| w["state"].as_str().unwrap_or("").to_owned());
        Some(states.collect())
    };
    poll("an entry that says who is there", || (states()? == ["current", "absent"]).then_some(()));
    assert!(last_notice(&gateway).unwrap().get("enough").is_none_or(serde_json::Value::is_null));
    let said = gateway.cli(&["doctor"]).stdout;
    assert!(said.contains("warn  witness witness.example.com-away: not established"), "{said}");
    // It comes, and does not know the log: it refuses. Then it is told.
    away.restart();
    poll("an entry that says that it refuses", || (states()? == ["current", "refused"]).then_some(()));
    away.add_log(&gateway.vkey());
    poll("an entry that says that both are current", || (states()? == ["current", "current"]).then_some(()));
    assert_eq!(gateway.settled("app").only("'recorded'").status(), "ok");
    gateway.verify();
}

/// The whole data directory is put back as it was some time ago. The directory itself cannot tell; the witness can.
#[test]
fn a_restored_backup_is_shown_by_the_witness() {
    let server = Postgres::start();
    let witness = witness("rollback");
    let policy = Policy::new(&[&witness], "all");
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = plan().tables(&policy.tables()).data(&dir.path().join("data")).start(&server);
    let vkey = gateway.vkey();
    witness.add_log(&vkey);
    session(&gateway, 2);
    gateway.stop();
    let backup = dir.path().join("backup");
    copy_directory(gateway.data(), &backup);
    let (before, _) = head(&fs::read_to_string(backup.join("checkpoint")).unwrap()).unwrap();
    let mut gateway = gateway.restart();
    session(&gateway, 2);
    let (seen, _) =
        poll("a cosignature beyond the backup", || cosigned(&witness, &vkey).filter(|(size, _)| *size > before));
    gateway.stop();
    fs::rename(gateway.data(), dir.path().join("newest")).unwrap();
    copy_directory(&backup, gateway.data());
    let gateway = gateway.restart();
    let said = gateway.stderr();
    assert!(said.contains("the log must not go on"), "{said}");
    assert!(said.contains(&format!("{seen} entries that this log has signed")), "{said}");
    // Nothing more was signed or written under the old name: another log goes on, and says what it knows of the old one.
    let old = gateway.data().join("epochs/1");
    for file in ["checkpoint", "head", "vkey", "log/00000000000000000000.seg"] {
        assert_eq!(fs::read(old.join(file)).unwrap(), fs::read(backup.join(file)).unwrap(), "{file}");
    }
    assert_ne!(gateway.vkey(), vkey);
    session(&gateway, 1);
    let listed = gateway.cli(&["epochs", "list", "--output", "ndjson"]).expect_success("epochs list");
    let current: serde_json::Value = serde_json::from_str(listed.lines().last().unwrap()).unwrap();
    assert_eq!(current["origin"], "gateway.example.com/test/epoch-2");
    let previous = &current["previous"];
    assert_eq!((&previous["reason"], &previous["witnessed"]), (&"rollback".into(), &seen.into()), "{previous}");
    assert_eq!(previous["vkey"], vkey.trim());
    assert!(gateway.verify().contains("continues log gateway.example.com/test after"));
    gateway.cli(&["verify", old.to_str().unwrap()]).expect_success("verify the old log");
    // The witness is told of the new key, and what goes on is cosigned.
    witness.add_log(&gateway.vkey());
    poll("a cosignature of the new log", || cosigned(&witness, &gateway.vkey()));
}

/// A copy of a data directory is started while the original runs: its past is a part of what the witness has seen, and
/// what it would add is another future.
#[test]
fn a_copy_does_not_go_on_with_the_original_s_log() {
    let server = Postgres::start();
    let witness = witness("copy");
    let policy = Policy::new(&[&witness], "all");
    let mut gateway = plan().tables(&policy.tables()).start(&server);
    let vkey = gateway.vkey();
    witness.add_log(&vkey);
    session(&gateway, 2);
    gateway.stop();
    let dir = tempfile::tempdir().unwrap();
    let copied = dir.path().join("copy");
    copy_directory(gateway.data(), &copied);
    let (before, _) = head(&fs::read_to_string(copied.join("checkpoint")).unwrap()).unwrap();
    let gateway = gateway.restart();
    poll("a cosignature beyond the copy", || cosigned(&witness, &vkey).filter(|(size, _)| *size > before));
    let copy = gateway.copy(&copied, &server).unwrap();
    let said = copy.stderr();
    assert!(said.contains("the log must not go on"), "{said}");
    assert_ne!(copy.vkey(), vkey);
    session(&copy, 1);
    copy.verify();
    session(&gateway, 1);
    gateway.verify();
}

/// Two gateways on copies of one data directory, both started while the witness is away. When it is back, one of them is
/// cosigned; the other is shown to be a fork, by its own signature, and goes on with another log.
#[test]
fn a_fork_is_refused_and_ends() {
    let server = Postgres::start();
    let mut witness = witness("fork");
    let policy = Policy::new(&[&witness], "all");
    let mut gateway = plan().tables(&policy.tables()).start(&server);
    let vkey = gateway.vkey();
    witness.add_log(&vkey);
    session(&gateway, 2);
    poll("a cosignature", || cosigned(&witness, &vkey));
    gateway.stop();
    witness.kill9();
    let dir = tempfile::tempdir().unwrap();
    let copied = dir.path().join("copy");
    copy_directory(gateway.data(), &copied);
    let original = gateway.restart();
    let copy = original.copy(&copied, &server).unwrap();
    session(&original, 1);
    session(&copy, 2);
    witness.restart();
    let ended = |gateway: &Gateway| gateway.stderr().contains("the log must not go on");
    let winner = poll("one of them to end its log", || match (ended(&original), ended(&copy)) {
        (false, false) => None,
        (true, _) => Some(&copy),
        (_, true) => Some(&original),
    });
    assert!(!ended(winner), "one goes on");
    let loser = if std::ptr::eq(winner, &original) { &copy } else { &original };
    // The files move in between.
    let now = || fs::read_to_string(loser.data().join("vkey")).ok().filter(|now| now.trim() != vkey);
    poll("the other to go on with another log", now);
    session(winner, 1);
    poll("the winner's checkpoint to be what the witness has seen", || {
        let kept = fs::read_to_string(winner.data().join("tiles/cosigned")).ok()?;
        (head(&kept) == cosigned(&witness, &vkey)).then_some(())
    });
    winner.verify();
}

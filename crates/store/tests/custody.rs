//! Content is erased and the record still proves itself; holds keep it; what was erased does not come back.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::*;
use model::{Actor, CommandId, ContentKind, EraseCause, Field, Known, SessionId, Status};
use store::{
    CommandView, Custody, CustodyError, Disk, Filter, Gate, HoldScope, LocalKey, Opened, Options, OutcomeDraft, Reader,
    Recorder, SessionLog, StoreError, Wrapping, WrappingError, WrappingKey, commands, verify_on,
};
use testkit::sim_disk::{Fault, SimDisk, Unsynced};

fn person() -> Actor {
    Actor { name: "uid:1000".into(), known: Known::Verified }
}

fn reader(disk: &SimDisk) -> Reader {
    Reader::on(Arc::new(disk.clone())).unwrap()
}

fn seen(disk: &SimDisk) -> BTreeMap<CommandId, CommandView> {
    commands(&reader(disk), Filter::default()).map(Result::unwrap).map(|view| (view.id, view)).collect()
}

fn assert_verifies(disk: &SimDisk, what: &str) {
    let report = verify_on(Arc::new(disk.clone()), None, &[], &mut |_| {}).unwrap();
    assert!(report.is_ok(), "{what}: {report:#?}");
}

/// A command with a text, parameters and an error message.
fn failed(gate: &Gate, session: &mut SessionLog, text: &Field, parameters: &[u8], message: &[u8]) -> CommandId {
    let parameters = session.seal(parameters);
    let pending = session.intent(&intent(text, &parameters)).unwrap();
    let recorded = admit(gate, pending).unwrap();
    let id = recorded.command();
    let message = session.seal(message);
    session.outcome(recorded, &OutcomeDraft { message, ..OutcomeDraft::new(Status::Error) }).unwrap();
    id
}

fn long_text() -> Vec<u8> {
    format!("select '{}'", "private and long ".repeat(3000)).into_bytes()
}

/// Two sessions: the first has a prepared statement that runs twice and a long text, the second one command.
struct Place {
    disk: SimDisk,
    first: SessionId,
    second: SessionId,
}

fn place() -> Place {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    let (recorder, _) = open(&disk).unwrap();
    let gate = recorder.gate();
    let (mut session, _opening) = recorder.open_session(start()).unwrap();
    let first = session.id();
    let prepared = session.seal(b"select secret where name = $1");
    failed(&gate, &mut session, &prepared, b"[\"alice\"]", b"no alice");
    failed(&gate, &mut session, &prepared, b"[\"bob\"]", b"no bob");
    let long = session.seal(&long_text());
    failed(&gate, &mut session, &long, b"[]", b"too long");
    session.close(closing()).unwrap();
    let (mut session, _opening) = recorder.open_session(start()).unwrap();
    let second = session.id();
    command(&gate, &mut session, "select 'kept'").unwrap();
    session.close(closing()).unwrap();
    recorder.stop().unwrap();
    Place { disk, first, second }
}

fn command_of(session: SessionId, ordinal: u32) -> CommandId {
    CommandId { session, ordinal }
}

fn bytes(text: &[u8]) -> Opened {
    Opened::Bytes(text.to_vec())
}

fn is_erased(content: &Opened) -> bool {
    matches!(content, Opened::Erased(Some(_)))
}

fn slot_of(disk: &SimDisk, session: SessionId) -> u64 {
    let found = reader(disk).entries(0).map(Result::unwrap).find_map(|stored| match stored.entry.body {
        model::Body::SessionOpen(open) if open.link.session == session => Some(open.key_slot),
        _ => None,
    });
    found.unwrap()
}

#[test]
fn an_erased_session_is_gone_and_the_record_says_so() {
    let Place { disk, first, second } = place();
    let slot = usize::try_from(slot_of(&disk, first)).unwrap() * 64;
    let wrapped = disk.bytes("keys/sessions").unwrap()[slot..slot + 60].to_vec();
    let key_of_field = *reader(&disk).reveal(first, 0).unwrap().unwrap().bytes();
    assert_eq!(disk.paths().iter().filter(|path| path.starts_with("blobs/")).count(), 1);

    let (recorder, _) = open(&disk).unwrap();
    let erased = recorder.erase(first, &person(), "asked for by Alice").unwrap();
    assert_eq!((erased.session, erased.blobs), (first, 1));
    assert!(matches!(recorder.erase(first, &person(), "again"), Err(CustodyError::Already)));
    let again = recorder.redact(command_of(first, 1), ContentKind::Message, &person(), "again");
    assert!(matches!(again, Err(CustodyError::Already)));
    let nobody = SessionId::new(1, [1; 10]);
    assert!(matches!(recorder.erase(nobody, &person(), "x"), Err(CustodyError::NoSession(_))));
    for reason in ["", "  ", "two\nlines", &"x".repeat(1025)] {
        assert!(matches!(recorder.erase(second, &person(), reason), Err(CustodyError::Reason)), "{reason:?}");
    }
    recorder.stop().unwrap();

    assert_verifies(&disk, "erased");
    for view in seen(&disk).values() {
        let message = &view.outcome.as_ref().unwrap().message;
        if view.id.session == second {
            assert_eq!(view.text, bytes(b"select 'kept'"));
            continue;
        }
        for content in [&view.text, &view.parameters, message] {
            let Opened::Erased(Some(erasure)) = content else { panic!("{content:?}") };
            assert_eq!((&*erasure.reason, erasure.cause), ("asked for by Alice", EraseCause::Request));
            assert_eq!((&*erasure.by, erasure.index), (&person(), erased.index));
        }
    }
    for path in disk.paths() {
        let bytes = disk.bytes(&path).unwrap();
        for gone in [&wrapped[..], &key_of_field, b"private and long", b"alice"] {
            let found = bytes.windows(gone.len()).any(|window| window == gone);
            // The reason is a person's to choose.
            assert!(!found, "{path} still has {}", String::from_utf8_lossy(gone));
        }
    }
    assert!(!disk.paths().iter().any(|path| path.starts_with("blobs/")), "{:?}", disk.paths());
}

#[test]
fn what_is_still_open_is_not_erased() {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    let (recorder, _) = open(&disk).unwrap();
    let gate = recorder.gate();
    let (mut session, _opening) = recorder.open_session(start()).unwrap();
    let id = command(&gate, &mut session, "select 1").unwrap();
    assert!(matches!(recorder.erase(id.session, &person(), "x"), Err(CustodyError::Open(_))));
    let redacted = recorder.redact(id, ContentKind::Statement, &person(), "x");
    assert!(matches!(redacted, Err(CustodyError::Open(_))));
    session.close(closing()).unwrap();
    recorder.erase(id.session, &person(), "x").unwrap();
    assert!(is_erased(&seen(&disk)[&id].text));
}

#[test]
fn one_field_goes_and_the_others_stay() {
    let Place { disk, first, second } = place();
    let (recorder, _) = open(&disk).unwrap();
    let redact = |command, field| recorder.redact(command_of(first, command), field, &person(), "a name in it");
    let texts = |disk: &SimDisk| {
        let seen = seen(disk);
        let view = |ordinal| seen[&command_of(first, ordinal)].clone();
        [1, 2, 3].map(|ordinal| {
            let view = view(ordinal);
            [view.text, view.parameters, view.outcome.unwrap().message].map(|content| !is_erased(&content))
        })
    };
    let shared = redact(1, ContentKind::Statement).unwrap().shared;
    assert_eq!(shared, [(command_of(first, 2), ContentKind::Statement)]);
    assert_eq!(texts(&disk), [[false, true, true], [false, true, true], [true; 3]]);
    assert!(matches!(redact(2, ContentKind::Statement), Err(CustodyError::Already)));
    assert!(matches!(redact(9, ContentKind::Statement), Err(CustodyError::NoCommand(_))));
    let nothing = recorder.redact(command_of(second, 1), ContentKind::Message, &person(), "x");
    assert!(matches!(nothing, Err(CustodyError::Nothing { .. })));

    redact(2, ContentKind::Parameters).unwrap();
    let blob = redact(3, ContentKind::Statement).unwrap();
    assert_eq!((blob.blobs, blob.shared.len()), (1, 0));
    let after = [[false, true, true], [false, false, true], [false, true, true]];
    assert_eq!(texts(&disk), after);
    assert_eq!(seen(&disk)[&command_of(first, 1)].parameters, bytes(b"[\"alice\"]"));
    recorder.stop().unwrap();
    assert_verifies(&disk, "redacted");

    // As much is left after a start, and also when the state is made again from the log alone.
    for path in ["", "custody"] {
        let disk = disk.copy();
        let _ = disk.remove(path);
        open(&disk).unwrap().0.stop().unwrap();
        assert_eq!(texts(&disk), after, "{path}");
        assert_verifies(&disk, "restarted");
    }

    let (recorder, _) = open(&disk).unwrap();
    recorder.erase(first, &person(), "now all").unwrap();
    recorder.stop().unwrap();
    assert_eq!(texts(&disk), [[false; 3]; 3]);
    assert!(!disk.paths().iter().any(|path| path.starts_with("keys/fields/")), "{:?}", disk.paths());
    assert_verifies(&disk, "erased after all");
}

#[test]
fn an_old_copy_of_the_keys_brings_nothing_back() {
    let Place { disk, first, second } = place();
    let copy = |disk: &SimDisk| -> Vec<(String, Vec<u8>)> {
        let keys = disk.paths().into_iter().filter(|path| path.starts_with("keys/"));
        keys.map(|path| (path.clone(), disk.bytes(&path).unwrap())).collect()
    };
    let put_back = |disk: &SimDisk, copy: &[(String, Vec<u8>)]| {
        for path in disk.paths().iter().filter(|path| path.starts_with("keys/")) {
            disk.remove(path).unwrap();
        }
        copy.iter().for_each(|(path, bytes)| disk.set_bytes(path, bytes));
    };
    let whole = copy(&disk);
    let (recorder, _) = open(&disk).unwrap();
    recorder.redact(command_of(first, 1), ContentKind::Parameters, &person(), "x").unwrap();
    let redacted_once = copy(&disk);
    recorder.redact(command_of(first, 2), ContentKind::Parameters, &person(), "x").unwrap();
    recorder.erase(second, &person(), "x").unwrap();
    recorder.stop().unwrap();

    for (old, name) in [(&whole, "before all"), (&redacted_once, "between")] {
        for custody in ["kept", "removed"] {
            let disk = disk.copy();
            put_back(&disk, old);
            let back = commands(&reader(&disk), Filter::default()).any(|view| view.unwrap().id.session == second);
            assert!(back);
            if custody == "removed" {
                disk.remove("custody").unwrap();
            }
            let (recorder, _) = open_with(&disk, options(), 5).unwrap();
            // Sessions that begin now must not get the key slots of those on the record.
            let gate = recorder.gate();
            let (mut session, _opening) = recorder.open_session(start()).unwrap();
            let new = command(&gate, &mut session, "select 'new'").unwrap();
            session.close(closing()).unwrap();
            recorder.stop().unwrap();
            open(&disk).unwrap().0.stop().unwrap();
            let seen = seen(&disk);
            let what = format!("{name}, custody {custody}");
            assert!(is_erased(&seen[&command_of(second, 1)].text), "{what}");
            assert!(is_erased(&seen[&command_of(first, 1)].parameters), "{what}");
            assert!(is_erased(&seen[&command_of(first, 2)].parameters), "{what}");
            assert_eq!(seen[&command_of(first, 1)].text, bytes(b"select secret where name = $1"), "{what}");
            assert_eq!(seen[&new].text, bytes(b"select 'new'"), "{what}");
            assert_verifies(&disk, &what);
        }
    }
}

#[test]
fn a_shorter_copy_of_the_key_table_costs_no_later_session_its_key() {
    let Place { disk, first, .. } = place();
    let (recorder, _) = open(&disk).unwrap();
    recorder.erase(first, &person(), "x").unwrap();
    recorder.stop().unwrap();
    disk.set_bytes("keys/sessions", &[]);
    let (recorder, _) = open_with(&disk, options(), 5).unwrap();
    let gate = recorder.gate();
    let (mut session, _opening) = recorder.open_session(start()).unwrap();
    let new = command(&gate, &mut session, "select 'new'").unwrap();
    session.close(closing()).unwrap();
    recorder.stop().unwrap();
    for _ in 0..2 {
        open(&disk).unwrap().0.stop().unwrap();
        assert_eq!(seen(&disk)[&new].text, bytes(b"select 'new'"));
    }
}

#[test]
fn a_hold_keeps_what_it_covers() {
    let Place { disk, first, second } = place();
    let scopes = [
        HoldScope::default(),
        HoldScope { session: Some(first), ..HoldScope::default() },
        HoldScope { connection: Some("app".into()), ..HoldScope::default() },
        HoldScope {
            identity: Some("agent:copilot-agent".parse().unwrap()),
            connection: Some("app".into()),
            session: Some(first),
        },
    ];
    for scope in scopes {
        let disk = disk.copy();
        let (recorder, _) = open(&disk).unwrap();
        let hold = recorder.place_hold(scope.clone(), &person(), "litigation").unwrap();
        let held = |recorder: &Recorder| {
            let erase = recorder.erase(first, &person(), "x").unwrap_err();
            assert!(erase.to_string().contains(&hold) && erase.to_string().contains("litigation"), "{erase}");
            let redact = recorder.redact(command_of(first, 1), ContentKind::Message, &person(), "x");
            assert!(matches!(redact, Err(CustodyError::Held { .. })), "{redact:?}");
        };
        held(&recorder);
        recorder.stop().unwrap();
        for custody in ["kept", "removed", "damaged"] {
            match custody {
                "removed" => disk.remove("custody").unwrap(),
                "damaged" => disk.set_bytes("custody", b"onrecord/v1 custody\n"),
                _ => {}
            }
            let (recorder, _) = open(&disk).unwrap();
            assert_eq!(recorder.holds().iter().map(|held| &held.hold.hold).collect::<Vec<_>>(), [&hold], "{custody}");
            assert_eq!(recorder.holds(), Custody::on(&(Arc::new(disk.clone()) as Arc<dyn Disk>)).unwrap().holds());
            held(&recorder);
            recorder.stop().unwrap();
        }
        let (recorder, _) = open(&disk).unwrap();
        assert!(matches!(recorder.release_hold("nothing", &person(), "x"), Err(CustodyError::NoHold(_))));
        if scope.session.is_some() {
            recorder.erase(second, &person(), "not held").unwrap();
        }
        recorder.release_hold(&hold, &person(), "settled").unwrap();
        assert!(recorder.holds().is_empty());
        recorder.erase(first, &person(), "x").unwrap();
        recorder.stop().unwrap();
        assert_verifies(&disk, "held and released");
    }
}

/// What is done to a log in the crash tests.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Erase,
    Redact(u32, ContentKind),
}

fn do_it(recorder: &Recorder, first: SessionId, deed: Deed) -> Result<(), CustodyError> {
    match deed {
        Deed::Erase => recorder.erase(first, &person(), "x").map(drop),
        Deed::Redact(ordinal, field) => recorder.redact(command_of(first, ordinal), field, &person(), "x").map(drop),
    }
}

/// After a crash, the content of each field opens, or the log says that it was erased and it does not.
fn assert_honest(disk: &SimDisk, first: SessionId, deed: Deed, acknowledged: bool, what: &str) {
    open(disk).unwrap_or_else(|error| panic!("{what}: {error}")).0.stop().unwrap();
    assert_verifies(disk, what);
    let reader = reader(disk);
    let said = !reader.erasures(first).unwrap().is_empty();
    assert!(said || !acknowledged, "{what}: acknowledged, and not on the record");
    let seen = seen(disk);
    let long = long_text();
    let texts = [&b"select secret where name = $1"[..], b"select secret where name = $1", &long];
    let others = [(&b"[\"alice\"]"[..], &b"no alice"[..]), (b"[\"bob\"]", b"no bob"), (b"[]", b"too long")];
    for ordinal in 1..=3 {
        let view = &seen[&command_of(first, ordinal)];
        let at = usize::try_from(ordinal).unwrap() - 1;
        let message = &view.outcome.as_ref().unwrap().message;
        let contents = [
            (&view.text, texts[at], ContentKind::Statement),
            (&view.parameters, others[at].0, ContentKind::Parameters),
            (message, others[at].1, ContentKind::Message),
        ];
        for (content, expected, field) in contents {
            let meant = match deed {
                Deed::Erase => true,
                Deed::Redact(of, role) => {
                    let prepared = field == ContentKind::Statement && of < 3 && ordinal < 3;
                    role == field && (of == ordinal || prepared)
                }
            };
            if said && meant {
                assert!(is_erased(content), "{what}: {field:?} of {ordinal} is {content:?}");
            } else {
                assert!(*content == bytes(expected), "{what}: {field:?} of {ordinal} is {content:?}");
            }
        }
    }
    let left = disk.paths().iter().filter(|path| path.starts_with("keys/fields/")).count();
    assert_eq!(left, usize::from(said && !matches!(deed, Deed::Erase)), "{what}");
}

const DEEDS: [Deed; 3] =
    [Deed::Erase, Deed::Redact(1, ContentKind::Statement), Deed::Redact(3, ContentKind::Statement)];

#[test]
fn the_power_goes_at_every_operation_of_an_erasure() {
    let Place { disk: made, first, .. } = place();
    for deed in DEEDS {
        let disk = made.copy();
        let (recorder, _) = open(&disk).unwrap();
        let before = disk.operations();
        do_it(&recorder, first, deed).unwrap();
        let operations = disk.operations() - before;
        assert!(operations > 6, "{operations}");
        drop(recorder);
        for at in 0..operations + 2 {
            let disk = made.copy();
            let (recorder, _) = open(&disk).unwrap();
            disk.at(disk.operations() + at, Fault::Crash);
            let acknowledged = do_it(&recorder, first, deed).is_ok();
            disk.crash();
            drop(recorder);
            let states = [Unsynced::Dropped, Unsynced::Kept, Unsynced::Reordered(at), Unsynced::Torn(at * 3 + 1)];
            for state in states {
                let what = format!("{deed:?}, crash at operation {at}, {state:?}");
                assert_honest(&disk.after_crash(state), first, deed, acknowledged, &what);
            }
            // The power goes again while the next start carries it out.
            for again in [3, 6, 9, 12] {
                let disk = disk.after_crash(Unsynced::Kept);
                disk.at(disk.operations() + again, Fault::Crash);
                let _ = open(&disk);
                disk.crash();
                let what = format!("{deed:?}, crash at operation {at} and then at {again}");
                assert_honest(&disk.after_crash(Unsynced::Torn(at)), first, deed, acknowledged, &what);
            }
        }
    }
}

#[test]
fn the_disk_fails_at_every_operation_of_an_erasure() {
    let Place { disk: made, first, .. } = place();
    for deed in DEEDS {
        for at in 0..40 {
            let disk = made.copy();
            let (recorder, _) = open(&disk).unwrap();
            let kind = std::io::ErrorKind::StorageFull;
            let fault = if at % 2 == 0 { Fault::Error(kind) } else { Fault::ErrorAfter(kind) };
            disk.at(disk.operations() + at, fault);
            let done = do_it(&recorder, first, deed);
            // What is on the record is carried out with the next request, if the log itself goes on.
            let next = recorder.place_hold(HoldScope::default(), &person(), "anything");
            if let (Err(CustodyError::Unfinished(_)), Ok(_)) = (&done, &next) {
                let view = &seen(&disk)[&command_of(first, 3)];
                assert!(is_erased(&view.text) || matches!(deed, Deed::Redact(1, _)), "{deed:?} at {at}");
            }
            drop(recorder);
            disk.crash();
            let disk = disk.after_crash(Unsynced::Dropped);
            assert_honest(&disk, first, deed, done.is_ok(), &format!("{deed:?}, {fault:?} at {at}"));
        }
    }
}

fn wrapping(digit: u8) -> LocalKey {
    LocalKey::parse(&[digit; 64]).unwrap()
}

fn with_key(key: Option<LocalKey>) -> Options {
    Options { wrapping_key: key.map(|key| Arc::new(key) as Arc<dyn WrappingKey>), ..options() }
}

#[test]
fn the_seal_key_is_wrapped_anew_or_stays_as_it_was() {
    let Place { disk: made, first, .. } = place();
    let clear = made.bytes("keys/seal").unwrap();
    let (one, other) = (wrapping(b'1'), wrapping(b'2'));
    let reads = |disk: &SimDisk, key: Option<&dyn WrappingKey>| {
        let reader = Reader::with(Arc::new(disk.clone()), key).unwrap();
        let text = commands(&reader, Filter::default()).next().unwrap().unwrap().text;
        (text != Opened::NoKey).then_some(text)
    };
    type Key<'a> = Option<&'a dyn WrappingKey>;
    let changes: [(Key<'_>, Key<'_>); 4] =
        [(None, Some(&one)), (Some(&one), Some(&other)), (Some(&other), None), (None, Some(&one))];
    let mut disk = made;
    for (from, to) in changes {
        for at in 0..12 {
            for state in [Unsynced::Dropped, Unsynced::Kept, Unsynced::Torn(at)] {
                let copy = disk.copy();
                copy.at(copy.operations() + at, Fault::Crash);
                let done = Recorder::rewrap(&copy, from, to);
                let after = copy.after_crash(state);
                let opens: Vec<_> = [from, to].map(|key| reads(&after, key)).into_iter().flatten().collect();
                assert!(!opens.is_empty(), "crash at {at}, {state:?}: neither key opens it");
                assert!(opens.iter().all(|text| *text == bytes(b"select secret where name = $1")));
                if done.is_ok() {
                    assert!(reads(&after, to).is_some(), "crash at {at}, {state:?}");
                }
            }
        }
        let wrapped = Recorder::rewrap(&disk, from, to).unwrap();
        assert_eq!(wrapped, to.map_or(Wrapping::None, |key| Wrapping::By(key.id().to_owned())));
        assert_eq!(wrapped, Recorder::wrapping(&disk).unwrap());
        disk = disk.copy();
    }

    let found = disk.paths().iter().any(|path| disk.bytes(path).unwrap().windows(32).any(|window| window == clear));
    assert!(!found, "the seal key is somewhere in clear");
    let refused = |key| open_with(&disk, with_key(key), 3).err().unwrap();
    assert!(matches!(refused(None), StoreError::Wrapping(WrappingError::Missing { .. })));
    assert!(matches!(refused(Some(wrapping(b'2'))), StoreError::Wrapping(WrappingError::Other { .. })));
    let without = reader(&disk);
    assert!(!without.has_keys() && without.no_keys().unwrap().contains("wrapping_key"), "{:?}", without.no_keys());
    let (recorder, _) = open_with(&disk, with_key(Some(wrapping(b'1'))), 3).unwrap();
    assert!(matches!(Recorder::rewrap(&disk, Some(&one), None), Err(StoreError::Locked)));
    recorder.redact(command_of(first, 1), ContentKind::Message, &person(), "x").unwrap();
    recorder.stop().unwrap();
    let reader = Reader::with(Arc::new(disk.clone()), Some(&one)).unwrap();
    let view = commands(&reader, Filter::default()).next().unwrap().unwrap();
    assert!(is_erased(&view.outcome.unwrap().message) && view.text == bytes(b"select secret where name = $1"));

    Recorder::rewrap(&disk, Some(&one), None).unwrap();
    assert!(matches!(refused(Some(wrapping(b'1'))), StoreError::Wrapping(WrappingError::NotWrapped { .. })));
    open(&disk).unwrap().0.stop().unwrap();
}

#[test]
fn a_new_record_is_wrapped_from_the_beginning() {
    let disk = SimDisk::new();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    Recorder::create_on(&shared, &with_key(Some(wrapping(b'7'))), &TestClock::new(), &mut TestRandom(1)).unwrap();
    assert!(matches!(Recorder::wrapping(&disk).unwrap(), Wrapping::By(id) if id == wrapping(b'7').id()));
    open_with(&disk, with_key(Some(wrapping(b'7'))), 4).unwrap().0.stop().unwrap();
}

//! Bundles of a small log: what verifies, and that nothing else does.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod support;

use evidence::{Content, From, Report, Trust, verify};
use ledger::audit::CompletenessVerdict as Complete;
use ledger::{CosignerKey, Quorum, SigningKey, leaf_hash};
use model::{
    ApprovalDecision, ApprovalRequest, ApprovalStep, ApprovalVote, Body, BreakGlassEnd, BreakGlassFinding,
    BreakGlassId, BreakGlassOpening, BreakGlassReview, BreakGlassStep, CommandId, ContentKind, Digest, Entry, Field,
    Label, Status,
};
use proptest::prelude::*;
use support::*;

fn trust(log: &Log) -> Trust {
    Trust { key: Some(log.key.verifier()), policy: None }
}

#[track_caller]
fn good(report: &Report) {
    assert_eq!(report.audit.integrity.violation, None);
    assert_eq!(report.audit.completeness.verdict, Complete::Ok, "{:?}", report.audit.completeness.gaps);
}

fn texts(report: &Report) -> Vec<String> {
    report.commands.iter().map(|command| command.text.text().map_or("-".into(), |text| text.into_owned())).collect()
}

#[test]
fn a_bundle_of_everything_verifies_and_shows_everything() {
    let (log, commands) = log();
    let bundle = log.build(&log.draft(&commands, &[]));
    let report = verify(&bundle, &trust(&log));
    good(&report);
    assert_eq!(report.key_from, From::Verifier);
    assert_eq!(report.audit.integrity.entries, log.leaves.len() as u64 - 2, "all but the heartbeats");
    assert_eq!((report.audit.integrity.blobs, report.audit.integrity.signed), (2, Some(log.leaves.len() as u64)));
    assert_eq!((report.audit.completeness.commands, report.audit.completeness.sessions), (5, 2));
    assert_eq!(report.left_out, 1, "the heartbeat in between");
    let texts = texts(&report);
    assert_eq!(texts[0], "select count(*) from orders");
    assert_eq!(texts[1], texts[2]);
    assert_eq!(texts[3], "insert into t values (1); ".repeat(20));
    assert_eq!(texts[4], "select 'x' ".repeat(12));
    assert_eq!(report.commands[1].message.text().unwrap(), "permission denied for orders");
    assert!(matches!(report.commands[2].message, Content::Absent(_)));
    assert_eq!(report.disclosure[&ContentKind::Statement].disclosed, 5);
    // Without a key from elsewhere it verifies too, and says so.
    let report = verify(&bundle, &Trust::default());
    good(&report);
    assert_eq!(report.key_from, From::Bundle);
    assert_eq!(bundle, log.build(&log.draft(&commands, &[])), "the same again");
}

#[test]
fn an_approval_is_proven_by_the_bundle_alone() {
    fn bundle(quorum: u64) -> (Log, Report) {
        let mut log = Log::new();
        let asked = log.open(1, "app");
        let (of, intent) = log.held(asked, None);
        let request = log.step(
            of,
            ApprovalStep::Requested(Box::new(ApprovalRequest {
                intent,
                connection: "app".into(),
                database: Some(Label::new(b"app")),
                role: "app_owner".into(),
                policy: Digest([4; 32]),
                quorum,
                signed: false,
                expires_us: i64::MAX / 4,
                nonce: Digest([3; 32]),
            })),
        );
        log.ended(of, Status::Denied, Field::NONE, false);
        log.close(asked);
        let (decision, comment) = (ApprovalDecision::Approve, Some("as agreed".to_owned()));
        let by = Log::person("human:grace");
        log.step(of, ApprovalStep::Decided(Box::new(ApprovalVote { decision, request, by, comment, signature: None })));
        // The same again, later.
        let again = log.open(2, "app");
        let (command, _) = log.held(again, Some(of));
        log.step(of, ApprovalStep::Used { command });
        log.outcome(command, Status::Ok, Field::NONE);
        log.close(again);
        let report = verify(&log.build(&log.draft(&[command], &[])), &trust(&log));
        (log, report)
    }
    let (_, report) = bundle(1);
    good(&report);
    assert_eq!(texts(&report), ["drop table users"]);
    let words: Vec<_> = report.approvals.iter().map(|entry| entry.approval.step.word().as_str()).collect();
    assert_eq!(words, ["requested", "decided", "used"]);
    let json = report.bundle_json()["approvals"].clone();
    assert_eq!(json[0]["request"], json[1]["request"]);
    assert_eq!((json[1]["by"]["name"].as_str(), json[1]["by"]["proof"].as_str()), (Some("human:grace"), Some("jwt")));
    assert_eq!(json[2]["command"], report.commands[0].intent.command.to_string());

    // Two were to approve it, and the gateway let it run all the same.
    let (_, report) = bundle(2);
    assert_eq!(report.audit.integrity.violation, None);
    assert_eq!(report.audit.completeness.verdict, Complete::Violated);
    assert!(report.audit.completeness.gaps[0].contains("although 1 of 2 people had approved it"));

    // Without the steps, nothing proves that it was approved.
    let (log, _) = bundle(1);
    let command = report.commands[0].intent.command;
    let mut draft = log.draft(&[command], &[]);
    draft.entries.retain(|_, leaf| !matches!(Entry::decode(leaf).unwrap().body, Body::Approval(_)));
    let report = verify(&log.build(&draft), &trust(&log));
    assert!(report.audit.completeness.gaps[0].contains("was executed, although entry"));
}

#[test]
fn break_glass_is_proven_by_the_bundle_alone() {
    fn log(opener: &str) -> (Log, CommandId) {
        let mut log = Log::new();
        let id = BreakGlassId::from_bytes([9; 16]);
        let opening = BreakGlassOpening {
            connection: "app".into(),
            by: Log::person(opener),
            reason: "stuck".into(),
            until_us: log.now_us() + 3_000_000_000,
        };
        log.glass_step(id, BreakGlassStep::Opened(Box::new(opening)));
        let session = log.open(1, "app");
        let command = log.under(session, id);
        log.outcome(command, Status::Ok, Field::NONE);
        log.close(session);
        log.glass_step(id, BreakGlassStep::Closed { how: BreakGlassEnd::Expired, by: None });
        let (by, finding, comment) =
            (Log::person("human:grace"), BreakGlassFinding::NotJustified, "it could wait".to_owned());
        log.glass_step(id, BreakGlassStep::Reviewed(Box::new(BreakGlassReview { by, finding, comment })));
        (log, command)
    }
    let (right, command) = log("human:cy");
    let draft = right.draft(&[command], &[]);
    let report = verify(&right.build(&draft), &trust(&right));
    good(&report);
    let json = report.bundle_json()["break_glass"].clone();
    assert_eq!((json[0]["by"]["name"].as_str(), json[0]["reason"].as_str()), (Some("human:cy"), Some("stuck")));
    assert_eq!((json[1]["how"].as_str(), json[2]["finding"].as_str()), (Some("expired"), Some("not_justified")));
    assert!(report.audit.completeness.break_glass_unreviewed.is_empty());

    // Somebody else had opened it.
    let (wrong, command) = log("human:eve");
    let report = verify(&wrong.build(&wrong.draft(&[command], &[])), &trust(&wrong));
    assert_eq!(report.audit.completeness.verdict, Complete::Violated);
    assert!(report.audit.completeness.gaps[0].contains("which human:eve opened for their own commands"));

    // Without its steps nothing proves that it was open.
    let mut without = draft.clone();
    without.entries.retain(|_, leaf| !matches!(Entry::decode(leaf).unwrap().body, Body::BreakGlass(_)));
    let report = verify(&right.build(&without), &trust(&right));
    assert!(report.audit.completeness.gaps[0].contains("which was not opened before"));
    // Without the last of them it says that it was not reviewed.
    let mut early = draft;
    early.entries.retain(|_, leaf| match Entry::decode(leaf).unwrap().body {
        Body::BreakGlass(glass) => !matches!(glass.step, BreakGlassStep::Reviewed(_)),
        _ => true,
    });
    let report = verify(&right.build(&early), &trust(&right));
    good(&report);
    assert_eq!(report.audit.completeness.break_glass_unreviewed.len(), 1);
}

#[test]
fn every_flipped_byte_is_found() {
    let (log, commands) = log();
    let bundle = log.build(&log.draft(&commands[..3], &[]));
    let entries = find(&bundle, b"0 ", find(&bundle, b"entries.txt", find(&bundle, b"blobs/", 0).max(1)));
    let end = find(&bundle, b"PK\x03\x04", entries);
    let mut named = 0;
    for at in 0..bundle.len() {
        let mut other = bundle.clone();
        other[at] ^= 1 << (at % 8);
        let report = verify(&other, &trust(&log));
        let violation = report.audit.integrity.violation.unwrap_or_else(|| panic!("byte {at}"));
        assert_ne!(report.audit.completeness.verdict, Complete::Ok);
        if (entries..end).contains(&at) {
            named += usize::from(violation.index == entry_at(&bundle[entries..end], at - entries));
        }
    }
    // All but those that change the index or the line's end themselves.
    assert!(named as f64 > 0.98 * (end - entries) as f64, "{named} of {}", end - entries);
}

fn find(bytes: &[u8], what: &[u8], from: usize) -> usize {
    from + bytes[from..].windows(what.len()).position(|window| window == what).unwrap()
}

/// The index of the entry whose line has this place.
fn entry_at(entries: &[u8], at: usize) -> Option<u64> {
    let begin = entries[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    std::str::from_utf8(&entries[begin..]).unwrap().split(' ').next().unwrap().parse().ok()
}

#[test]
fn withheld_content_is_said_to_be_withheld() {
    let (log, commands) = log();
    let all = log.build(&log.draft(&commands, &[]));
    for kinds in
        [vec![ContentKind::Statement], vec![ContentKind::Parameters, ContentKind::Message], ContentKind::ALL.to_vec()]
    {
        let bundle = log.build(&log.draft(&commands, &kinds));
        assert!(bundle.len() < all.len());
        let report = verify(&bundle, &trust(&log));
        good(&report);
        for kind in ContentKind::ALL {
            let counts = report.disclosure[kind];
            let (open, closed) = if kinds.contains(kind) { (0, counts.withheld) } else { (counts.disclosed, 0) };
            assert_eq!((counts.disclosed, counts.withheld, counts.erased), (open, closed, 0), "{kind}");
            assert!(open + closed > 0, "{kind}");
        }
        if kinds.contains(&ContentKind::Statement) {
            assert!(report.commands.iter().all(|command| command.text == Content::Withheld));
            assert_eq!(report.audit.integrity.blobs, 0);
        }
    }
}

#[test]
fn erased_content_is_said_to_be_erased() {
    let (mut log, commands) = log();
    log.erase(commands[0].session, None);
    let report = verify(&log.build(&log.draft(&commands, &[])), &trust(&log));
    good(&report);
    assert_eq!(report.commands[0].text, Content::Erased);
    assert_eq!(report.commands[3].text, Content::Erased);
    assert_eq!(report.disclosure[&ContentKind::Statement].erased, 3);
    assert!(report.commands[1].text.text().is_some(), "the other session is not");

    // One field alone: its key is gone, and the entry says so.
    let (mut log, commands) = support::log();
    let Entry { body: Body::Intent(intent), .. } = &log.entries()[6] else { panic!("an intent") };
    let Field::Sealed(field) = &intent.parameters else { panic!("sealed parameters") };
    let number = field.number;
    log.erase(intent.link.session, Some(vec![number]));
    let mut draft = log.draft(&commands, &[]);
    assert!(draft.keys.remove(&(intent.link.session, number)).is_some());
    let report = verify(&log.build(&draft), &trust(&log));
    good(&report);
    assert_eq!(report.commands[1].parameters, Content::Erased);
    assert!(report.commands[2].parameters.text().is_some());
}

#[test]
fn a_key_that_is_missing_without_a_word_is_a_violation() {
    let (log, commands) = log();
    let mut draft = log.draft(&commands, &[]);
    let id = *draft.keys.keys().next().unwrap();
    draft.keys.remove(&id);
    let violation = verify(&log.build(&draft), &trust(&log)).audit.integrity.violation.unwrap();
    assert!(violation.what.contains("missing"), "{violation:?}");
    assert_eq!(violation.command, Some(commands[0]));
    // Nor one that opens something else.
    let mut draft = log.draft(&commands, &[]);
    let other = draft.keys.values().last().unwrap().clone();
    draft.keys.insert(id, other);
    let violation = verify(&log.build(&draft), &trust(&log)).audit.integrity.violation.unwrap();
    assert!(violation.what.contains("not the one that the entry commits to"), "{violation:?}");
    // Nor a blob that is not there.
    let mut draft = log.draft(&commands, &[]);
    draft.blobs.pop_first();
    let violation = verify(&log.build(&draft), &trust(&log)).audit.integrity.violation.unwrap();
    assert!(violation.what.contains("is missing"), "{violation:?}");
}

#[test]
fn another_key_does_not_verify_it() {
    let (log, commands) = log();
    let bundle = log.build(&log.draft(&commands, &[]));
    let other = SigningKey::new(ORIGIN, &[2; 32]).unwrap().verifier();
    let report = verify(&bundle, &Trust { key: Some(other), policy: None });
    let violation = report.audit.integrity.violation.unwrap();
    assert_eq!(violation.file, "vkey");
    assert!(violation.what.contains("not the key that you gave"), "{violation:?}");
}

#[test]
fn a_rewritten_entry_is_found_though_everything_around_it_was_made_to_fit() {
    let (log, commands) = log();
    let mut draft = log.draft(&commands, &[]);
    let (index, leaf) =
        draft.entries.iter_mut().find(|(_, leaf)| leaf.starts_with(b"{\"v\":1,\"k\":\"outcome\"")).unwrap();
    let text = String::from_utf8(leaf.clone()).unwrap().replace("\"bytes_down\":30", "\"bytes_down\":31");
    *leaf = text.into_bytes();
    let index = *index;
    let violation = verify(&log.build(&draft), &trust(&log)).audit.integrity.violation.unwrap();
    assert_eq!((violation.index, violation.command), (Some(index), Some(commands[0])), "{violation:?}");
    // One that no other entry names: the root does not fit.
    let mut draft = log.draft(&commands, &[]);
    let start = draft.entries.get_mut(&1).unwrap();
    *start = String::from_utf8(start.clone()).unwrap().replace("\"boot_id\":\"b\"", "\"boot_id\":\"c\"").into_bytes();
    let violation = verify(&log.build(&draft), &trust(&log)).audit.integrity.violation.unwrap();
    assert!(violation.what.contains("not those of the signed log"), "{violation:?}");
}

#[test]
fn entries_that_were_left_out_are_missed() {
    let (log, commands) = log();
    let draft = log.draft(&commands, &[]);
    let of_sessions: Vec<u64> = draft
        .entries
        .iter()
        .filter(|(_, leaf)| Entry::decode(leaf).unwrap().body.link().is_some())
        .map(|(index, _)| *index)
        .collect();
    for index in of_sessions {
        let mut draft = draft.clone();
        let leaf = draft.entries.remove(&index).unwrap();
        let report = verify(&log.build(&draft), &trust(&log));
        let found =
            report.audit.integrity.violation.is_some() || report.audit.completeness.verdict == Complete::Violated;
        // The end of a session cannot be told from one that was still open, but the counts say it.
        let close = matches!(Entry::decode(&leaf).unwrap().body, Body::SessionClose(_));
        assert!(found || (close && report.audit.completeness.sessions_open == 1), "entry {index}");
    }
}

#[test]
fn witnesses_count_by_the_policy_of_whoever_verifies() {
    let (log, commands) = log();
    let (witness, other) =
        (CosignerKey::new("w.example", &[8; 32]).unwrap(), CosignerKey::new("x.example", &[9; 32]).unwrap());
    let policy = |key: &CosignerKey| format!("witness w {}\nquorum w\n", key.verifier());
    let mut draft = log.draft(&commands, &[]);
    draft.checkpoint = log.cosigned(&witness);
    draft.policy = Some(policy(&witness));
    let bundle = log.build(&draft);
    let report = verify(&bundle, &trust(&log));
    good(&report);
    let (evaluation, from) = report.witnessed.unwrap();
    assert_eq!(evaluation.cosigned, [("w".to_owned(), 1_763_804_200)]);
    assert_eq!((evaluation.quorum, from), (Quorum::Reached, From::Bundle));
    let mine = |key: &CosignerKey| Trust { policy: Some(policy(key).parse().unwrap()), ..trust(&log) };
    good(&verify(&bundle, &mine(&witness)));
    let (evaluation, from) = verify(&bundle, &mine(&other)).witnessed.unwrap();
    assert_eq!((evaluation.quorum, from), (Quorum::NotReached, From::Verifier));
}

#[test]
fn a_running_command_is_pending_and_an_open_session_is_counted() {
    let (mut log, mut commands) = log();
    let session = log.open(3, "app");
    let text = log.sealed(session, b"select pg_sleep(1000)");
    commands.push(log.intent(session, text, Field::NONE));
    let report = verify(&log.build(&log.draft(&commands[5..], &[])), &trust(&log));
    good(&report);
    assert_eq!((report.audit.completeness.pending, report.audit.completeness.sessions_open), (1, 1));
    assert_eq!(report.audit.completeness.outcomes.get(&Status::Ok), None);
}

/// Makes the corpus: run it when the format changes, with `--ignored`.
#[test]
#[ignore = "writes fuzz/corpus/bundle"]
fn make_the_corpus() {
    let dir = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/bundle"));
    std::fs::create_dir_all(dir).unwrap();
    let (log, commands) = log();
    let mut draft = log.draft(&commands, &[]);
    let mut entries = Vec::new();
    for (index, leaf) in draft.entries.iter().take(6) {
        entries.extend(format!("{index} {} ", leaf_hash(leaf).base64()).bytes());
        entries.extend(leaf);
        entries.push(b'\n');
    }
    let whole = log.build(&draft);
    let manifest = find(&whole, b"{\n\"format\"", 0);
    let manifest_end = find(&whole, b"PK\x03\x04", manifest);
    let keys = find(&whole, b"keys.txt", find(&whole, b"entries.txt", manifest_end)) + 8;
    let keys_end = find(&whole, b"PK\x03\x04", keys);
    draft.page.clear();
    let small = log.draft(&commands[..1], ContentKind::ALL);
    for (name, bytes) in [
        ("whole", whole.as_slice()),
        ("withheld", &log.build(&small)),
        ("cut", &whole[..whole.len() - 30]),
        ("manifest", &whole[manifest..manifest_end]),
        ("keys", &whole[keys..keys_end]),
        ("entries", &entries),
        ("end", &whole[whole.len() - 22..]),
    ] {
        std::fs::write(dir.join(name), bytes).unwrap();
    }
}

#[test]
fn the_corpus_is_read_without_a_panic() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/bundle");
    let files: Vec<_> = std::fs::read_dir(dir).unwrap().collect();
    assert!(!files.is_empty());
    for file in files {
        evidence::fuzz::bundle(&std::fs::read(file.unwrap().path()).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_selection_verifies(
        picks in prop::collection::btree_set(0usize..5, 1..5),
        kinds in prop::sample::subsequence(ContentKind::ALL.to_vec(), 0..=3),
        more in 0usize..40,
    ) {
        let (mut log, commands) = log();
        (0..more).for_each(|_| log.heartbeat());
        let selected: Vec<_> = picks.iter().map(|pick| commands[*pick]).collect();
        let report = verify(&log.build(&log.draft(&selected, &kinds)), &trust(&log));
        prop_assert_eq!(&report.audit.integrity.violation, &None);
        prop_assert_eq!(report.audit.completeness.verdict, Complete::Ok);
        prop_assert_eq!(report.commands.len(), selected.len());
    }

    #[test]
    fn random_bytes_are_no_bundle(data in prop::collection::vec(any::<u8>(), 0..2000)) {
        evidence::fuzz::bundle(&data);
    }

    #[test]
    fn changed_bundles_do_not_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let (log, commands) = log();
        let mut bytes = log.build(&log.draft(&commands, &[]));
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        evidence::fuzz::bundle(&bytes);
    }
}

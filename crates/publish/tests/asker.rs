//! Witnesses of every kind: one that is as it should be, and those that nobody should trust.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{heartbeat, record, serve, serve_site, url};
use ledger::{AddCheckpoint, CosignerKey, CosignerVerifier, SignedNote, WitnessPolicy};
use model::{Body, WitnessState, Witnesses};
use publish::{Answer, Asker, Asking, Witness, WitnessSite, look};
use store::Reader;
use testkit::process::poll;

fn last_notice(dir: &std::path::Path) -> Option<Witnesses> {
    let reader = Reader::open(dir).unwrap();
    let entries = reader.entries(0).map(Result::unwrap);
    entries.filter_map(|stored| if let Body::Witnesses(it) = stored.entry.body { Some(it) } else { None }).last()
}

#[test]
fn only_a_right_cosignature_counts() {
    let dir = tempfile::tempdir().unwrap();
    let (recorder, key) = record(&dir.path().join("data"));
    let data = dir.path().join("data");

    let home = dir.path().join("witness");
    let vkey = Witness::init(&home, "w.example/good").unwrap();
    Witness::add_log(&home, &key).unwrap();
    let good = serve_site(Arc::new(WitnessSite::new(Arc::new(Witness::open(&home).unwrap()))));
    let good_url = url(&good);

    let hits = Arc::new(AtomicUsize::new(0));
    let counted = |answer: fn(&str) -> Answer| {
        let hits = hits.clone();
        serve(move |request| {
            hits.fetch_add(1, Ordering::SeqCst);
            answer(std::str::from_utf8(&request.body).unwrap())
        })
    };
    // A redirect to a good one is not followed: the cosignature would be another's anyhow.
    let target: &'static str = Box::leak(format!("{good_url}/add-checkpoint").into_boxed_str());
    let redirect = serve(move |_| Answer::text(307, "there").with("location", target));
    let bad = [
        counted(|_| Answer::text(200, "\u{2014} nonsense")),
        counted(|_| Answer::new(200, "application/octet-stream", vec![0xff; 4096])),
        counted(|_| Answer::new(200, "text/plain", vec![b'x'; 1 << 20])),
        counted(|_| Answer::new(409, "text/x.tlog.size", "18446744073709551615\n")),
        counted(|_| Answer::new(409, "text/x.tlog.size", "-1\n")),
        counted(|_| Answer::text(422, "no")),
        counted(|_| Answer::text(500, "no")),
        // The signature of another key, under this one's name.
        counted(|body| {
            let request: AddCheckpoint = body.parse().unwrap();
            let note = SignedNote::parse(&request.checkpoint).unwrap();
            let key = CosignerKey::new("w.example/7", &[99; 32]).unwrap();
            Answer::text(200, &key.cosign(note.text(), 1).unwrap().to_string())
        }),
        // A right signature over something else.
        counted(|_| {
            let key = CosignerKey::new("w.example/8", &[8; 32]).unwrap();
            Answer::text(
                200,
                &key.cosign(&format!("other\n1\n{}\n", ledger::EMPTY_ROOT.base64()), 1).unwrap().to_string(),
            )
        }),
        counted(|_| {
            std::thread::sleep(Duration::from_secs(3));
            Answer::text(200, "late")
        }),
    ];
    let verifier = |seed: u8| CosignerKey::new(&format!("w.example/{seed}"), &[seed; 32]).unwrap().verifier();
    let mut policy = format!("witness good {vkey} {good_url}\n");
    policy += &format!("witness redirect {} {}\n", verifier(50), url(&redirect));
    policy += &format!("witness nowhere {} http://127.0.0.1:1\n", verifier(51));
    policy += &format!("witness unasked {}\n", verifier(52));
    for (seed, server) in (0u8..).zip(&bad) {
        policy += &format!("witness bad{seed} {} {}\n", verifier(seed), url(server));
    }
    policy += "quorum good\n";
    let policy: WitnessPolicy = policy.parse().unwrap();
    let asking =
        Asking { policy: policy.clone(), interval: Duration::from_millis(50), timeout: Duration::from_secs(1) };
    let asker = Asker::start(recorder.clone(), key.clone(), asking).unwrap();

    let verifier: CosignerVerifier = vkey.parse().unwrap();
    let cosigned = |after: u64| {
        poll("a cosigned checkpoint", || {
            recorder.note(heartbeat()).unwrap();
            let note = SignedNote::parse(&recorder.published().cosigned().unwrap()?).unwrap();
            let size: u64 = note.text().lines().nth(1)?.parse().unwrap();
            (size > after).then_some((size, note))
        })
    };
    let (size, note) = cosigned(0);
    let (later, _) = cosigned(size);
    assert!(later > size);
    // By the log and the good one, and nobody else.
    assert_eq!(note.signatures().len(), 2);
    assert!(verifier.verify(&note).is_ok() && note.verify(&key).is_ok());
    let notice = poll("an entry about all of them", || {
        recorder.note(heartbeat()).unwrap();
        last_notice(&data).filter(|it| it.witnesses[0].state == WitnessState::Current && it.enough.is_some())
    });
    let states: Vec<WitnessState> = notice.witnesses.iter().map(|witness| witness.state).collect();
    assert!(
        states[1..].iter().all(|state| matches!(state, WitnessState::Absent | WitnessState::Refused)),
        "{states:?}"
    );
    assert_eq!(notice.witnesses.iter().filter(|w| w.size.is_some()).count(), 1);
    // Lies without our own signature stop nothing.
    assert_eq!(asker.contradiction(), None);
    // Those that failed are left alone for longer and longer.
    let before = hits.load(Ordering::SeqCst);
    assert!(before >= bad.len(), "each was asked: {before}");
    assert!(before < bad.len() * 40, "not each time: {before}");
    drop(asker);

    // And who looks is told the same, without being fooled.
    let looks = look(&data, &key, &policy, Duration::from_secs(1));
    assert_eq!(looks.len(), policy.witnesses().len());
    assert!(looks[0].cosigned.as_ref().unwrap().unwrap().0 >= later);
    assert!(looks[1..].iter().all(|look| look.cosigned.is_err() && look.contradiction.is_none()), "{looks:?}");
    recorder.stop().unwrap();
}

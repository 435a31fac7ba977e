//! Receipts: found, also after the files that find them are gone or wrong; and delivered, at least once.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{heartbeat, record, serve, session, url};
use ledger::{SigningKey, VerifierKey};
use model::SessionId;
use publish::{
    Answer, Closes, Cosignatures, Follower, Receipt, ReceiptError, Search, Source, SourceError, Webhook, WebhookConfig,
};
use store::Recorder;
use testkit::process::poll;
use zeroize::Zeroizing;

fn receipt(data: &Path, key: &VerifierKey, session: SessionId) -> Receipt {
    let closes = Closes::open_dir(data, key);
    let receipt = poll("the receipt", || closes.receipt(session, Search::All).unwrap());
    assert!(receipt.check(key).unwrap().size > receipt.index());
    assert_eq!(receipt.session(), session);
    receipt
}

fn published(recorder: &Recorder) -> u64 {
    recorder.published().checkpoint().unwrap().and_then(|note| note.lines().nth(1)?.parse().ok()).unwrap_or(0)
}

#[test]
fn sessions_are_found_whatever_becomes_of_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let (recorder, key) = record(data);
    let closes = Arc::new(Closes::open_dir(data, &key));
    let follower = Follower::start(recorder.clone(), closes.clone()).unwrap();
    let mut sessions = Vec::new();
    for _ in 0..120 {
        sessions.push(session(&recorder));
        recorder.note(heartbeat()).unwrap();
    }
    recorder.flush().unwrap();
    poll("all to be published", || (published(&recorder) > 360).then_some(()));
    for id in &sessions {
        receipt(data, &key, *id);
    }
    drop(follower);
    recorder.stop().unwrap();
    let (recorder, _) = record(data);
    // From the saved files, then without, then with wrong ones.
    let nobody = SessionId::new(1, [7; 10]);
    let index = data.join("receipts/sessions");
    let saved = std::fs::read(&index).unwrap();
    assert!(saved.len() > 24 * 100, "{}", saved.len());
    let spoil: [(&str, Vec<u8>); 4] = [
        ("cut", saved[..saved.len() - 30].to_vec()),
        ("of another log", [&saved[..8], &[9; 16], &saved[24..]].concat()),
        ("pointing elsewhere", [&saved[..24], &saved[24..].iter().map(|b| b ^ 1).collect::<Vec<_>>()[..]].concat()),
        ("empty", Vec::new()),
    ];
    for (what, bytes) in spoil {
        std::fs::write(&index, bytes).unwrap();
        let closes = Closes::open_dir(data, &key);
        assert!(closes.receipt(nobody, Search::All).unwrap().is_none(), "{what}");
        // What the index does not have is not found through it, but never anything wrong.
        for id in sessions.iter().take(5) {
            if let Some(receipt) = closes.receipt(*id, Search::All).unwrap() {
                assert_eq!(receipt.session(), *id, "{what}");
            }
        }
    }
    std::fs::remove_dir_all(data.join("receipts")).unwrap();
    for id in sessions.iter().rev().take(5).chain(sessions.first()) {
        receipt(data, &key, *id);
    }
    let again = Closes::open_dir(data, &key);
    again.advance().unwrap();
    again.save().unwrap();
    assert_eq!(std::fs::read(&index).unwrap()[..saved.len()], saved[..]);
    recorder.stop().unwrap();
}

#[test]
fn a_receipt_is_proven_or_it_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let (recorder, key) = record(data);
    let id = session(&recorder);
    let good = receipt(data, &key, id);
    let text = good.to_string();
    assert_eq!(text.parse::<Receipt>().unwrap(), good);
    // No bit of it can be changed unseen, but in what proves nothing: the spelling of the proof is one only.
    let mut accepted = 0;
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1;
        let Ok(changed) = String::from_utf8(bytes) else { continue };
        if changed.parse::<Receipt>().is_ok_and(|receipt| receipt.check(&key).is_ok()) {
            accepted += 1;
        }
    }
    assert_eq!(accepted, 0);
    let other = SigningKey::new(key.name(), &[5; 32]).unwrap().verifier();
    assert!(matches!(good.check(&other), Err(ReceiptError::Proof(_))));
    let bare =
        text.lines().filter(|line| !line.starts_with("extra ")).map(|line| format!("{line}\n")).collect::<String>();
    assert!(matches!(bare.parse::<Receipt>(), Err(ReceiptError::NoClose)));
    let signed = good.check(&key).unwrap();
    Source::directory(data).bears_out(&good, &signed, &key).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let error = Source::directory(elsewhere.path()).bears_out(&good, &signed, &key).unwrap_err();
    assert!(matches!(error, SourceError::NoCheckpoint) && !error.is_removal());
    recorder.stop().unwrap();
}

/// What a webhook got.
#[derive(Default)]
struct Inbox {
    bodies: Mutex<Vec<serde_json::Value>>,
    refuse: AtomicUsize,
    tries: AtomicUsize,
}

#[test]
fn every_receipt_reaches_the_webhook_at_least_once() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let (mut recorder, key) = record(data);
    let before = session(&recorder);
    receipt(data, &key, before);
    let inbox = Arc::new(Inbox { refuse: AtomicUsize::new(2), ..Inbox::default() });
    let server = serve({
        let inbox = inbox.clone();
        move |request| {
            inbox.tries.fetch_add(1, Ordering::SeqCst);
            let left = inbox.refuse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if left.is_ok() {
                return Answer::text(500, "not now");
            }
            inbox.bodies.lock().unwrap().push(serde_json::from_slice(&request.body).unwrap());
            Answer::text(200, "thanks")
        }
    });
    let start = |recorder: &Recorder| {
        let config = WebhookConfig {
            url: format!("{}/receipts", url(&server)),
            secret: Some(Zeroizing::new(format!("whsec_{}", STANDARD.encode(b"secret")).into_bytes())),
            cosignatures: Cosignatures::None,
        };
        Webhook::start(recorder.clone(), data, &key, Arc::new(Closes::open_dir(data, &key)), config).unwrap()
    };
    let got = || -> BTreeMap<String, serde_json::Value> {
        let bodies = inbox.bodies.lock().unwrap();
        bodies.iter().map(|body| (body["data"]["session"].as_str().unwrap().to_owned(), body.clone())).collect()
    };
    let mut expected = Vec::new();
    for round in 0..3 {
        let webhook = start(&recorder);
        expected.push(session(&recorder).to_string());
        // In the second round it is told to end at once: what it did not deliver, the next one does.
        if round != 1 {
            poll("all receipts", || expected.iter().all(|id| got().contains_key(id)).then_some(()));
        }
        drop(webhook);
        expected.push(session(&recorder).to_string());
        recorder.stop().unwrap();
        (recorder, _) = record(data);
    }
    let webhook = start(&recorder);
    poll("all receipts", || expected.iter().all(|id| got().contains_key(id)).then_some(()));
    drop(webhook);
    recorder.stop().unwrap();
    let got = got();
    // What was there before the webhook was configured is not sent; what is, proves itself.
    assert!(!got.contains_key(&before.to_string()));
    assert_eq!(got.len(), expected.len());
    for body in got.values() {
        assert_eq!(body["type"], "session.closed");
        let receipt: Receipt = body["data"]["receipt"].as_str().unwrap().parse().unwrap();
        receipt.check(&key).unwrap();
        assert_eq!(body["data"]["session"], receipt.session().to_string());
    }
    assert!(inbox.tries.load(Ordering::SeqCst) >= expected.len() + 2);
}

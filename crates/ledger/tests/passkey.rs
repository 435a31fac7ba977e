//! Signatures of passkeys, by keys that are made here, and everything that can be wrong with one.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::Signer as _;
use ledger::audit::{Audit, BlobState, Place, Report, Scope};
use ledger::passkey::{PasskeyError, read_new_key, verify};
use ledger::{SigningKey, fuzz, leaf_hash};
use model::*;
use sha2::{Digest as _, Sha256};

const RP_ID: &str = "gateway.example";
const ORIGIN: &str = "https://gateway.example:8443";
const CHALLENGE: Digest = Digest([9; 32]);

enum Key {
    Es256(p256::ecdsa::SigningKey),
    Ed25519(ed25519_dalek::SigningKey),
}

impl Key {
    fn all() -> [Self; 2] {
        let es256 = p256::ecdsa::SigningKey::from_slice(&[1; 32]).unwrap();
        [Self::Es256(es256), Self::Ed25519(ed25519_dalek::SigningKey::from_bytes(&[2; 32]))]
    }

    fn algorithm(&self) -> PasskeyAlgorithm {
        match self {
            Self::Es256(_) => PasskeyAlgorithm::Es256,
            Self::Ed25519(_) => PasskeyAlgorithm::Ed25519,
        }
    }

    fn public(&self) -> Vec<u8> {
        match self {
            Self::Es256(key) => key.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
            Self::Ed25519(key) => key.verifying_key().to_bytes().to_vec(),
        }
    }

    fn cose(&self) -> Vec<u8> {
        let public = self.public();
        match self {
            Self::Es256(_) => {
                let head = [0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20];
                [&head, &public[1..33], &[0x22, 0x58, 0x20], &public[33..]].concat()
            }
            Self::Ed25519(_) => [&[0xa4, 0x01, 0x01, 0x03, 0x27, 0x20, 0x06, 0x21, 0x58, 0x20], &public[..]].concat(),
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Es256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.to_der().as_bytes().to_vec()
            }
            Self::Ed25519(key) => key.sign(message).to_bytes().to_vec(),
        }
    }

    fn passkey(&self, owner: &str) -> Passkey {
        Passkey {
            action: PasskeyAction::Enrolled,
            identity: identity(owner),
            credential: URL_SAFE_NO_PAD.encode(b"credential"),
            algorithm: self.algorithm(),
            public_key: self.public(),
            rp_id: RP_ID.into(),
            origin: ORIGIN.into(),
            aaguid: "00000000-0000-0000-0000-000000000000".into(),
        }
    }

    fn assertion(&self, challenge: &Digest) -> Assertion {
        self.assertion_of(authenticator_data(0x1d), client_data("webauthn.get", challenge, ORIGIN, ""))
    }

    fn assertion_of(&self, authenticator_data: Vec<u8>, client_data: Vec<u8>) -> Assertion {
        let signature = self.sign(&[&authenticator_data[..], &Sha256::digest(&client_data)[..]].concat());
        Assertion { credential: URL_SAFE_NO_PAD.encode(b"credential"), authenticator_data, client_data, signature }
    }
}

fn identity(name: &str) -> Identity {
    Identity {
        name: name.parse().unwrap(),
        known: Known::Verified,
        proof: Proof {
            method: ProofMethod::Jwt,
            channel: ChannelBinding::None,
            credential: "jwt:00".into(),
            evidence: None,
        },
        on_behalf_of: None,
        groups: vec![],
        run: None,
    }
}

fn authenticator_data(flags: u8) -> Vec<u8> {
    [&Sha256::digest(RP_ID)[..], &[flags], &[0, 0, 0, 5]].concat()
}

fn client_data(kind: &str, challenge: &Digest, origin: &str, more: &str) -> Vec<u8> {
    let challenge = URL_SAFE_NO_PAD.encode(challenge.0);
    format!(r#"{{"type":"{kind}","challenge":"{challenge}","origin":"{origin}","crossOrigin":false{more}}}"#).into()
}

fn new_key(key: &Key) -> Vec<u8> {
    let credential = b"credential";
    let length = u16::try_from(credential.len()).unwrap().to_be_bytes();
    [&authenticator_data(0x5d), &[0xab; 16][..], &length, credential, &key.cose()].concat()
}

#[test]
fn a_signature_holds_and_nothing_near_it_does() {
    for key in Key::all() {
        let (passkey, right) = (key.passkey("human:bea"), key.assertion(&CHALLENGE));
        assert_eq!(verify(&passkey, &CHALLENGE, &right), Ok(()));
        let more = client_data("webauthn.get", &CHALLENGE, ORIGIN, r#","other":{"a":[1]}"#);
        assert_eq!(verify(&passkey, &CHALLENGE, &key.assertion_of(authenticator_data(5), more)), Ok(()));
        // Every bit of what is signed, and of the signature.
        let fields: [fn(&mut Assertion) -> &mut Vec<u8>; 3] =
            [|a| &mut a.authenticator_data, |a| &mut a.client_data, |a| &mut a.signature];
        for field in fields {
            for at in 0..field(&mut right.clone()).len() * 8 {
                let mut wrong = right.clone();
                field(&mut wrong)[at / 8] ^= 1 << (at % 8);
                assert!(verify(&passkey, &CHALLENGE, &wrong).is_err(), "bit {at}");
            }
            let changes: [fn(&mut Vec<u8>); 2] = [|bytes| bytes.truncate(bytes.len() - 1), |bytes| bytes.push(0)];
            for change in changes {
                let mut wrong = right.clone();
                change(field(&mut wrong));
                assert!(verify(&passkey, &CHALLENGE, &wrong).is_err());
            }
        }
        let other = Passkey { credential: "AAAA".into(), ..passkey.clone() };
        assert_eq!(verify(&other, &CHALLENGE, &right), Err(PasskeyError::OtherCredential));
        let [a, b] = Key::all();
        let other = if a.algorithm() == key.algorithm() { b } else { a };
        let swapped = Passkey { public_key: other.public(), ..passkey.clone() };
        assert_eq!(verify(&swapped, &CHALLENGE, &right), Err(PasskeyError::PublicKey));
    }
}

#[test]
fn what_is_rightly_signed_and_wrong_is_refused_by_its_name() {
    for key in Key::all() {
        let passkey = key.passkey("human:bea");
        let check = |authenticator: Vec<u8>, client: Vec<u8>| {
            verify(&passkey, &CHALLENGE, &key.assertion_of(authenticator, client)).unwrap_err()
        };
        let (good_a, good_c) = (authenticator_data(0x05), client_data("webauthn.get", &CHALLENGE, ORIGIN, ""));
        let create = client_data("webauthn.create", &CHALLENGE, ORIGIN, "");
        assert!(matches!(check(good_a.clone(), create), PasskeyError::Type { .. }));
        let challenge = client_data("webauthn.get", &Digest([8; 32]), ORIGIN, "");
        assert_eq!(check(good_a.clone(), challenge), PasskeyError::Challenge);
        let origin = client_data("webauthn.get", &CHALLENGE, "https://gateway.example", "");
        assert!(matches!(check(good_a.clone(), origin), PasskeyError::Origin { .. }));
        let twice = client_data("webauthn.get", &CHALLENGE, ORIGIN, r#","origin":"https://evil.example""#);
        assert!(matches!(check(good_a.clone(), twice), PasskeyError::ClientData(_)));
        let cross = String::from_utf8(good_c.clone()).unwrap().replace(":false", ":true");
        assert_eq!(check(good_a.clone(), cross.into()), PasskeyError::CrossOrigin);
        assert!(matches!(check(good_a.clone(), vec![b' '; 5000]), PasskeyError::TooLong(_)));
        assert_eq!(check(authenticator_data(0x04), good_c.clone()), PasskeyError::NotPresent);
        assert_eq!(check(authenticator_data(0x01), good_c.clone()), PasskeyError::NotVerified);
        let mut host = good_a;
        host[0] ^= 1;
        assert!(matches!(check(host, good_c), PasskeyError::RpId(_)));
    }
}

#[test]
fn a_new_key_is_read() {
    for key in Key::all() {
        let client = client_data("webauthn.create", &CHALLENGE, ORIGIN, "");
        let data = new_key(&key);
        let read = |data: &[u8]| read_new_key(RP_ID, ORIGIN, &CHALLENGE.0, data, &client);
        let new = read(&data).unwrap();
        assert_eq!((new.algorithm, &new.public_key), (key.algorithm(), &key.public()));
        assert_eq!(new.credential, key.passkey("human:bea").credential);
        assert_eq!(new.aaguid, "abababab-abab-abab-abab-abababababab");
        assert_eq!(read(&[&data[..], &[0xa0]].concat()).unwrap(), new, "extensions may follow");
        (0..data.len()).for_each(|at| assert!(read(&data[..at]).is_err()));
        let get = client_data("webauthn.get", &CHALLENGE, ORIGIN, "");
        let wrong = read_new_key(RP_ID, ORIGIN, &CHALLENGE.0, &data, &get);
        assert!(matches!(wrong, Err(PasskeyError::Type { .. })));
        // RS256, which is not taken.
        let mut other = data;
        let at = 37 + 18 + b"credential".len();
        other[at] = 0xa4;
        other[at + 2] = 3;
        assert_eq!(read(&other), Err(PasskeyError::Algorithm));
    }
}

fn audited(scope: Scope, bodies: Vec<Body>) -> Report {
    let origin = "gateway.example.com/1";
    let vkey = SigningKey::new(origin, &[7; 32]).unwrap().verifier();
    let genesis = Genesis { origin: origin.into(), vkey: vkey.to_string(), program: "test".into(), previous: None };
    let mut audit = Audit::new(scope, &vkey);
    for (index, body) in [Body::Genesis(genesis)].into_iter().chain(bodies).enumerate() {
        let mut leaf = Vec::new();
        Entry { time: Time { wall_us: 1, boot_us: 1 }, body }.encode(&mut leaf);
        let place = Place { file: "log".into(), offset: 0, index: u64::try_from(index).unwrap() };
        audit.entry(&place, &leaf, leaf_hash(&leaf), &mut |_, _| BlobState::Unchecked);
        // Put aside after every entry, it says the same in the end.
        if let Some(saved) = audit.save() {
            audit = Audit::resume(&saved, &vkey).unwrap();
        }
    }
    match scope {
        Scope::Whole => audit.finish(None),
        Scope::Selection => audit.finish_selection(Digest([0; 32])),
    }
}

#[test]
fn an_audit_checks_the_signatures_of_decisions() {
    let [key, _] = Key::all();
    let (decision, request) = (ApprovalDecision::Approve, Digest([3; 32]));
    let by = identity("human:bea");
    let challenge = approval_challenge(decision, &by.name, &request, Some("fine"));
    let vote = ApprovalVote {
        decision,
        request,
        by,
        comment: Some("fine".into()),
        signature: Some(Box::new(key.assertion(&challenge))),
    };
    let of = CommandId { session: SessionId::from_bytes([4; 16]), ordinal: 1 };
    let decided =
        |vote: &ApprovalVote| Body::Approval(Approval { of, step: ApprovalStep::Decided(Box::new(vote.clone())) });
    let enrolled = || Body::Passkey(key.passkey("human:bea"));
    let report = audited(Scope::Whole, vec![enrolled(), decided(&vote)]);
    assert_eq!((report.integrity.violation, report.integrity.signed_decisions), (None, 1));

    let what = |bodies| audited(Scope::Whole, bodies).integrity.violation.unwrap().what;
    let denied = ApprovalVote { decision: ApprovalDecision::Deny, ..vote.clone() };
    assert!(what(vec![enrolled(), decided(&denied)]).contains("another challenge"));
    let comment = ApprovalVote { comment: None, ..vote.clone() };
    assert!(what(vec![enrolled(), decided(&comment)]).contains("another challenge"));
    let other = ApprovalVote { request: Digest([5; 32]), ..vote.clone() };
    assert!(what(vec![enrolled(), decided(&other)]).contains("another challenge"));
    assert!(what(vec![decided(&vote)]).contains("nobody had enrolled"));
    let cem = Body::Passkey(key.passkey("human:cem"));
    assert!(what(vec![cem, decided(&vote)]).contains("a passkey of human:cem"));
    let removed = Body::Passkey(Passkey { action: PasskeyAction::Removed, ..key.passkey("human:bea") });
    assert!(what(vec![enrolled(), removed, decided(&vote)]).contains("nobody had enrolled"));

    let report = audited(Scope::Selection, vec![decided(&vote)]);
    assert_eq!((report.integrity.violation, report.integrity.signed_decisions_unchecked), (None, 1));
}

fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let sample = |client: Vec<u8>, authenticator: &[u8]| [&client[..], &[0], authenticator].concat();
    let zero = Digest([0; 32]);
    let host = Sha256::digest("localhost");
    let of_localhost = |data: Vec<u8>| [&host[..], &data[32..]].concat();
    let create = || client_data("webauthn.create", &zero, "https://localhost", "");
    let get = client_data("webauthn.get", &zero, "https://localhost", "");
    let [es256, ed25519] = Key::all();
    vec![
        ("create-es256", sample(create(), &of_localhost(new_key(&es256)))),
        ("create-ed25519", sample(create(), &of_localhost(new_key(&ed25519)))),
        ("get", sample(get, &[&of_localhost(authenticator_data(5)), &[0x30, 0x06, 2, 1, 1, 2, 1, 1][..]].concat())),
    ]
}

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/passkey");

#[test]
fn the_fuzz_corpus_replays() {
    for (name, bytes) in samples() {
        assert_eq!(std::fs::read(format!("{CORPUS}/{name}")).unwrap(), bytes, "{name}: the form has changed");
    }
    for file in std::fs::read_dir(CORPUS).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        fuzz::passkey(&bytes);
        for at in 0..bytes.len() {
            fuzz::passkey(&bytes[..at]);
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            fuzz::passkey(&changed);
        }
    }
}

#[test]
#[ignore = "writes fuzz/corpus/passkey"]
fn make_the_corpus() {
    std::fs::create_dir_all(CORPUS).unwrap();
    for (name, bytes) in samples() {
        std::fs::write(format!("{CORPUS}/{name}"), bytes).unwrap();
    }
}

//! What 0.2 added.

use model::seal::{SessionKey, seal};
use model::*;

pub(super) fn entries() -> Vec<Entry> {
    let session = SessionId::from_bytes([7; 16]);
    let identity: IdentityName = "agent:copilot-agent".parse().unwrap();
    let by = || Actor { name: "uid:1000".into(), known: Known::Verified };
    let previous = PreviousLog {
        origin: "gateway.example.com".into(),
        vkey: "gateway.example.com+00000000+AQ==".into(),
        size: 17,
        root: Digest([1; 32]),
        witnessed: Some(40),
        reason: EpochReason::Rollback,
    };
    let erase = |fields, cause| Erase {
        session,
        connection: "app".into(),
        identity: identity.clone(),
        fields,
        cause,
        reason: "Article 17".into(),
        by: by(),
    };
    let head = seal(session, &SessionKey::new([9; 32]).field(1), 1, b"select 1");
    let blob = BlobField {
        number: 0,
        length: 100_000,
        commitment: Digest([2; 32]),
        sha256: Digest([3; 32]),
        bytes: 4_321,
        form: BlobForm::Text,
        packing: Some(Packing::Deflate),
        head,
    };
    let link = Link { session, number: 1, previous: Some(Digest([4; 32])) };
    let intent = Intent {
        link,
        command: CommandId { session, ordinal: 1 },
        who: Who { name: identity.clone(), known: Known::Verified, on_behalf_of: None },
        connection: "app".into(),
        database: Some(Label::new(b"app")),
        via: Via::Simple,
        text: Field::Blob(blob),
        parameters: Field::NONE,
        statement: None,
        portal: None,
        transaction: Some(Transaction::Idle),
        effects: Effects::NotEstablished,
        fidelity: Fidelity::Exact,
        verdict: Verdict::Allow,
        rules: vec![],
        policy: None,
        observed: None,
        approval: None,
        break_glass: None,
        durability: Durability::Intent,
        bytes: 100_006,
        upstream: None,
    };
    let close = SessionClose {
        link: Link { number: 2, ..link },
        reason: SessionEnd::ClientClosed,
        intents: 1,
        outcomes: 1,
        bytes_up: 5,
        bytes_down: 6,
        root: Some(Digest([5; 32])),
    };
    let hold = |action, narrow: bool| Hold {
        hold: "H1".into(),
        action,
        session: narrow.then_some(session),
        connection: narrow.then(|| "app".into()),
        identity: narrow.then(|| identity.clone()),
        reason: "Case 12/2026".into(),
        by: by(),
    };
    let standing = |name: &str, state, size| WitnessStanding { name: name.into(), state, size };
    let witnesses = Witnesses {
        size: 90,
        enough: Some(80),
        witnesses: vec![
            standing("w1", WitnessState::Current, Some(90)),
            standing("w2", WitnessState::Behind, Some(80)),
            standing("w3", WitnessState::Absent, None),
            standing("w4", WitnessState::Refused, None),
        ],
    };
    let export = Export {
        by: by(),
        selection: "--since 1d \"quoted\"".into(),
        entries: 12,
        disclosed: 3,
        sha256: Digest([6; 32]),
    };
    let genesis = Genesis {
        origin: "gateway.example.com/epoch-2".into(),
        vkey: "gateway.example.com/epoch-2+00000000+AQ==".into(),
        program: "onrecord 0.2.0".into(),
        previous: Some(previous),
    };
    let bodies = [
        Body::Genesis(genesis),
        Body::Intent(intent),
        Body::SessionClose(close),
        Body::Erase(erase(None, EraseCause::Request)),
        Body::Erase(erase(Some(vec![0, 7]), EraseCause::Retention)),
        Body::Hold(hold(HoldAction::Placed, true)),
        Body::Hold(hold(HoldAction::Released, false)),
        Body::Witnesses(witnesses),
        Body::Export(export),
        Body::Stop(Stop { reason: StopReason::Rotation, next: Some("next+00000000+AQ==".into()) }),
    ];
    let time = Time { wall_us: 1_795_340_101_000_000, boot_us: 5_000_000 };
    bodies.into_iter().map(|body| Entry { time, body }).collect()
}

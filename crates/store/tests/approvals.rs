//! An approval is read back step by step, and the gateway's end is the end of one that was open.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;

use common::*;
use model::{
    Approval, ApprovalDecision, ApprovalRequest, ApprovalStep, ApprovalVote, ApprovalWord, CommandId, Digest, Identity,
    Label, OnBehalfOf, Status, Verdict,
};
use store::{IntentDraft, OutcomeDraft, Reader, Recorder, SessionLog, verify_on};
use testkit::sim_disk::SimDisk;

fn person(name: &str) -> Identity {
    Identity { name: name.parse().unwrap(), on_behalf_of: None::<OnBehalfOf>, ..start().identity }
}

/// A command that is held, and the leaf hash of its request.
fn held(recorder: &Recorder, session: &mut SessionLog) -> (CommandId, Digest) {
    let gate = recorder.gate();
    let (text, none) = (session.seal(b"drop table users"), session.seal(b"[]"));
    let pending = session.intent(&IntentDraft { verdict: Verdict::Hold, ..intent(&text, &none) }).unwrap();
    let request = ApprovalRequest {
        intent: pending.leaf(),
        connection: "app".into(),
        database: Some(Label::new(b"app")),
        role: "app_owner".into(),
        policy: Digest([1; 32]),
        quorum: 1,
        signed: false,
        expires_us: i64::MAX / 4,
        nonce: Digest([2; 32]),
    };
    let of = pending.command();
    let step = ApprovalStep::Requested(Box::new(request));
    let (_, leaf) = recorder.note_approval(Approval { of, step }).unwrap();
    let recorded = admit(&gate, pending).unwrap();
    if of.ordinal == 1 {
        let by = person("human:ada");
        let (decision, comment) = (ApprovalDecision::Approve, Some("as agreed".to_owned()));
        let vote = ApprovalVote { decision, request: leaf, by: by.clone(), comment, signature: None };
        for step in [
            ApprovalStep::Seen { by: Box::new(by) },
            ApprovalStep::Decided(Box::new(vote)),
            ApprovalStep::Used { command: of },
        ] {
            recorder.note_approval(Approval { of, step }).unwrap();
        }
        session.outcome(recorded, &OutcomeDraft { executed: true, ..OutcomeDraft::new(Status::Ok) }).unwrap();
    } else {
        session.outcome(recorded, &OutcomeDraft::new(Status::Denied)).unwrap();
    }
    (of, leaf)
}

#[test]
fn the_steps_of_an_approval_are_read_in_order() {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    let (recorder, _) = open(&disk).unwrap();
    let (mut session, _opening) = recorder.open_session(start()).unwrap();
    let (used, request) = held(&recorder, &mut session);
    let (open_still, _) = held(&recorder, &mut session);
    session.close(closing()).unwrap();
    durable(&recorder.gate(), recorder.note(heartbeat()).unwrap()).unwrap();

    let reader = Reader::on(Arc::new(disk.clone())).unwrap();
    let steps = reader.approvals(used).unwrap();
    let words: Vec<_> = steps.iter().map(|entry| entry.step.word()).collect();
    assert_eq!(words, [ApprovalWord::Requested, ApprovalWord::Seen, ApprovalWord::Decided, ApprovalWord::Used]);
    assert_eq!(steps[0].leaf, request);
    assert!(steps.is_sorted_by(|before, after| before.index < after.index && before.time.wall_us < after.time.wall_us));
    assert_eq!(reader.approval_story(open_still).unwrap().unwrap().void, None);
    assert!(reader.approvals_used(used.session, steps[3].index + 1).unwrap().contains(&used));
    assert!(reader.approvals_used(used.session, steps[3].index).unwrap().is_empty());
    let nobody = CommandId { ordinal: 9, ..used };
    assert_eq!((reader.approvals(nobody).unwrap(), reader.approval_story(nobody).unwrap()), (vec![], None));

    // The same reader reads on.
    recorder.stop().unwrap();
    assert!(reader.approval_story(open_still).unwrap().unwrap().void.is_some());
    assert_eq!(reader.approval_story(used).unwrap().unwrap().void, None);
    let report = verify_on(Arc::new(disk), None, &[], &mut |_| {}).unwrap();
    assert!(report.is_ok(), "{report:#?}");
}

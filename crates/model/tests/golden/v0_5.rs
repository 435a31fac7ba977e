//! What 0.5 added.

use model::*;

/// Every form that 0.5 added to the record: approvals.
pub(super) fn entries() -> Vec<Entry> {
    let session = SessionId::from_bytes([4; 16]);
    let of = CommandId { session, ordinal: 7 };
    let later = CommandId { session: SessionId::from_bytes([5; 16]), ordinal: 1 };
    let bea = || Identity {
        name: "human:bea".parse().unwrap(),
        known: Known::Verified,
        proof: Proof {
            method: ProofMethod::Jwt,
            channel: ChannelBinding::None,
            credential: "jwt:0303".into(),
            evidence: None,
        },
        on_behalf_of: None,
        groups: vec!["dbas".into()],
        run: None,
    };
    let intent = |verdict: Verdict, approval: Option<CommandId>| {
        Body::Intent(Intent {
            link: Link { session, number: 1, previous: Some(Digest([8; 32])) },
            command: of,
            who: Who { name: "agent:copilot".parse().unwrap(), known: Known::Verified, on_behalf_of: None },
            connection: "app".into(),
            database: Some(Label::new(b"app")),
            via: Via::Simple,
            text: Field::NONE,
            parameters: Field::NONE,
            statement: None,
            portal: None,
            transaction: Some(Transaction::Idle),
            effects: Effects::NotEstablished,
            fidelity: Fidelity::Exact,
            verdict,
            rules: vec!["ask-first".into()],
            policy: Some(Digest([5; 32])),
            observed: None,
            approval,
            break_glass: None,
            durability: Durability::Intent,
            bytes: 9,
            upstream: None,
        })
    };
    let request = ApprovalRequest {
        intent: Digest([1; 32]),
        connection: "app".into(),
        database: Some(Label::new(b"app")),
        role: "app_owner".into(),
        policy: Digest([5; 32]),
        quorum: 2,
        signed: true,
        expires_us: 1_795_341_001_000_000,
        nonce: Digest([9; 32]),
    };
    let vote = |decision, comment: Option<&str>| {
        let comment = comment.map(str::to_owned);
        ApprovalVote { decision, request: Digest([2; 32]), by: bea(), comment, signature: None }
    };
    let decided = |vote: ApprovalVote| ApprovalStep::Decided(Box::new(vote));
    let signature = Assertion {
        credential: "AAEC_w".into(),
        authenticator_data: vec![0xa7; 37],
        client_data: br#"{"type":"webauthn.get"}"#.into(),
        signature: vec![0x30, 0x44],
    };
    let passkey = |action, algorithm, public_key| {
        Body::Passkey(Passkey {
            action,
            identity: bea(),
            credential: "AAEC_w".into(),
            algorithm,
            public_key,
            rp_id: "gateway.example".into(),
            origin: "https://gateway.example:8443".into(),
            aaguid: "00000000-0000-0000-0000-000000000000".into(),
        })
    };
    let step = |step| Body::Approval(Approval { of, step });
    let bodies = [
        intent(Verdict::Hold, None),
        step(ApprovalStep::Requested(Box::new(request))),
        step(ApprovalStep::Seen { by: Box::new(bea()) }),
        step(decided(vote(ApprovalDecision::Approve, None))),
        step(decided(vote(ApprovalDecision::Deny, Some("not on a \"Friday\"")))),
        intent(Verdict::Hold, Some(later)),
        step(ApprovalStep::Used { command: later }),
        step(ApprovalStep::Ended { how: ApprovalEnd::Expired }),
        step(ApprovalStep::Ended { how: ApprovalEnd::Superseded }),
        Body::Cancel(Cancel {
            session: Some(session),
            source: "192.0.2.1".into(),
            result: CancelResult::Held,
            count: 1,
        }),
        passkey(PasskeyAction::Enrolled, PasskeyAlgorithm::Es256, vec![4; 65]),
        step(decided(ApprovalVote {
            signature: Some(Box::new(signature)),
            ..vote(ApprovalDecision::Approve, Some("ok"))
        })),
        passkey(PasskeyAction::Removed, PasskeyAlgorithm::Ed25519, vec![7; 32]),
    ];
    let time = Time { wall_us: 1_795_340_101_000_000, boot_us: 5_000_000 };
    bodies.into_iter().map(|body| Entry { time, body }).collect()
}

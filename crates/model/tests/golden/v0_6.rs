//! What 0.6 added.

use std::sync::Arc;

use model::seal::{SessionKey, seal};
use model::*;

/// Every form that 0.6 added to the record.
pub(super) fn entries() -> Vec<Entry> {
    [break_glass(), ssh(), ssh_certificates(), oversight()].concat()
}

/// Sessions that somebody watched, and ended.
fn oversight() -> Vec<Entry> {
    let session = SessionId::from_bytes([8; 16]);
    let by = || Actor { name: "uid:1000".into(), known: Known::Verified };
    let watched = |command| Oversight { action: OversightAction::Watched, session, command, reason: None, by: by() };
    let killed = Oversight {
        action: OversightAction::Killed,
        session,
        command: None,
        reason: Some("it drops tables".into()),
        by: by(),
    };
    let close = SessionClose {
        link: Link { session, number: 3, previous: Some(Digest([4; 32])) },
        reason: SessionEnd::Killed,
        intents: 1,
        outcomes: 1,
        bytes_up: 12,
        bytes_down: 345,
        root: Some(Digest([9; 32])),
    };
    let bodies = [
        Body::Oversight(watched(None)),
        Body::Oversight(watched(Some(CommandId { session, ordinal: 1 }))),
        Body::Oversight(killed),
        Body::SessionClose(close),
    ];
    let time = Time { wall_us: 1_795_340_101_000_000, boot_us: 5_000_000 };
    bodies.into_iter().map(|body| Entry { time, body }).collect()
}

/// Certificates for SSH keys, which are handed out as connection tokens are.
fn ssh_certificates() -> Vec<Entry> {
    let proof = Proof {
        method: ProofMethod::SshCertificate,
        channel: ChannelBinding::Bound,
        credential: "ssh-certificate:8899aabbccddeeff".into(),
        evidence: None,
    };
    let identity = Identity {
        name: "agent:deployer".parse().unwrap(),
        known: Known::Verified,
        proof,
        on_behalf_of: None,
        groups: vec!["agents".into()],
        run: None,
    };
    let token = |action, client: Option<&str>| Token {
        action,
        id: "8899aabbccddeeff".into(),
        identity: identity.clone(),
        opens: Opens::Ssh {
            connections: vec!["web1".into(), "web2".into()],
            key: "SHA256:0u8ZzTqVqyW3qkY0r0C6mS7nq7mAhw2nqF8nK3t4m5k".into(),
        },
        expires_us: 1_795_341_001_000_000,
        client: client.map(str::to_owned),
    };
    let bodies = [token(TokenAction::Issued, Some("192.0.2.1")), token(TokenAction::Revoked, None)].map(Body::Token);
    let time = Time { wall_us: 1_795_340_101_000_000, boot_us: 5_000_000 };
    bodies.into_iter().map(|body| Entry { time, body }).collect()
}

/// Commands and files over SSH: of neither is there a database or a transaction.
fn ssh() -> Vec<Entry> {
    let session = SessionId::from_bytes([8; 16]);
    let name: IdentityName = "agent:deployer".parse().unwrap();
    let identity = Identity {
        name: name.clone(),
        known: Known::Verified,
        proof: Proof {
            method: ProofMethod::PublicKey,
            channel: ChannelBinding::Bound,
            credential: "ssh-key:SHA256:0u8ZzTqVqyW3qkY0r0C6mS7nq7mAhw2nqF8nK3t4m5k".into(),
            evidence: None,
        },
        on_behalf_of: None,
        groups: vec![],
        run: None,
    };
    let link = |number: u32| Link { session, number, previous: (number > 0).then_some(Digest([4; 32])) };
    let command = |ordinal| CommandId { session, ordinal };
    let open = SessionOpen {
        link: link(0),
        identity,
        connection: "web1".into(),
        database: None,
        upstream_user: "deploy".into(),
        protocol: "ssh 2.0".into(),
        client: "192.0.2.7:50022".into(),
        tls: None,
        claims: vec![Claim { name: Label::new(b"client_version"), value: Label::new(b"SSH-2.0-OpenSSH_9.2p1") }],
        durability: Durability::Intent,
        key_slot: 3,
        key_commitment: Digest([7; 32]),
        upstream: Some(UpstreamSecurity::Verified),
        outpost: None,
    };
    let facts = |operation, effects, opaque| {
        Effects::Established(Arc::new(Facts {
            operation,
            operations: vec![operation],
            effects,
            bounded: true,
            opaque,
            ..Facts::unknown(Opaque::Exec)
        }))
    };
    let sealed =
        |number, text: &[u8]| Field::Sealed(seal(session, &SessionKey::new([9; 32]).field(number), number, text));
    let intent = |number, ordinal, via, text, effects| {
        Body::Intent(Intent {
            link: link(number),
            command: command(ordinal),
            who: Who { name: name.clone(), known: Known::Verified, on_behalf_of: None },
            connection: "web1".into(),
            database: None,
            via,
            text,
            parameters: Field::NONE,
            statement: None,
            portal: None,
            transaction: None,
            effects,
            fidelity: Fidelity::Exact,
            verdict: Verdict::Allow,
            rules: vec![],
            policy: None,
            observed: None,
            approval: None,
            break_glass: None,
            durability: Durability::Intent,
            bytes: 6,
            upstream: None,
        })
    };
    let outcome = |number, ordinal, status, code: &str| Outcome {
        link: link(number),
        of: command(ordinal),
        status,
        reason: None,
        code: Some(code.into()),
        message: Field::NONE,
        results: vec![],
        results_count: 0,
        rows: 0,
        bytes_up: 0,
        bytes_down: 8,
        duration_us: 5_000,
        copy: None,
        fetches: 0,
        suspended: false,
        effective: Effective::Unknown,
        notices: 0,
        executed: true,
        transcript: None,
        file: None,
    };
    let blob = BlobField {
        number: 4,
        length: 100_000,
        commitment: Digest([2; 32]),
        sha256: Digest([3; 32]),
        bytes: 4_321,
        form: BlobForm::Transcript,
        packing: Some(Packing::Deflate),
        head: seal(session, &SessionKey::new([9; 32]).field(5), 5, b"\x01\x0a\x02hi"),
    };
    let transcript = |content| Some(Transcript { content, stdin: 1, stdout: 99_000, stderr: 9, kept: 90_000 });
    let file = FileContent { read: 0, written: 13, sha256: sealed(7, &[b'a'; 64]) };
    let exec = facts(Operation::Exec, vec![Effect::Unknown], vec![Opaque::Exec]);
    let write = facts(Operation::FileWrite, vec![Effect::Write], vec![]);
    let bodies = vec![
        Body::SessionOpen(open),
        intent(1, 1, Via::Exec, sealed(0, b"exit 7"), exec.clone()),
        Body::Outcome(Outcome { transcript: transcript(sealed(1, b"x")), ..outcome(2, 1, Status::Error, "7") }),
        intent(3, 2, Via::Exec, sealed(2, b"yes"), exec),
        Body::Outcome(Outcome { transcript: transcript(Field::Blob(blob)), ..outcome(4, 2, Status::Error, "SIGTERM") }),
        intent(
            5,
            3,
            Via::Subsystem,
            sealed(3, b"sftp"),
            facts(Operation::Subsystem, vec![Effect::Unknown], vec![Opaque::Exec]),
        ),
        intent(6, 4, Via::File, sealed(6, b"write /srv/a"), write),
        Body::Outcome(Outcome { code: None, file: Some(file), ..outcome(7, 4, Status::Ok, "") }),
        intent(8, 5, Via::Shell, Field::NONE, Effects::NotEstablished),
    ];
    let time = Time { wall_us: 1_795_340_102_000_000, boot_us: 6_000_000 };
    bodies.into_iter().map(|body| Entry { time, body }).collect()
}

/// Break-glass: its steps, and a command under it that would have been held.
fn break_glass() -> Vec<Entry> {
    let id = BreakGlassId::from_bytes([6; 16]);
    let person = |name: &str, groups: &[&str]| Identity {
        name: name.parse().unwrap(),
        known: Known::Verified,
        proof: Proof {
            method: ProofMethod::Jwt,
            channel: ChannelBinding::None,
            credential: "jwt:0404".into(),
            evidence: None,
        },
        on_behalf_of: None,
        groups: groups.iter().map(|&group| group.into()).collect(),
        run: None,
    };
    let session = SessionId::from_bytes([7; 16]);
    let intent = Intent {
        link: Link { session, number: 1, previous: Some(Digest([8; 32])) },
        command: CommandId { session, ordinal: 1 },
        who: Who { name: "human:cy".parse().unwrap(), known: Known::Verified, on_behalf_of: None },
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
        verdict: Verdict::Allow,
        rules: vec!["ask-first".into()],
        policy: Some(Digest([5; 32])),
        observed: Some(Verdict::Hold),
        approval: None,
        break_glass: Some(id),
        durability: Durability::Intent,
        bytes: 9,
        upstream: None,
    };
    let step = |step| Body::BreakGlass(BreakGlass { id, step });
    let review = |finding, comment: &str| {
        let by = person("human:dora", &["dbas"]);
        step(BreakGlassStep::Reviewed(Box::new(BreakGlassReview { by, finding, comment: comment.into() })))
    };
    let bodies = [
        step(BreakGlassStep::Opened(Box::new(BreakGlassOpening {
            connection: "app".into(),
            by: person("human:cy", &["on-call"]),
            reason: "the \"orders\" queue is stuck, nobody else is up".into(),
            until_us: 1_795_341_901_000_000,
        }))),
        Body::Intent(intent),
        step(BreakGlassStep::Closed {
            how: BreakGlassEnd::Person,
            by: Some(Box::new(person("human:cy", &["on-call"]))),
        }),
        step(BreakGlassStep::Closed { how: BreakGlassEnd::Expired, by: None }),
        step(BreakGlassStep::Closed { how: BreakGlassEnd::Restart, by: None }),
        step(BreakGlassStep::Closed { how: BreakGlassEnd::Revoked, by: None }),
        step(BreakGlassStep::Closed { how: BreakGlassEnd::NotPermitted, by: None }),
        review(BreakGlassFinding::Justified, "the queue was stuck"),
        review(BreakGlassFinding::NotJustified, "it could have waited"),
    ];
    let time = Time { wall_us: 1_795_340_101_000_000, boot_us: 5_000_000 };
    bodies.into_iter().map(|body| Entry { time, body }).collect()
}

//! What each version added to the format, byte for byte: every later version reads and writes it so.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use model::seal::{SessionKey, seal};
use model::*;

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

fn entries_0_2() -> Vec<Entry> {
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

fn entries_0_3() -> Vec<Entry> {
    let session = SessionId::from_bytes([8; 16]);
    let by = || Actor { name: "uid:1000".into(), known: Known::Verified };
    let human = || OnBehalfOf { name: "human:bea+ops@example.com".parse().unwrap(), known: Known::Verified };
    let token = |full: bool| TokenEvidence {
        issuer: "https://idp.example.com".into(),
        subject: "bea".into(),
        audience: vec!["onrecord".into()],
        client: full.then(|| "cli".into()),
        jti: full.then(|| "id-1".into()),
        issued: full.then_some(1_795_340_000),
        not_before: full.then_some(1_795_340_001),
        expires: 1_795_340_900,
        auth_time: full.then_some(1_795_330_000),
        acr: full.then(|| "loa2".into()),
        amr: if full { vec!["pwd".into(), "otp".into()] } else { vec![] },
        actors: if full { vec!["copilot".into()] } else { vec![] },
        confirmation: full.then(|| "jkt:x".into()),
        kid: full.then(|| "k1".into()),
        algorithm: "ES256".into(),
        key: Digest([1; 32]),
        keys: Digest([2; 32]),
        keys_fetched: 1_795_339_000,
        token: Digest([3; 32]),
        rule: "corp/agents".into(),
        rules: Digest([4; 32]),
        claims: if full { vec![("ref".into(), "refs/heads/\"main\"".into())] } else { vec![] },
        verified: 1_795_340_100,
    };
    let certificate = CertificateEvidence {
        subject: "CN=copilot".into(),
        names: vec!["uri:spiffe://example.com/copilot".into()],
        issuer: "CN=authority".into(),
        serial: "0a".into(),
        not_before: 1_795_000_000,
        not_after: 1_796_000_000,
        sha256: Digest([5; 32]),
        rule: "certificates/workload".into(),
        rules: Digest([6; 32]),
    };
    let identity = |method, evidence: Option<Evidence>, full: bool| Identity {
        name: "agent:copilot/42".parse().unwrap(),
        known: Known::Verified,
        proof: Proof { method, channel: ChannelBinding::None, credential: "jwt:0303".into(), evidence },
        on_behalf_of: full.then(human),
        groups: if full { vec!["agents".into()] } else { vec![] },
        run: full.then(|| Run { id: "github:9.1".into(), known: Known::Verified }),
    };
    let of_token = |full| identity(ProofMethod::Jwt, Some(Evidence::Token(Box::new(token(full)))), full);
    let open = |identity, upstream, outpost| SessionOpen {
        link: Link { session, number: 0, previous: None },
        identity,
        connection: "app".into(),
        database: Some(Label::new(b"app")),
        upstream_user: "app_owner".into(),
        protocol: "postgres 3.0".into(),
        client: "192.0.2.1:5000".into(),
        tls: Some("TLSv1.3".into()),
        claims: vec![],
        durability: Durability::Intent,
        key_slot: 7,
        key_commitment: Digest([7; 32]),
        upstream,
        outpost,
    };
    let outpost = |action, full: bool| Outpost {
        action,
        id: "o1".into(),
        name: "site-a".into(),
        labels: if full { vec!["eu".into()] } else { vec![] },
        address: full.then(|| "192.0.2.9".into()),
        serial: full.then(|| "0b".into()),
        reason: full.then(|| "lost".into()),
        by: full.then(by),
    };
    let intent = Intent {
        link: Link { session, number: 1, previous: Some(Digest([8; 32])) },
        command: CommandId { session, ordinal: 1 },
        who: Who { name: "agent:copilot/42".parse().unwrap(), known: Known::Verified, on_behalf_of: Some(human()) },
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
        rules: vec![],
        policy: None,
        observed: None,
        approval: None,
        break_glass: None,
        durability: Durability::Intent,
        bytes: 9,
        upstream: Some(UpstreamSecurity::Plaintext),
    };
    let revocation = |action| Revocation {
        action,
        identity: "agent:copilot/42".parse().unwrap(),
        sessions: 2,
        tokens: 1,
        reason: "key leaked".into(),
        by: by(),
    };
    let connection_token = |action, client: Option<&str>| Token {
        action,
        id: "0011223344556677".into(),
        identity: of_token(false),
        opens: Opens::Connection("app".into()),
        expires_us: 1_795_341_001_000_000,
        client: client.map(str::to_owned),
    };
    let configuration = |result, refused: Option<Digest>, reason: Option<&str>| Configuration {
        result,
        cause: ConfigurationCause::Signal,
        configuration: Digest([9; 32]),
        refused,
        reason: reason.map(str::to_owned),
        sessions_ended: 1,
    };
    let shared = |runs: &[&str]| Shared {
        identity: "agent:copilot/42".parse().unwrap(),
        credential: "salt:x".into(),
        sources: vec!["192.0.2.1".into(), "192.0.2.2".into()],
        runs: runs.iter().map(|&run| run.into()).collect(),
        sessions: 2,
    };
    let carried = Carried { id: "o1".into(), name: "site-a".into() };
    let bodies = [
        Body::SessionOpen(open(of_token(true), Some(UpstreamSecurity::Verified), Some(carried))),
        Body::SessionOpen(open(of_token(false), Some(UpstreamSecurity::Plaintext), None)),
        Body::SessionOpen(open(
            identity(ProofMethod::Certificate, Some(Evidence::Certificate(Box::new(certificate))), false),
            None,
            None,
        )),
        Body::Intent(intent),
        Body::Configuration(configuration(ConfigurationResult::Accepted, None, None)),
        Body::Configuration(configuration(ConfigurationResult::Refused, Some(Digest([10; 32])), Some("line 7"))),
        Body::IssuerKey(IssuerKey {
            issuer: "https://idp.example.com".into(),
            kid: Some("k1".into()),
            thumbprint: Digest([1; 32]),
            jwk: "{\"kty\":\"OKP\"}".into(),
        }),
        Body::Token(connection_token(TokenAction::Issued, Some("192.0.2.1"))),
        Body::Token(connection_token(TokenAction::Revoked, None)),
        Body::Revocation(revocation(RevocationAction::Revoked)),
        Body::Revocation(revocation(RevocationAction::Restored)),
        Body::Shared(shared(&[])),
        Body::Shared(shared(&["github:9.1", "github:9.2"])),
        Body::Outpost(outpost(OutpostAction::Lost, true)),
        Body::Outpost(outpost(OutpostAction::Connected, false)),
    ];
    let time = Time { wall_us: 1_795_340_101_000_000, boot_us: 5_000_000 };
    bodies.into_iter().map(|body| Entry { time, body }).collect()
}

/// Every form that 0.4 added to the record: what a command does, and what a policy says of it.
fn entries_0_4() -> Vec<Entry> {
    let session = SessionId::from_bytes([3; 16]);
    let relation = |schema: Option<&str>, name: &str, access: &[Access]| Relation {
        schema: schema.map(str::to_owned),
        name: name.into(),
        access: access.to_vec(),
    };
    let known = Facts {
        operation: Operation::Update,
        operations: vec![Operation::Select, Operation::Update],
        effects: vec![Effect::Read, Effect::Write],
        relations: vec![
            relation(None, "orders", &[Access::Read, Access::Write]),
            relation(Some("hr"), "a \"b\"", &[Access::Read]),
        ],
        functions: vec!["lower".into(), "pg_catalog.now".into()],
        bounded: true,
        fingerprint: Some(Digest([6; 32])),
        opaque: vec![],
    };
    let intent = |effects: Effects, verdict: Verdict, rules: &[&str], observed: Option<Verdict>| {
        Body::Intent(Intent {
            link: Link { session, number: 1, previous: Some(Digest([8; 32])) },
            command: CommandId { session, ordinal: 1 },
            who: Who { name: "agent:copilot".parse().unwrap(), known: Known::Verified, on_behalf_of: None },
            connection: "app".into(),
            database: Some(Label::new(b"app")),
            via: Via::Simple,
            text: Field::NONE,
            parameters: Field::NONE,
            statement: None,
            portal: None,
            transaction: Some(Transaction::Idle),
            effects,
            fidelity: Fidelity::Exact,
            verdict,
            rules: rules.iter().map(|&rule| rule.into()).collect(),
            policy: Some(Digest([5; 32])),
            observed,
            approval: None,
            break_glass: None,
            durability: Durability::Intent,
            bytes: 9,
            upstream: None,
        })
    };
    let bodies = [
        intent(Effects::Established(known.into()), Verdict::Allow, &["agents-write"], None),
        intent(
            Effects::Established(Facts::unknown(Opaque::Unparsed).into()),
            Verdict::Deny,
            &["not-understood", "default"],
            None,
        ),
        intent(Effects::NotEstablished, Verdict::Allow, &["observed-only"], Some(Verdict::Deny)),
    ];
    let time = Time { wall_us: 1_795_340_101_000_000, boot_us: 5_000_000 };
    bodies.into_iter().map(|body| Entry { time, body }).collect()
}

/// Every form that 0.5 added to the record: approvals.
fn entries_0_5() -> Vec<Entry> {
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

/// Every form that 0.6 added to the record.
fn entries_0_6() -> Vec<Entry> {
    [break_glass_0_6(), ssh_0_6(), ssh_certificates_0_6()].concat()
}

/// Certificates for SSH keys, which are handed out as connection tokens are.
fn ssh_certificates_0_6() -> Vec<Entry> {
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
fn ssh_0_6() -> Vec<Entry> {
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
fn break_glass_0_6() -> Vec<Entry> {
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

fn held_to(file: &str, entries: &[Entry]) {
    let file = std::fs::read_to_string(format!("{DIRECTORY}/{file}")).unwrap();
    let lines: Vec<&str> = file.lines().collect();
    assert_eq!(lines.len(), entries.len());
    for (line, entry) in lines.into_iter().zip(entries) {
        assert_eq!(Entry::decode(line.as_bytes()).as_ref(), Ok(entry), "{line}");
        let mut leaf = Vec::new();
        entry.encode(&mut leaf);
        assert_eq!(String::from_utf8(leaf).unwrap(), line);
    }
}

#[test]
fn what_0_2_wrote_reads_and_is_written_so() {
    held_to("entries-0.2.ndjson", &entries_0_2());
}

#[test]
fn what_0_3_wrote_reads_and_is_written_so() {
    held_to("entries-0.3.ndjson", &entries_0_3());
}

#[test]
fn what_0_4_wrote_reads_and_is_written_so() {
    held_to("entries-0.4.ndjson", &entries_0_4());
}

#[test]
fn what_0_5_wrote_reads_and_is_written_so() {
    held_to("entries-0.5.ndjson", &entries_0_5());
}

#[test]
fn what_0_6_wrote_reads_and_is_written_so() {
    held_to("entries-0.6.ndjson", &entries_0_6());
}

/// How the newest file was made. Never run again: another version gets a file of its own.
#[test]
#[ignore = "makes the golden file, once per version of the format"]
fn make_0_6() {
    let file = format!("{DIRECTORY}/entries-0.6.ndjson");
    assert!(!std::path::Path::new(&file).exists(), "golden files are never made again");
    let mut lines = Vec::new();
    for entry in entries_0_6() {
        entry.encode(&mut lines);
        lines.push(b'\n');
    }
    std::fs::write(file, lines).unwrap();
}

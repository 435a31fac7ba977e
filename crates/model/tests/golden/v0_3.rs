//! What 0.3 added.

use model::*;

pub(super) fn entries() -> Vec<Entry> {
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

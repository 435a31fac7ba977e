//! What 0.4 added.

use model::*;

/// Every form that 0.4 added to the record: what a command does, and what a policy says of it.
pub(super) fn entries() -> Vec<Entry> {
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

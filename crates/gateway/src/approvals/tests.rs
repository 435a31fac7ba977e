//! The registry by itself, on a real log.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use model::{
    ChannelBinding, Digest, Durability, Facts, Field, Identity, Known, Label, Opaque, Proof, ProofMethod, Transaction,
    UpstreamSecurity, Via, Who,
};
use policy::approvals::{ApprovalRules, Standing};
use store::{IntentDraft, Options, RealDisk, Recorder, SessionLog, SessionStart, SystemClock, SystemRandom};

use super::{Approvals, Asked, CLOSED_MAX, NotHeld, OF_ONE_MAX, OPEN_MAX, Shown, Ticket};

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

fn session(recorder: &Recorder, name: &str) -> SessionLog {
    let start = SessionStart {
        identity: identity(name),
        connection: "app".into(),
        database: Some(Label::new(b"app")),
        upstream_user: "app".into(),
        protocol: "postgres 3.0".into(),
        client: "192.0.2.1:5000".into(),
        tls: None,
        claims: vec![],
        durability: Durability::Intent,
        upstream: UpstreamSecurity::Local,
        outpost: None,
    };
    recorder.open_session(start).unwrap().0
}

fn asked(name: &str, statement: &str, facts: &Arc<Facts>) -> Asked {
    Asked {
        who: Who { name: name.parse().unwrap(), known: Known::Verified, on_behalf_of: None },
        rules: ApprovalRules {
            identities: ["human:dora".parse().unwrap()].into(),
            groups: [].into(),
            quorum: 1,
            signed: false,
            expires: Duration::from_secs(600),
            wait: Duration::from_secs(60),
            wait_in_transaction: Duration::from_secs(1),
        },
        policy: Digest([1; 32]),
        shown: Shown {
            connection: "app".into(),
            database: Some("app".into()),
            role: "app".into(),
            statement: statement.into(),
            parameters: None,
            transaction: Some(Transaction::Idle),
            rules: vec![],
            message: None,
            opaque: facts.opaque.clone(),
        },
        facts: Arc::clone(facts),
        raw_parameters: vec![],
    }
}

fn hold(approvals: &Arc<Approvals>, log: &mut SessionLog, asked: Asked) -> Result<Ticket, NotHeld> {
    let (text, none) = (Field::NONE, Field::NONE);
    let held = approvals.hold(asked, |approval| {
        log.intent(&IntentDraft {
            verdict: model::Verdict::Hold,
            approval,
            ..IntentDraft::new(Via::Simple, &text, &none)
        })
    });
    held.map(|(_pending, ticket)| ticket)
}

/// A log in a directory, and all that waits at it.
fn place() -> (tempfile::TempDir, Recorder, Arc<Approvals>) {
    let dir = tempfile::tempdir().unwrap();
    Recorder::create(dir.path(), "gateway.example/1").unwrap();
    let disk = Arc::new(RealDisk::new(dir.path()));
    let options = Options::new("gateway.example/1");
    let (recorder, _) = Recorder::open(disk, options, Arc::new(SystemClock), Box::new(SystemRandom)).unwrap();
    let approvals = Arc::new(Approvals::new(recorder.clone(), None));
    (dir, recorder, approvals)
}

fn facts(opaque: &[Opaque]) -> Arc<Facts> {
    Arc::new(Facts { opaque: opaque.to_vec(), ..Facts::unknown(Opaque::Failed) })
}

#[test]
fn ten_thousand_statements_are_held_within_bounds() {
    let (_dir, recorder, approvals) = place();
    let facts = facts(&[]);
    let (mut held, mut of_one, mut of_all) = (Vec::new(), 0, 0);
    for number in 0..200 {
        let name = format!("agent:a{number}");
        let mut log = session(&recorder, &name);
        for statement in 0..50 {
            match hold(&approvals, &mut log, asked(&name, &format!("update t set v = {statement}"), &facts)) {
                Ok(ticket) => held.push(ticket),
                Err(NotHeld::TooMany(why)) if why.contains("this identity") => of_one += 1,
                Err(NotHeld::TooMany(_)) => of_all += 1,
                Err(NotHeld::Record(error)) => panic!("{error}"),
            }
        }
    }
    assert_eq!((held.len(), held.len() + of_one + of_all), (OPEN_MAX, 10_000));
    assert_eq!(of_one, OPEN_MAX / OF_ONE_MAX * (50 - OF_ONE_MAX));
    // Somebody who is locked out leaves room; all that is over does not stay for ever.
    approvals.sweep(|name| name.as_str() == "agent:a0");
    assert_eq!(approvals.lock().open, OPEN_MAX - OF_ONE_MAX);
    let mut log = session(&recorder, "agent:late");
    assert!(hold(&approvals, &mut log, asked("agent:late", "update t set v = 1", &facts)).is_ok());
    approvals.sweep(|_| true);
    let inner = approvals.lock();
    assert_eq!((inner.open, inner.open_bytes, inner.cases.len(), inner.same.len()), (0, 0, CLOSED_MAX, 0));
    drop(inner);
}

#[test]
fn two_who_decide_at_once_and_two_who_wait_for_it_are_one_decision_and_one_use() {
    let (_dir, recorder, approvals) = place();
    let facts = facts(&[]);
    for round in 0..50 {
        let statement = format!("update t set v = {round}");
        let mut logs = [session(&recorder, "agent:a"), session(&recorder, "agent:a")];
        let tickets = logs.each_mut().map(|log| hold(&approvals, log, asked("agent:a", &statement, &facts)).unwrap());
        let of = tickets[0].of();
        assert_eq!(tickets[1].of(), of, "the same again waits for the same");
        let request = approvals.lock().cases.get(&of).unwrap().case.request();
        let dora = identity("human:dora");
        let decide = || {
            let approve = model::ApprovalDecision::Approve;
            usize::from(approvals.decide(of, &dora, approve, request, None, None).is_ok())
        };
        let counted = std::thread::scope(|scope| {
            let all = [scope.spawn(decide), scope.spawn(decide), scope.spawn(decide)];
            all.into_iter().map(|one| one.join().unwrap()).sum::<usize>()
        });
        assert_eq!(counted, 1);
        let take = |ticket: &Ticket| usize::from(ticket.take(of, Some(Digest([1; 32]))).is_ok());
        let taken = std::thread::scope(|scope| {
            let all = tickets.each_ref().map(|ticket| scope.spawn(move || take(ticket)));
            all.into_iter().map(|one| one.join().unwrap()).sum::<usize>()
        });
        assert_eq!(taken, 1);
        assert_eq!(approvals.lock().cases.get(&of).unwrap().case.standing(), Standing::Used);
    }
}

#[test]
fn a_text_that_may_mean_another_thing_is_not_the_same() {
    let (_dir, recorder, approvals) = place();
    let mut log = session(&recorder, "agent:a");
    let mut ask = |facts: &Arc<Facts>| hold(&approvals, &mut log, asked("agent:a", "delete from t", facts)).unwrap();
    let (plain, doubted) = (facts(&[]), facts(&[Opaque::Settings]));
    let first = ask(&plain);
    assert_eq!(ask(&plain).of(), first.of());
    assert_ne!(ask(&doubted).of(), first.of(), "names may mean other tables there");
    let again = ask(&doubted);
    assert_ne!(ask(&doubted).of(), again.of(), "nor do two such sessions mean the same");
}

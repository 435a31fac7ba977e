//! The registry by itself, on a real log.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{
    AbsentReason, Body, BreakGlassEnd, BreakGlassFinding, BreakGlassId, BreakGlassReview, BreakGlassStep,
    ChannelBinding, Durability, Field, FileContent, Identity, Known, Label, OnBehalfOf, Proof, ProofMethod, Transcript,
    UpstreamSecurity, Via, Who,
};
use policy::break_glass::{GlassRules, NotReviewed, Standing};
use policy::{Denial, Verdict};
use serde_json::json;
use store::{
    Filter, IntentDraft, OPENED_BYTES_MAX, Options, OutcomeDraft, Reader, RealDisk, Recorder, SessionLog, SessionStart,
    SystemClock, SystemRandom, commands_between,
};

use super::{Asked, BreakGlass, Covered, NotDone, api};

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

fn who(name: &str) -> Who {
    Who { name: name.parse().unwrap(), known: Known::Verified, on_behalf_of: None }
}

fn rules() -> GlassRules {
    GlassRules {
        openers: ["human:cy", "human:dora"].map(|name| name.parse().unwrap()).into(),
        opener_groups: [].into(),
        longest: Duration::from_secs(3600),
        reviewers: ["human:dora", "human:erin"].map(|name| name.parse().unwrap()).into(),
        reviewer_groups: [].into(),
    }
}

struct Place {
    dir: tempfile::TempDir,
    recorder: Recorder,
    glasses: BreakGlass,
}

fn recorder(dir: &tempfile::TempDir) -> Recorder {
    let disk = Arc::new(RealDisk::new(dir.path()));
    let options = Options::new("gateway.example/1");
    Recorder::open(disk, options, Arc::new(SystemClock), Box::new(SystemRandom)).unwrap().0
}

fn open(dir: &tempfile::TempDir, recorder: &Recorder) -> BreakGlass {
    BreakGlass::open(dir.path(), recorder.clone(), Reader::open(dir.path()).unwrap()).unwrap()
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    Recorder::create(dir.path(), "gateway.example/1").unwrap();
    std::fs::create_dir(dir.path().join("access")).unwrap();
    let recorder = recorder(&dir);
    let glasses = open(&dir, &recorder);
    Place { dir, recorder, glasses }
}

impl Place {
    fn open(&self, name: &str, connection: &str) -> Result<BreakGlassId, NotDone> {
        let by = identity(name);
        let asked = Asked { by: &by, connection, reason: "stuck", lasts: Duration::from_secs(600) };
        self.glasses.break_it(&asked, Some(&rules()))
    }

    fn covers(&self, name: &str, connection: &str) -> Option<BreakGlassId> {
        self.glasses.covering(&who(name), connection).as_ref().map(Covered::id)
    }

    fn review(&self, id: BreakGlassId, name: &str) -> Result<(), NotDone> {
        let (by, finding) = (identity(name), BreakGlassFinding::Justified);
        self.glasses.review(id, BreakGlassReview { by, finding, comment: "fine".into() }, Some(&rules()))
    }

    fn close(&self, id: BreakGlassId, name: &str) -> Result<(), NotDone> {
        self.glasses.close_it(id, &identity(name), Some(&rules()))
    }

    fn standing(&self, id: BreakGlassId) -> Option<Standing> {
        self.glasses.read().known.get(&id).map(|held| held.glass.standing())
    }

    /// The next run of the gateway, with what this one left.
    fn again(self) -> Self {
        let Self { dir, recorder: before, glasses } = self;
        drop(glasses);
        before.stop().unwrap();
        let recorder = recorder(&dir);
        let glasses = open(&dir, &recorder);
        Self { dir, recorder, glasses }
    }

    /// What the record says of one: the word of each step, and how it ended.
    fn steps(&self, id: BreakGlassId) -> Vec<String> {
        self.recorder.flush().unwrap();
        let steps = Reader::open(self.dir.path()).unwrap().break_glass(id).unwrap();
        let word = |step: &BreakGlassStep| match step {
            BreakGlassStep::Closed { how, .. } => how.as_str().to_owned(),
            step => step.word().as_str().to_owned(),
        };
        steps.iter().map(|entry| word(&entry.step)).collect()
    }

    fn session(&self, name: &str) -> SessionLog {
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
        self.recorder.open_session(start).unwrap().0
    }
}

#[test]
fn it_covers_its_opener_from_its_entry_to_its_end() {
    let place = place();
    assert_eq!(place.covers("human:cy", "app"), None);
    let id = place.open("human:cy", "app").unwrap();
    assert_eq!(place.covers("human:cy", "app"), Some(id));
    assert_eq!((place.covers("human:cy", "other"), place.covers("human:dora", "app")), (None, None));
    let principal = OnBehalfOf { name: "human:cy".parse().unwrap(), known: Known::Verified };
    let agent = Who { on_behalf_of: Some(principal), ..who("agent:copilot") };
    assert!(place.glasses.covering(&agent, "app").is_none());
    let covered = place.glasses.covering(&who("human:cy"), "app").unwrap();
    let denial = || Denial { rule: "r".into() };
    assert!(matches!(covered.lift(Verdict::Hold(denial())), Verdict::Allow(_)));
    assert!(matches!(covered.lift(Verdict::Deny(denial())), Verdict::Deny(_)));
    drop(covered);
    // Once at a time; another connection is another one.
    assert!(matches!(place.open("human:cy", "app"), Err(NotDone::Already(open)) if open == id));
    let other = place.open("human:cy", "other").unwrap();
    assert_eq!(place.covers("human:cy", "other"), Some(other));

    assert!(matches!(place.review(id, "human:dora"), Err(NotDone::NotReviewed(NotReviewed::Open))));
    assert!(matches!(place.close(id, "human:eve"), Err(NotDone::NotYours(_))), "somebody who has no part in it");
    place.close(id, "human:cy").unwrap();
    assert_eq!((place.covers("human:cy", "app"), place.covers("human:cy", "other")), (None, Some(other)));
    assert!(matches!(place.close(id, "human:cy"), Err(NotDone::Over)));
    place.close(other, "human:erin").unwrap();
    assert!(matches!(place.review(id, "human:cy"), Err(NotDone::NotReviewed(NotReviewed::NotAllowed(_)))));
    place.review(id, "human:dora").unwrap();
    assert!(matches!(place.review(id, "human:erin"), Err(NotDone::NotReviewed(NotReviewed::Again))));
    assert_eq!(place.steps(id), ["opened", "person", "reviewed"]);
}

#[test]
fn nothing_is_opened_that_the_configuration_does_not_know() {
    let place = place();
    let by = identity("human:cy");
    let asked = Asked { by: &by, connection: "app", reason: "stuck", lasts: Duration::from_secs(600) };
    let why = place.glasses.break_it(&asked, None).unwrap_err();
    assert_eq!(why.to_string(), "nobody may break the glass on connection app");
    assert!(place.open("human:eve", "app").is_err() && place.open("agent:copilot", "app").is_err());
    assert_eq!(place.recorder.appended(), 1, "only genesis");
}

#[test]
fn its_time_is_over_in_the_instant_and_then_on_the_record() {
    let place = place();
    let id = place.open("human:cy", "app").unwrap();
    place.glasses.write().known.get_mut(&id).unwrap().began = Instant::now() - Duration::from_secs(600);
    assert_eq!(place.covers("human:cy", "app"), None, "before anybody swept");
    assert_eq!(place.standing(id), Some(Standing::Open));
    place.glasses.sweep(|_, _| true, |_| false);
    assert_eq!(place.standing(id), Some(Standing::Closed(BreakGlassEnd::Expired)));
    assert_eq!(place.steps(id), ["opened", "expired"]);
    // Who is locked out, and where the configuration knows nothing of it any more.
    let (revoked, gone) = (place.open("human:cy", "app").unwrap(), place.open("human:dora", "app").unwrap());
    place.glasses.sweep(
        |by, connection| (by.name.as_str(), connection) != ("human:dora", "app"),
        |name| name.as_str() == "human:cy",
    );
    assert_eq!(
        (place.steps(revoked), place.steps(gone)),
        (vec!["opened".to_owned(), "revoked".to_owned()], vec!["opened".to_owned(), "not_permitted".to_owned()])
    );
    assert_eq!((place.covers("human:cy", "app"), place.covers("human:dora", "app")), (None, None));
}

#[test]
fn a_restart_ends_what_was_open_and_forgets_nothing_that_was_not_reviewed() {
    let place = place();
    let (open, closed) = (place.open("human:cy", "app").unwrap(), place.open("human:dora", "app").unwrap());
    let reviewed = place.open("human:cy", "other").unwrap();
    place.close(closed, "human:dora").unwrap();
    place.close(reviewed, "human:cy").unwrap();
    place.review(reviewed, "human:erin").unwrap();
    let place = place.again();
    assert_eq!(place.covers("human:cy", "app"), None);
    assert_eq!(place.standing(open), Some(Standing::Closed(BreakGlassEnd::Restart)));
    assert_eq!(place.standing(closed), Some(Standing::Closed(BreakGlassEnd::Person)));
    assert_eq!(place.standing(reviewed), None);
    let place = place.again();
    assert_eq!(place.steps(open), ["opened", "restart"], "closed once");
    place.review(open, "human:erin").unwrap();
    place.review(closed, "human:erin").unwrap();
    let place = place.again();
    assert!(place.glasses.read().known.is_empty());
    // A file that is gone is no way to have things forgotten.
    let (open, closed) = (place.open("human:cy", "app").unwrap(), place.open("human:dora", "app").unwrap());
    place.close(closed, "human:dora").unwrap();
    let file = place.dir.path().join("access/break-glass");
    std::fs::remove_file(&file).unwrap();
    let place = place.again();
    assert_eq!(place.standing(open), Some(Standing::Closed(BreakGlassEnd::Restart)));
    assert_eq!(place.standing(closed), Some(Standing::Closed(BreakGlassEnd::Person)));
    assert_eq!(place.glasses.read().known.len(), 2, "what was reviewed is over");
    assert!(file.exists());
    // What is damaged is not taken for nothing.
    std::fs::write(place.dir.path().join("access/break-glass"), "onrecord/v1 break-glass\n").unwrap();
    let reader = Reader::open(place.dir.path()).unwrap();
    assert!(BreakGlass::open(place.dir.path(), place.recorder.clone(), reader).is_err());
}

#[test]
fn the_file_has_the_leaves_of_the_record() {
    let place = place();
    let id = place.open("human:cy", "app").unwrap();
    place.close(id, "human:dora").unwrap();
    let file = std::fs::read_to_string(place.dir.path().join("access/break-glass")).unwrap();
    let reader = Reader::open(place.dir.path()).unwrap();
    let recorded =
        reader.entries(0).map(Result::unwrap).filter(|stored| matches!(stored.entry.body, Body::BreakGlass(_)));
    let recorded = recorded.map(|stored| format!("{} {}", stored.index, String::from_utf8(stored.leaf).unwrap()));
    assert_eq!(file.lines().skip(3).collect::<Vec<_>>(), recorded.collect::<Vec<_>>());
}

#[test]
fn what_a_crash_kept_from_the_file_is_found_in_the_record() {
    let place = place();
    let file = place.dir.path().join("access/break-glass");
    let first = place.open("human:cy", "app").unwrap();
    let before = std::fs::read(&file).unwrap();
    place.close(first, "human:cy").unwrap();
    let second = place.open("human:cy", "app").unwrap();
    std::fs::write(&file, &before).unwrap();
    let place = place.again();
    assert_eq!(place.standing(first), Some(Standing::Closed(BreakGlassEnd::Person)));
    assert_eq!(place.standing(second), Some(Standing::Closed(BreakGlassEnd::Restart)));
    assert_eq!((place.steps(first).len(), place.steps(second).len()), (2, 2));
    let before = std::fs::read(&file).unwrap();
    place.review(first, "human:dora").unwrap();
    std::fs::write(&file, &before).unwrap();
    let place = place.again();
    assert_eq!(place.standing(first), None, "it is not asked for twice");
    assert_eq!(place.standing(second), Some(Standing::Closed(BreakGlassEnd::Restart)));
}

#[test]
fn what_nobody_can_review_any_more_is_noticed() {
    let place = place();
    let (rules, id) = (rules(), place.open("human:cy", "app").unwrap());
    place.open("human:cy", "other").unwrap();
    place.close(id, "human:cy").unwrap();
    let unreviewable = |gone: &str| place.glasses.warn_unreviewable(|name| (name != gone).then_some(&rules));
    assert_eq!((unreviewable("none"), unreviewable("app"), unreviewable("other")), (0, 1, 1));
    place.review(id, "human:dora").unwrap();
    assert_eq!(unreviewable("app"), 0);
}

#[test]
fn two_who_review_at_once_are_one_review() {
    let place = place();
    for _ in 0..20 {
        let id = place.open("human:cy", "app").unwrap();
        place.close(id, "human:cy").unwrap();
        let reviewed = std::thread::scope(|scope| {
            let all = ["human:dora", "human:erin", "human:dora"].map(|name| {
                scope.spawn({
                    let place = &place;
                    move || usize::from(place.review(id, name).is_ok())
                })
            });
            all.into_iter().map(|one| one.join().unwrap()).sum::<usize>()
        });
        assert_eq!(reviewed, 1);
        assert_eq!(place.steps(id), ["opened", "person", "reviewed"]);
    }
}

#[test]
fn eight_that_were_not_reviewed_are_enough() {
    let place = place();
    let ids: Vec<_> = (0..8)
        .map(|_| {
            let id = place.open("human:cy", "app").unwrap();
            place.close(id, "human:cy").unwrap();
            id
        })
        .collect();
    assert!(matches!(place.open("human:cy", "app"), Err(NotDone::TooMany(_))));
    let other = place.open("human:dora", "app").unwrap();
    place.close(other, "human:dora").unwrap();
    place.review(ids[0], "human:dora").unwrap();
    place.open("human:cy", "app").unwrap();
}

/// What a reviewer does not get to see of a command is said, and of which content.
#[test]
fn content_that_is_not_shown_whole_is_said_to_be_so() {
    let place = place();
    let id = place.open("human:cy", "app").unwrap();
    let mut log = place.session("human:cy");
    let long = log.seal("é".repeat(4001).as_bytes());
    let mut blob = log.blob().unwrap();
    blob.write(&vec![b'7'; usize::try_from(OPENED_BYTES_MAX).unwrap() + 1]).unwrap();
    let (blob, _) = blob.finish().unwrap();
    let (short, none) = (log.seal(b"[7]"), Field::NONE);
    let not_seen = Field::Absent(AbsentReason::NotSeen);
    for (text, parameters) in [(&short, &long), (&long, &blob), (&blob, &short), (&not_seen, &none), (&none, &not_seen)]
    {
        let draft = IntentDraft { break_glass: Some(id), ..IntentDraft::new(Via::Simple, text, parameters) };
        log.settled(&draft, &OutcomeDraft::new(model::Status::Ok)).unwrap();
    }
    place.close(id, "human:cy").unwrap();
    let reader = Reader::open(place.dir.path()).unwrap();
    let page = api::commands(&reader, id, 0, u64::MAX).unwrap();
    let told = page["list"].as_array().unwrap().iter().map(|one| {
        let length = |key: &str| one[key].as_str().map(|text| text.chars().count());
        let shortened = |key: &str| one[format!("{key}_shortened")].as_bool().unwrap();
        (length("statement"), shortened("statement"), length("parameters"), shortened("parameters"))
    });
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            (Some(3), false, Some(4000), true),
            (Some(4000), true, Some(4000), true),
            (Some(4000), true, Some(3), false),
            (None, true, None, false),
            (None, false, None, true),
        ]
    );
}

#[test]
fn of_programs_and_files_it_is_told_how_much_went_where() {
    let place = place();
    let id = place.open("human:cy", "app").unwrap();
    let mut log = place.session("human:cy");
    let none = Field::NONE;
    let transcript = Transcript { content: Field::NONE, stdin: 1, stdout: 2, stderr: 3, kept: 0 };
    let program = OutcomeDraft { transcript: Some(transcript), ..OutcomeDraft::new(model::Status::Ok) };
    let file = FileContent { read: 4, written: 5, sha256: log.seal(b"ab") };
    let file = OutcomeDraft { file: Some(file), ..OutcomeDraft::new(model::Status::Ok) };
    for (via, outcome) in [(Via::Exec, &program), (Via::File, &file)] {
        let draft = IntentDraft { break_glass: Some(id), ..IntentDraft::new(via, &none, &none) };
        log.settled(&draft, outcome).unwrap();
    }
    place.close(id, "human:cy").unwrap();
    let page = api::commands(&Reader::open(place.dir.path()).unwrap(), id, 0, u64::MAX).unwrap();
    let told = |key: &str| page["list"].as_array().unwrap().iter().map(|one| one[key].clone()).collect::<Vec<_>>();
    assert_eq!(told("via"), ["exec", "file"]);
    assert_eq!(told("streams"), [json!({"stdin": 1, "stdout": 2, "stderr": 3, "kept": 0}), json!(null)]);
    assert_eq!(told("file"), [json!(null), json!({"read": 4, "written": 5, "sha256": "ab"})]);
}

/// Page by page, a reviewer gets all commands, one that runs long among them.
#[test]
fn no_command_is_left_out_between_two_pages() {
    let place = place();
    let id = place.open("human:cy", "app").unwrap();
    let mut log = place.session("human:cy");
    let none = Field::NONE;
    let draft = || IntentDraft { break_glass: Some(id), ..IntentDraft::new(Via::Simple, &none, &none) };
    let long = log.intent(&draft()).unwrap();
    for _ in 0..5000 {
        log.settled(&draft(), &OutcomeDraft::new(model::Status::Ok)).unwrap();
    }
    place.close(id, "human:cy").unwrap();
    let reader = Reader::open(place.dir.path()).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    let mut after = Some(0);
    while let Some(first) = after {
        let page = api::commands(&reader, id, first, u64::MAX).unwrap();
        let ids = page["list"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned());
        seen.extend(ids);
        after = page["next"].as_u64().map(|next| next + 1);
    }
    assert_eq!(seen.len(), 5001);
    drop(long);
}

/// What was begun under it outlives its end; it is not reviewed before that has ended.
#[test]
fn it_is_not_reviewed_while_something_still_runs_under_it() {
    let place = place();
    let id = place.open("human:cy", "app").unwrap();
    let mut log = place.session("human:cy");
    let none = Field::NONE;
    let draft = IntentDraft { break_glass: Some(id), ..IntentDraft::new(Via::Exec, &none, &none) };
    let pending = log.intent(&draft).unwrap();
    let running = pending.command();
    for _ in 0..5000 {
        log.settled(&draft, &OutcomeDraft::new(model::Status::Ok)).unwrap();
    }
    place.close(id, "human:cy").unwrap();
    let why = place.review(id, "human:dora").unwrap_err();
    assert!(matches!(why, NotDone::Running(command) if command == running), "{why}");
    // Who may not review it is told that, and nothing else.
    assert!(matches!(place.review(id, "human:cy"), Err(NotDone::NotReviewed(NotReviewed::NotAllowed(_)))));
    log.withdraw(pending, &OutcomeDraft::new(model::Status::Unknown)).unwrap();
    place.review(id, "human:dora").unwrap();
}

/// However closing and commands meet: no command names it behind its end.
#[test]
fn no_command_names_it_after_its_end() {
    let place = place();
    for _ in 0..20 {
        let id = place.open("human:cy", "app").unwrap();
        let under = std::thread::scope(|scope| {
            let sessions = [(); 2].map(|()| {
                let mut log = place.session("human:cy");
                let place = &place;
                scope.spawn(move || {
                    let none = Field::NONE;
                    let mut under = 0;
                    while let Some(covered) = place.glasses.covering(&who("human:cy"), "app") {
                        let draft = IntentDraft {
                            break_glass: Some(covered.id()),
                            ..IntentDraft::new(Via::Simple, &none, &none)
                        };
                        log.settled(&draft, &OutcomeDraft::new(model::Status::Ok)).unwrap();
                        under += 1;
                    }
                    under
                })
            });
            let enough = place.recorder.appended() + 50;
            while place.recorder.appended() < enough {
                std::thread::yield_now();
            }
            place.close(id, "human:cy").unwrap();
            sessions.into_iter().map(|one| one.join().unwrap()).sum::<usize>()
        });
        let reader = Reader::open(place.dir.path()).unwrap();
        let steps = reader.break_glass(id).unwrap();
        let (first, last) = (steps[0].index, steps[1].index);
        let named = reader.entries(0).filter_map(Result::ok).filter(|stored| match &stored.entry.body {
            Body::Intent(intent) => intent.break_glass == Some(id),
            _ => false,
        });
        let named: Vec<u64> = named.map(|stored| stored.index).collect();
        assert_eq!(named.len(), under);
        assert!(named.iter().all(|index| (first..last).contains(index)), "{first} {named:?} {last}");
        // And the reviewer sees them all.
        let filter = Filter { break_glass: Some(id), ..Filter::default() };
        assert_eq!(commands_between(&reader, filter, first, last).count(), under);
        place.review(id, "human:dora").unwrap();
    }
}

//! A person who breaks the glass: what is held runs at once, others are told, another person reviews it, and the record
//! tells the story.

use std::fs;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::Target;
use testkit::process::poll;
use testkit::raw::{Raw, bind, execute, parse, query, sync};

use crate::approvals::{Place, all_kinds, ended, place_for, sink};
use crate::plan;

const OPENERS: &str = r#"openers = ["human:cy@example.com"], minutes_max = 30"#;

const CY: &str = "cy@example.com";
const KEY: &str = "the key of cy";

struct Glass {
    place: Place,
    posted: Receiver<Value>,
    _webhook: tempfile::NamedTempFile,
}

fn glass() -> Glass {
    let (url, posted) = sink();
    let webhook = tempfile::NamedTempFile::new().unwrap();
    fs::write(webhook.path(), &url).unwrap();
    let told = format!("[notifications]\nwebhook = \"file:{}\"\n", webhook.path().display());
    // The same person by a key, for clients without TLS.
    let secret = testkit::scram::secret(KEY);
    let key = format!("[identities.\"{CY}\"]\nkind = \"human\"\ngroups = [\"staff\"]\nsecret = \"{secret}\"\n");
    let plan = plan().api().tables(&told).tables(&key).break_glass(OPENERS);
    let place = place_for(plan, &["agents", "staff"], "wait_seconds = 1");
    Glass { place, posted, _webhook: webhook }
}

impl Glass {
    /// The connection, as this person uses it themselves.
    fn as_person(&self, name: &str) -> Target {
        let password = self.place.person(name);
        Target { user: "token".into(), password, ..self.place.gateway.secure_target().with_database("app/shop") }
    }

    /// As cy, with a key.
    fn with_key(&self) -> Target {
        let target = self.place.gateway.target().with_database("app/shop");
        Target { user: CY.into(), password: KEY.into(), ..target }
    }

    fn cli(&self, name: &str, args: &[&str]) -> testkit::process::Finished {
        self.place.as_bearer(&self.place.person(name), "break-glass", args)
    }

    fn json(&self, name: &str, args: &[&str]) -> Value {
        let args = [args, &["--output", "json"]].concat();
        serde_json::from_str(&self.cli(name, &args).expect_success("break-glass")).unwrap()
    }

    fn open(&self, seconds: &str) -> String {
        let args = ["open", "--connection", "app", "--reason", "the queue is stuck", "--for", seconds];
        self.json("cy", &args)["id"].as_str().unwrap().to_owned()
    }

    fn told(&self, what: &str) -> Value {
        let told = self.posted.recv_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(told["type"], format!("onrecord.break_glass.{what}"), "{told}");
        told
    }
}

fn update(note: &str) -> String {
    format!("UPDATE orders SET note = '{note}' WHERE id = 1")
}

#[test]
fn what_is_held_runs_at_once_in_the_open_and_another_person_reviews_it() {
    let glass = glass();
    let place = &glass.place;
    let cy = glass.as_person("cy");
    assert!(place.psql(&cy, &update("before")).stderr.contains("still waits"), "it is held");

    let opened = glass.cli("cy", &["open", "--connection", "app", "--reason", "the queue is stuck", "--for", "10m"]);
    let opened = opened.expect_success("open");
    assert!(opened.contains("is open on app until") && opened.contains("Another person reviews it"), "{opened}");
    let listed = glass.json("cy", &["list"]);
    let id = listed[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        (listed[0]["state"].as_str(), listed[0]["opener"].as_str()),
        (Some("open"), Some("human:cy@example.com"))
    );
    assert_eq!(place.gateway.entries("break-glass"), 1);
    // Approvals are told of on the same way.
    let told = poll("the webhook", || {
        let told = glass.posted.recv_timeout(Duration::from_secs(30)).unwrap();
        (told["type"] == "onrecord.break_glass.opened").then_some(told)
    });
    assert_eq!(
        (told["reason"].as_str(), told["opener"].as_str()),
        (Some("the queue is stuck"), Some("human:cy@example.com"))
    );

    // Held before, runs now; allowed anyway, is marked too; denied stays denied.
    let ran = place.psql(&cy, &update("broken"));
    assert!(ran.status.success(), "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("NOTICE:  OnRecord: break-glass {id} is open until")), "{}", ran.stderr);
    assert_eq!((place.notes(), place.ran("note = 'broken'")), ("broken,new".to_owned(), 1));
    place.psql(&cy, "SELECT count(*) FROM orders").expect_success("read");
    let denied = place.psql(&cy, "DROP TABLE orders");
    assert!(denied.stderr.contains("OnRecord refused this statement: no rule"), "{}", denied.stderr);
    assert_eq!(place.ran("DROP TABLE"), 0);
    // In one pipeline, with parameters: the server's answers are as they are, after the notice.
    let mut raw = Raw::login(&glass.with_key());
    let change =
        [parse("", "update orders set note = $1 where id = 2"), bind("", "", &["par"]), execute("", 0)].concat();
    raw.send(&[change.clone(), change, sync(), query("select 1")].concat());
    let answer = raw.until_ready(2);
    let kinds: String = all_kinds(&answer).chars().filter(|kind| *kind != 'N').collect();
    assert_eq!(kinds, "12C12CZTDCZ", "{answer:?}");
    assert!(answer.iter().any(|message| message.kind == b'N'));
    drop(raw);

    // Nobody else gains by it: not an agent of that person, not another person.
    let claims = json!({"aud": "onrecord", "sub": "cy@example.com", "act": {"sub": "copilot"}});
    let agent = Target { password: place.issuer.mint(claims), ..place.agent() };
    assert!(place.psql(&agent, &update("agent")).stderr.contains("still waits"));
    assert!(place.psql(&glass.as_person("dora"), &update("other")).stderr.contains("still waits"));
    assert_eq!(place.ran("note = 'agent'") + place.ran("note = 'other'"), 0);

    // Not reviewed while it is open, nor by whoever opened it, nor by somebody who is not named.
    let early = glass.cli("dora", &["review", &id, "--comment", "fine", "--yes"]);
    assert!(early.stderr.contains("is still open: it is reviewed once it is over"), "{}", early.stderr);
    assert!(glass.cli("eve", &["close", &id]).stderr.contains("not for you to see"));
    let closed = glass.cli("cy", &["close", &id]).expect_success("close");
    assert!(closed.contains("Another person reviews it"), "{closed}");
    assert!(place.psql(&cy, &update("after")).stderr.contains("still waits"), "it is held again");
    let own = glass.cli("cy", &["review", &id, "--comment", "fine", "--yes"]);
    assert!(own.stderr.contains("whoever opened break-glass does not review it"), "{}", own.stderr);
    let other = glass.cli("eve", &["review", &id, "--comment", "fine", "--yes"]);
    assert_eq!(other.status.code(), Some(5), "{}", other.stderr);
    assert!(place.gateway.verify().contains(&format!("break-glass {id} was not reviewed yet")));

    // The reviewer sees what ran, by the end of the id, too.
    let shown = glass.cli("dora", &["show", &id[20..]]).expect_success("show");
    for part in
        ["the queue is stuck", "to be reviewed (person)", "6 commands; 3 would have been held", &update("broken")]
    {
        assert!(shown.contains(part), "{part} is missing in {shown}");
    }
    let reviewed = glass.cli("dora", &["review", &id, "--comment", "looked at \u{1b}[2J", "--yes"]);
    assert!(reviewed.stderr.contains(&update("broken")), "what is reviewed is shown: {}", reviewed.stderr);
    assert!(reviewed.expect_success("review").contains(&format!("Reviewed {id}: justified.")));
    let again = glass.cli("dora", &["review", &id, "--comment", "again", "--yes"]);
    assert!(again.stderr.contains("there is nothing left to review"), "{}", again.stderr);
    assert_eq!(glass.json("dora", &["list"]), json!([]));
    assert_eq!(place.gateway.entries("break-glass"), 3, "opened, closed, reviewed");
    let types = |glass: &Glass| glass.posted.recv_timeout(Duration::from_secs(30)).unwrap()["type"].clone();
    let mut after = std::iter::repeat_with(|| types(&glass)).filter(|told| told.to_string().contains("break_glass"));
    assert_eq!(after.next(), Some(json!("onrecord.break_glass.closed")));
    assert_eq!(after.next(), Some(json!("onrecord.break_glass.reviewed")));

    // The record: each of that person's commands there names it, and says what it would have been.
    let record = place.gateway.settled("shop");
    let command = record.only("note = 'broken'");
    assert_eq!(
        (command.status(), command.str("verdict"), command.str("observed")),
        ("ok", Some("allow"), Some("hold"))
    );
    let listed =
        place.gateway.cli(&["commands", "--break-glass", &id, "--output", "ndjson"]).expect_success("commands");
    let listed: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let verdicts: Vec<_> = listed.iter().map(|one| one["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["allow", "allow", "deny", "allow", "allow", "allow"]);
    let story = place.gateway.cli(&["show", command.str("id").unwrap()]).expect_success("show");
    for part in [
        "hold, had the glass not been broken",
        &format!("break-glass   {id}\n"),
        "opened by human:cy@example.com (verified, jwt) on app at",
        ": the queue is stuck\n",
        "(person) by human:cy@example.com (verified, jwt)",
        "reviewed by human:dora@example.com (verified, jwt) at",
        "justified: looked at \\x1b[2J",
    ] {
        assert!(story.contains(part), "{part} is missing in {story}");
    }
    let verdicts = place.gateway.verify();
    assert!(verdicts.contains("break-glass was opened 1 time, with 6 commands under it"), "{verdicts}");
    assert!(!verdicts.contains("not reviewed yet"), "{verdicts}");

    // A bundle of one of its commands proves who opened it, why, and who reviewed it.
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("bundle.zip").to_str().unwrap().to_owned();
    let session = command.str("session").unwrap();
    let export = ["evidence", "export", "--session", session, "--out", &out];
    let entries = signed(&place.gateway).0;
    poll("a checkpoint over the review", || (signed(&place.gateway).1 >= entries).then_some(()));
    place.gateway.cli(&export).expect_success("export");
    let report = place.gateway.cli(&["verify", &out, "--vkey", &place.gateway.vkey(), "--output", "json"]);
    let report: Value = serde_json::from_str(&report.expect_success("verify the bundle")).unwrap();
    let steps: Vec<_> = report["bundle"]["break_glass"].as_array().unwrap().iter().map(|one| &one["step"]).collect();
    assert_eq!(steps, ["opened", "closed", "reviewed"]);
    assert_eq!(report["completeness"]["break_glass"], json!({"opened": 1, "commands": 1, "unreviewed": []}));
}

/// How many entries there are, and how many of them are signed.
fn signed(gateway: &testkit::Gateway) -> (Option<u64>, Option<u64>) {
    let verdicts = gateway.cli(&["verify", "--output", "json"]).expect_success("verify");
    let verdicts: Value = serde_json::from_str(&verdicts).unwrap();
    let integrity = &verdicts["integrity"];
    (integrity["entries"].as_u64(), integrity["signed"].as_u64())
}

#[test]
fn it_ends_with_its_time_and_with_the_gateway() {
    let glass = glass();
    let cy = glass.as_person("cy");
    let id = glass.open("10s");
    glass.told("opened");
    glass.place.psql(&cy, &update("short")).expect_success("while it is open");
    assert_eq!(glass.told("closed")["how"], "expired");
    assert!(glass.place.psql(&cy, &update("late")).stderr.contains("still waits"));
    assert_eq!((glass.place.notes(), glass.place.ran("note = 'late'")), ("new,short".to_owned(), 0));

    // Killed while one is open: it is over, the record and the webhook say so, and both still wait for their review.
    let second = glass.open("30m");
    let Glass { place, posted, _webhook } = glass;
    let glass = Glass { place: place.killed(), posted, _webhook };
    let place = &glass.place;
    assert!(place.psql(&glass.as_person("cy"), &update("killed")).stderr.contains("still waits"));
    assert_eq!(place.ran("note = 'killed'"), 0);
    let mut ends = std::iter::repeat_with(|| glass.posted.recv_timeout(Duration::from_secs(30)).unwrap());
    let closed = ends.find(|told| told["type"] == "onrecord.break_glass.closed").unwrap();
    assert_eq!((closed["how"].as_str(), closed["break_glass"].as_str()), (Some("restart"), Some(&*second)));
    let listed = glass.json("dora", &["list"]);
    let waiting: Vec<_> =
        listed.as_array().unwrap().iter().map(|one| (one["id"].clone(), one["how"].clone())).collect();
    assert_eq!(waiting, [(json!(id), json!("expired")), (json!(second), json!("restart"))]);
    let shown = glass.json("dora", &["show", &id]);
    assert_eq!(shown["commands"].as_array().map(Vec::len), Some(1), "{shown}");
    assert_eq!(shown["commands"][0]["statement"], update("short"));
    glass.cli("dora", &["review", &id, "--comment", "too much", "--not-justified", "--yes"]).expect_success("review");
    glass.cli("dora", &["review", &second, "--comment", "nothing ran", "--yes"]).expect_success("review");
    let verdicts = place.gateway.verify();
    assert!(verdicts.contains("break-glass was opened 2 times, with 1 command under it"), "{verdicts}");
    assert!(!verdicts.contains("not reviewed yet"), "{verdicts}");
    // Nothing is left to be forgotten or found again.
    let place = glass.place.killed();
    let listed = place.as_bearer(&place.person("dora"), "break-glass", &["list"]).expect_success("list");
    assert!(listed.contains("Nothing is open"), "{listed}");
    place.gateway.verify();
}

#[test]
fn nobody_opens_it_who_must_not() {
    let glass = glass();
    let place = &glass.place;
    let open = |token: &str, connection: &str, seconds: &str| {
        let args = ["open", "--connection", connection, "--reason", "x", "--for", seconds];
        place.as_bearer(token, "break-glass", &args).stderr
    };
    let claims = json!({"aud": "onrecord", "sub": "cy@example.com", "act": {"sub": "copilot"}});
    assert!(
        open(&place.issuer.mint(claims), "app", "10m").contains("no agent, no service, nobody on behalf of another")
    );
    assert!(open(&place.person("dora"), "app", "10m").contains("you are not among the people"));
    assert!(open(&place.person("cy"), "app", "31m").contains("lasts 10 seconds to 30 minutes"));
    assert!(
        open(&place.person("cy"), "other", "10m").contains("does not exist, or human:cy@example.com may not use it")
    );
    // A connection token opens its connection and nothing else.
    let token = place.as_bearer(&place.person("cy"), "token", &["--connection", "app"]).expect_success("token");
    assert!(open(token.trim(), "app", "10m").contains("a connection token is for its connection only"));
    assert_eq!(place.gateway.entries("break-glass"), 0);
    let id = glass.open("10m");
    glass.told("opened");
    assert!(open(&place.person("cy"), "app", "10m").contains(&format!("already: {id}")));
    // Who is locked out has nothing open any more.
    let args = ["identities", "revoke", "human:cy@example.com", "--reason", "gone"];
    place.gateway.cli(&args).expect_success("revoke");
    assert_eq!(glass.told("closed")["how"], "revoked");
    place.gateway.verify();

    // Where the configuration says nothing of it, it says what to write.
    let place = place_for(plan().api(), &["agents", "staff"], "");
    let args = ["open", "--connection", "app", "--reason", "x"];
    let refused = place.as_bearer(&place.person("cy"), "break-glass", &args);
    assert!(refused.stderr.contains("nobody may break the glass on connection app"), "{}", refused.stderr);
    assert!(refused.stderr.contains("writes [connections.NAME.break_glass] with openers"), "{}", refused.stderr);
    assert_eq!(refused.status.code(), Some(1));
}

/// A command that waits for its approval goes on waiting when the glass is broken: it was decided, and is sent again.
#[test]
fn what_waits_already_is_sent_again() {
    let glass = glass();
    let place = &glass.place;
    let mut raw = Raw::login(&glass.with_key());
    raw.send(&query(&update("waits")));
    let answer = raw.until_ready(1);
    assert_eq!(all_kinds(&answer), "NEZ", "{answer:?}");
    glass.open("10m");
    raw.send(&query(&update("waits")));
    assert_eq!(all_kinds(&raw.until_ready(1)), "NCZ");
    let child = place.start_psql(&glass.as_person("cy"), &update("waits"));
    assert!(ended(child).0);
    // The configuration takes it away again while the gateway runs.
    let config = fs::read_to_string(place.gateway.config()).unwrap();
    let without: Vec<&str> = config.lines().filter(|line| !line.starts_with("break_glass")).collect();
    fs::write(place.gateway.config(), without.join("\n")).unwrap();
    let closed = std::iter::repeat_with(|| glass.posted.recv_timeout(Duration::from_secs(30)).unwrap())
        .find(|told| told["type"] == "onrecord.break_glass.closed");
    assert_eq!(closed.unwrap()["how"], "not_permitted");
    assert!(place.psql(&glass.as_person("cy"), &update("gone")).stderr.contains("still waits"));
    place.gateway.verify();
}

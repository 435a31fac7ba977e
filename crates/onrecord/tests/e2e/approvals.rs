//! A command that people must approve: it waits, they decide on exactly these bytes, it runs once or not at all, and the
//! record tells the story.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::issuer::Issuer;
use testkit::postgres::binary;
use testkit::process::{self, Finished, poll};
use testkit::raw::{Message, Raw, bind, cancel_request, execute, kinds, parse, query, sync};
use testkit::{Gateway, Plan, Postgres, Target};

use crate::plan;

/// Reading is free; what changes something, somebody approves; nobody drops anything.
const ASK: &str = r#"
version: 1
default: deny
rules:
  - {id: read, when: 'cmd.complete && cmd.effects.all(e, e in ["read", "session", "write"])', then: allow}
  - id: ask-first
    when: '"write" in cmd.effects'
    then: require_approval
    message: somebody must look at changes
"#;
const APPROVALS: &str = r#"approvers = ["human:dora@example.com", "human:bea@example.com"], groups = ["dbas"]"#;

pub(crate) struct Place {
    pub(crate) server: Postgres,
    pub(crate) gateway: Gateway,
    pub(crate) issuer: Issuer,
    home: tempfile::TempDir,
}

fn place(more: &str) -> Place {
    place_of(plan().api(), more)
}

pub(crate) fn place_of(plan: Plan, more: &str) -> Place {
    place_for(plan, &["agents"], more)
}

/// A place where these groups may use the connection.
pub(crate) fn place_for(plan: Plan, groups: &[&str], more: &str) -> Place {
    let (issuer, server) = (Issuer::start(), Postgres::start());
    server.create_database("shop");
    server.sql_in(
        "shop",
        "create table orders (id int4 primary key, note text); insert into orders select n, 'new' from \
         generate_series(1, 10) n; alter table orders owner to app_owner; create table audit (v int4); \
         grant all on audit to app_owner",
    );
    let people = format!(
        r#"[issuers.corp]
issuer = "{}"
audience = "onrecord"
[[issuers.corp.rules]]
name = "agents"
when = 'size(act) == 1'
identity = "agent:{{act[0]}}"
on_behalf_of = "human:{{claims.sub}}"
groups = ["agents", "dbas"]
[[issuers.corp.rules]]
name = "people"
when = 'has(claims.email)'
identity = "human:{{claims.email}}"
groups = ["{{claims.groups}}"]
"#,
        issuer.url()
    );
    let approvals = if more.is_empty() { APPROVALS.to_owned() } else { format!("{APPROVALS}, {more}") };
    let plan = plan.groups(groups).policy(ASK, "enforce").approvals(&approvals).tables(&people);
    let gateway = plan.start(&server);
    Place { server, gateway, issuer, home: tempfile::tempdir().unwrap() }
}

impl Place {
    fn target(&self) -> Target {
        self.gateway.target().with_database("app/shop")
    }

    /// An agent that acts for bea.
    pub(crate) fn agent(&self) -> Target {
        let claims = json!({"aud": "onrecord", "sub": "bea@example.com", "act": {"sub": "copilot"}});
        let password = self.issuer.mint(claims);
        Target { user: "token".into(), password, ..self.gateway.secure_target().with_database("app/shop") }
    }

    /// What becomes of it when its gateway is killed and started again.
    pub(crate) fn killed(self) -> Self {
        let Self { server, mut gateway, issuer, home } = self;
        gateway.kill9();
        Self { gateway: gateway.restart(), server, issuer, home }
    }

    pub(crate) fn person(&self, name: &str) -> String {
        let email = format!("{name}@example.com");
        self.issuer.mint(json!({"aud": "onrecord", "sub": email, "email": email, "groups": "staff"}))
    }

    /// `onrecord NOUN`, as whoever has this token.
    pub(crate) fn as_bearer(&self, token: &str, noun: &str, args: &[&str]) -> Finished {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onrecord"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.home.path());
        command.env("ONRECORD_GATEWAY", self.gateway.api()).env("ONRECORD_CA", self.gateway.authority().ca());
        process::run(command.env("ONRECORD_TOKEN", token).arg(noun).args(args), "")
    }

    fn approvals_as(&self, token: &str, args: &[&str]) -> Finished {
        self.as_bearer(token, "approvals", args)
    }

    pub(crate) fn approvals(&self, name: &str, args: &[&str]) -> Finished {
        self.approvals_as(&self.person(name), args)
    }

    fn detail(&self, name: &str, id: &str) -> Value {
        let shown = self.approvals(name, &["show", id, "--output", "json"]).expect_success("approvals show");
        serde_json::from_str(&shown).unwrap()
    }

    fn state(&self, id: &str) -> String {
        self.detail("dora", id)["state"].as_str().unwrap().to_owned()
    }

    /// The ids of what waits, oldest first.
    fn waiting(&self) -> Vec<String> {
        let listed = self.approvals("dora", &["list", "--output", "ndjson"]).expect_success("approvals list");
        let listed = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let waiting = listed.filter(|one| one["state"] == "waiting" || one["state"] == "approved");
        waiting.map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn wait_for(&self, count: usize) -> Vec<String> {
        poll("what waits for approval", || Some(self.waiting()).filter(|waiting| waiting.len() == count))
    }

    pub(crate) fn psql(&self, target: &Target, text: &str) -> Finished {
        let mut psql = Command::new(binary("psql"));
        process::run(target.libpq(&mut psql).args(["-XAtqc", text]), "")
    }

    /// `psql` that goes on by itself.
    pub(crate) fn start_psql(&self, target: &Target, text: &str) -> Child {
        let mut psql = Command::new(binary("psql"));
        target.libpq(&mut psql).args(["-XAtqc", text]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    pub(crate) fn ran(&self, part: &str) -> usize {
        self.server.log().ran("shop").iter().filter(|ran| ran.text.contains(part)).count()
    }

    pub(crate) fn notes(&self) -> String {
        self.server.sql_in("shop", "select string_agg(distinct note, ',' order by note) from orders").trim().to_owned()
    }
}

pub(crate) fn ended(child: Child) -> (bool, String) {
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

fn code(answer: &[Message]) -> Option<String> {
    answer.iter().find(|message| message.kind == b'E').and_then(|message| message.field(b'C'))
}

/// With what may come at any time, which [`kinds`] leaves out.
pub(crate) fn all_kinds(answer: &[Message]) -> String {
    answer.iter().map(|message| char::from(message.kind)).collect()
}

fn said(answer: &[Message]) -> String {
    answer.iter().find(|message| message.kind == b'E').and_then(|message| message.field(b'M')).unwrap_or_default()
}

#[test]
fn a_change_waits_for_a_second_person_and_then_runs() {
    let place = place("");
    let update = "UPDATE orders SET note = 'seen' WHERE id = 3";
    let psql = place.start_psql(&place.agent(), update);
    let id = place.wait_for(1).remove(0);
    assert_eq!(place.ran("note = 'seen'"), 0);
    let detail = place.detail("dora", &id);
    assert_eq!(
        (detail["statement"].as_str(), detail["requester"].as_str(), detail["on_behalf_of"].as_str()),
        (Some(update), Some("agent:copilot"), Some("human:bea@example.com"))
    );
    assert_eq!(
        (detail["message"].as_str(), &detail["rules"]),
        (Some("somebody must look at changes"), &json!(["read", "ask-first"]))
    );

    // Not the agent, not the human behind it, not who is not named.
    let agent = place.agent().password;
    assert!(place.approvals_as(&agent, &["approve", &id, "--yes"]).stderr.contains("only people decide"));
    assert!(place.approvals("bea", &["approve", &id, "--yes"]).stderr.contains("on your behalf"));
    assert!(!place.approvals("eve", &["approve", &id, "--yes"]).status.success());
    assert_eq!(place.ran("note = 'seen'"), 0);

    place.approvals("dora", &["approve", &id, "--yes", "--comment", "as agreed"]).expect_success("approve");
    let (success, stderr) = ended(psql);
    assert!(success, "{stderr}");
    assert!(stderr.contains("NOTICE:  OnRecord holds this statement until somebody approves it: somebody must look at changes (rule ask-first)"), "{stderr}");
    assert!(stderr.contains(&format!("onrecord approvals approve {id}")), "{stderr}");
    assert_eq!((place.notes(), place.ran("note = 'seen'")), ("new,seen".to_owned(), 1));

    let record = place.gateway.settled("shop");
    let command = record.only("note = 'seen'");
    assert_eq!((command.str("id"), command.status(), command.str("verdict")), (Some(&*id), "ok", Some("hold")));
    assert_eq!(place.gateway.entries("approval"), 4, "requested, seen, decided, used");
    let story = place.gateway.cli(&["show", &id]).expect_success("show");
    for part in ["hold", "human:dora@example.com", "as agreed", "ask-first", "UPDATE 1"] {
        assert!(story.contains(part), "{part} is missing in {story}");
    }
    // What was used is used: the same again is asked for anew.
    let again = place.start_psql(&place.agent(), update);
    let second = place.wait_for(1).remove(0);
    assert_ne!(second, id);
    let used = place.approvals("dora", &["approve", &id, "--yes"]);
    assert!(used.stderr.contains("is used: there is nothing left to decide"), "{}", used.stderr);
    place.approvals("dora", &["deny", &second, "--yes", "--comment", "once is enough"]).expect_success("deny");
    let (success, stderr) = ended(again);
    assert!(!success && stderr.contains("human:dora@example.com denied it: once is enough"), "{stderr}");
    assert_eq!(place.ran("note = 'seen'"), 1);
    let record = place.gateway.settled("shop");
    let denied = record.commands.iter().find(|command| command.str("id") == Some(&*second)).unwrap();
    assert_eq!((denied.status(), denied.code()), ("denied", Some("42501")));
    place.gateway.verify();
}

#[test]
fn a_client_that_gives_up_comes_back_and_runs_once() {
    let place = place(r#"wait_seconds = 1"#);
    let update = "UPDATE orders SET note = 'late'";
    let first = place.psql(&place.target(), update);
    assert!(first.stderr.contains("still waits for somebody to approve"), "{}", first.stderr);
    assert!(first.stderr.contains("Send the same statement again"), "{}", first.stderr);
    let id = place.wait_for(1).remove(0);
    place.approvals("dora", &["approve", &id, "--yes"]).expect_success("approve");
    // Not what is only nearly the same, nor from somebody else.
    assert!(!place.psql(&place.target(), "UPDATE orders SET note = 'late' ").status.success());
    assert!(!place.psql(&place.agent(), update).status.success());
    assert_eq!(place.ran("note = 'late'"), 0);
    place.psql(&place.target(), update).expect_success("the same again");
    assert_eq!((place.notes(), place.state(&id)), ("late".to_owned(), "used".to_owned()));
    assert!(!place.psql(&place.target(), update).status.success(), "once");
    assert_eq!(place.ran("note = 'late'"), 1);

    let record = place.gateway.settled("shop");
    let ran = record.commands.iter().find(|command| command.status() == "ok" && command.text() == update).unwrap();
    let shown = place.gateway.cli(&["show", ran.str("id").unwrap(), "--output", "json"]).expect_success("show");
    assert!(shown.contains(&id), "it says under whose approval it ran: {shown}");
    place.gateway.verify();
}

#[test]
fn a_session_in_which_names_may_mean_other_things_uses_no_approval_of_another() {
    let place = place(r#"wait_seconds = 1"#);
    let update = "UPDATE orders SET note = 'meant' WHERE id = 1";
    assert!(place.psql(&place.target(), update).stderr.contains("still waits"));
    let id = place.wait_for(1).remove(0);
    place.approvals("dora", &["approve", &id, "--yes"]).expect_success("approve");
    // The same bytes, but `orders` is another table here.
    place.server.sql_in(
        "shop",
        "create schema decoy authorization app_owner; create table decoy.orders as select * from orders; \
         alter table decoy.orders owner to app_owner",
    );
    let mut psql = Command::new(binary("psql"));
    place.target().libpq(&mut psql).env("PGOPTIONS", "-c search_path=decoy").args(["-XAtqc", update]);
    assert!(process::run(&mut psql, "").stderr.contains("still waits"));
    assert_eq!(place.ran("note = 'meant'"), 0);
    let other = place.waiting().into_iter().find(|waiting| *waiting != id).unwrap();
    assert_eq!(place.detail("dora", &other)["opaque"], json!(["settings"]));
    let shown = place.approvals("dora", &["show", &other]).expect_success("show");
    assert!(shown.contains("it may do more than it says: settings"), "{shown}");
    place.psql(&place.target(), update).expect_success("where it was asked for");
    assert_eq!((place.notes(), place.state(&id)), ("meant,new".to_owned(), "used".to_owned()));
    place.gateway.verify();
}

#[test]
fn a_client_that_goes_away_leaves_its_request_and_nothing_runs_without_it() {
    let place = place("");
    let mut raw = Raw::login(&place.target());
    raw.send(&query("UPDATE orders SET note = 'gone'"));
    let id = place.wait_for(1).remove(0);
    drop(raw);
    let record = place.gateway.settled("shop");
    let command = record.only("note = 'gone'");
    assert_eq!((command.status(), command.str("verdict")), ("skipped", Some("hold")));
    place.approvals("dora", &["approve", &id, "--yes"]).expect_success("approve");
    assert_eq!((place.state(&id), place.ran("note = 'gone'")), ("approved".to_owned(), 0));
    place.psql(&place.target(), "UPDATE orders SET note = 'gone'").expect_success("the same again");
    assert_eq!((place.notes(), place.state(&id)), ("gone".to_owned(), "used".to_owned()));
    place.gateway.verify();
}

#[test]
fn a_cancelled_command_takes_its_request_back() {
    let place = place("");
    let mut raw = Raw::login(&place.target());
    let (pid, secret) = raw.key();
    raw.send(&query("UPDATE orders SET note = 'no'"));
    let id = place.wait_for(1).remove(0);
    for _ in 0..2 {
        let mut other = Raw::connect(&place.target());
        other.send(&cancel_request(pid, &secret));
        assert!(other.closed());
    }
    let answer = raw.until_ready(1);
    assert_eq!((code(&answer).as_deref(), all_kinds(&answer).as_str()), (Some("57014"), "NEZ"));
    assert_eq!(place.state(&id), "cancelled");
    assert!(
        place
            .approvals("dora", &["approve", &id, "--yes"])
            .stderr
            .contains("is cancelled: there is nothing left to decide")
    );
    assert_eq!(kinds(&raw.exchange(&query("select 1"), 1)), "TDCZ", "the session goes on");
    let record = place.gateway.settled("shop");
    assert_eq!(record.only("note = 'no'").status(), "cancelled");
    assert_eq!((place.ran("note = 'no'"), place.notes()), (0, "new".to_owned()));
    place.gateway.verify();
}

#[test]
fn parameters_are_part_of_what_is_approved() {
    let place = place(r#"wait_seconds = 2"#);
    let mut raw = Raw::login(&place.target());
    let change = |id: &str| {
        [parse("", "update orders set note = $1 where id = $2"), bind("", "", &["par", id]), execute("", 0), sync()]
            .concat()
    };
    // A statement behind it in the same batch waits too, and keeps its place.
    raw.send(&[change("1"), query("select 1")].concat());
    let id = place.wait_for(1).remove(0);
    let detail = place.detail("dora", &id);
    assert_eq!(detail["parameters"].as_array().map(Vec::len), Some(2), "{detail}");
    assert!(detail["parameters"].to_string().contains("par"), "{detail}");
    place.approvals("dora", &["approve", &id, "--yes"]).expect_success("approve");
    assert_eq!(all_kinds(&raw.until_ready(2)), "N12CZTDCZ");
    // Another value is another request, and refused it leaves the protocol in its place.
    raw.send(&[change("2"), query("select 1")].concat());
    let answer = raw.until_ready(2);
    assert_eq!((all_kinds(&answer).as_str(), code(&answer).as_deref()), ("N1EZTDCZ", Some("42501")));
    assert_ne!(place.waiting(), [id]);
    assert_eq!(place.server.sql_in("shop", "select id from orders where note = 'par'").trim(), "1");
    place.gateway.verify();
}

#[test]
fn a_transaction_is_not_kept_open_for_long_and_the_client_is_kept_alive() {
    let place = place(r#"wait_seconds = 12, wait_in_transaction_seconds = 1"#);
    let mut raw = Raw::login(&place.target());
    assert_eq!(kinds(&raw.exchange(&query("begin"), 1)), "CZ");
    let answer = raw.exchange(&query("UPDATE orders SET note = 'tx'"), 1);
    assert!(said(&answer).contains("still waits"), "{answer:?}");
    assert_eq!(answer.last().map(|ready| ready.body.clone()), Some(b"E".to_vec()), "the transaction has failed");
    assert_eq!(kinds(&raw.exchange(&query("rollback"), 1)), "CZ");
    // Outside of one, for as long as the connection says, with a sign of life every ten seconds.
    raw.patience(Duration::from_secs(30));
    let answer = raw.exchange(&query("UPDATE orders SET note = 'alive'"), 1);
    assert_eq!(all_kinds(&answer), "NSEZ", "{answer:?}");
    assert_eq!(place.ran("UPDATE orders"), 0);
    place.gateway.verify();
}

#[test]
fn two_must_approve_where_two_are_asked_for_and_one_who_denies_is_enough() {
    let place = place("quorum = 2");
    let mut raw = Raw::login(&place.target());
    raw.send(&query("UPDATE orders SET note = 'two'"));
    let id = place.wait_for(1).remove(0);
    place.approvals("dora", &["approve", &id, "--yes"]).expect_success("the first");
    assert!(place.approvals("dora", &["approve", &id, "--yes"]).stderr.contains("approved it already"));
    assert_eq!((place.state(&id), place.ran("note = 'two'")), ("waiting".to_owned(), 0));
    // bea is behind the other agent, not behind this one.
    place.approvals("bea", &["approve", &id, "--yes"]).expect_success("the second");
    assert_eq!(all_kinds(&raw.until_ready(1)), "NCZ");
    raw.send(&query("UPDATE orders SET note = 'three'"));
    let id = place.wait_for(1).remove(0);
    place.approvals("dora", &["approve", &id, "--yes"]).expect_success("the first");
    place.approvals("bea", &["deny", &id, "--yes"]).expect_success("deny");
    assert!(said(&raw.until_ready(1)).contains("bea@example.com denied it"));
    assert_eq!(place.notes(), "two");
    place.gateway.verify();
}

#[test]
fn an_approval_does_not_outlive_its_policy_its_time_or_the_gateway() {
    let place = place(r#"wait_seconds = 1, expires_seconds = 60"#);
    let ask = |place: &Place, note: &str| {
        let update = format!("UPDATE orders SET note = '{note}'");
        assert!(place.psql(&place.target(), &update).stderr.contains("still waits"));
        let id = place.waiting().pop().unwrap();
        place.approvals("dora", &["approve", &id, "--yes"]).expect_success("approve");
        (update, id)
    };
    // Another policy that would hold it too: it is asked for anew.
    let (update, id) = ask(&place, "policy");
    let entries = place.gateway.entries("configuration");
    fs::write(place.gateway.policy(), ASK.replace("somebody must look at changes", "look twice")).unwrap();
    poll("the other policy", || (place.gateway.entries("configuration") > entries).then_some(()));
    let again = place.psql(&place.target(), &update);
    assert!(!again.status.success() && again.stderr.contains("look twice"), "{}", again.stderr);
    assert_eq!(place.ran("note = 'policy'"), 0);
    assert_ne!(place.state(&id), "used");

    // The gateway is killed between the decision and the command: it never runs by itself, nor without asking anew.
    let (update, id) = ask(&place, "killed");
    let place = place.killed();
    assert!(place.psql(&place.target(), &update).stderr.contains("still waits"), "it is asked for anew");
    assert_eq!(place.ran("note = 'killed'"), 0);
    assert!(!place.approvals("dora", &["approve", &id, "--yes"]).status.success());
    place.gateway.verify();
}

#[test]
fn what_cannot_be_shown_or_is_too_much_is_not_held() {
    let place = place(r#"wait_seconds = 1"#);
    let mut raw = Raw::login(&place.target());
    let change = |note: &str| {
        [parse("", "update orders set note = $1 where id = 1"), bind("", "", &[note]), execute("", 0), sync()].concat()
    };
    let refused = said(&raw.exchange(&change(&"x".repeat(70_000)), 1));
    assert!(refused.contains("too long to be read and approved"), "{refused}");
    assert_eq!(kinds(&raw.exchange(&query("select 1"), 1)), "TDCZ", "the session goes on");
    // 32 of one identity wait at most; the others' still can.
    let mut raws: Vec<Raw> = (0..33).map(|_| Raw::login(&place.target())).collect();
    for (number, raw) in raws.iter_mut().enumerate() {
        raw.send(&query(&format!("UPDATE orders SET note = 'many {number}'")));
    }
    let answers: Vec<_> = raws.iter_mut().map(|raw| said(&raw.until_ready(1))).collect();
    assert_eq!(
        answers.iter().filter(|answer| answer.contains("32 commands of this identity")).count(),
        1,
        "{answers:?}"
    );
    assert_eq!(place.waiting().len(), 32);
    assert!(place.psql(&place.agent(), "UPDATE orders SET note = 'mine'").stderr.contains("still waits"));
    assert_eq!(place.ran("UPDATE orders"), 0);
    place.gateway.verify();
}

/// Takes what is posted, but not at the first try.
pub(crate) fn sink() -> (String, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook/secret-path", listener.local_addr().unwrap());
    let (sender, posted) = channel();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut length = 0;
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let status = if number == 0 { "500 Not Yet" } else { "200 OK" };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
            if number > 0 {
                let _ = sender.send(serde_json::from_slice(&body).unwrap());
            }
        }
    });
    (url, posted)
}

#[test]
fn who_is_to_be_told_is_told_also_after_a_failure() {
    let (url, posted) = sink();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &url).unwrap();
    let told = format!("[notifications]\nwebhook = \"file:{}\"\n", file.path().display());
    let place = place_of(plan().api().tables(&told), "");
    let mut raw = Raw::login(&place.target());
    raw.send(&query("UPDATE orders SET note = 'top secret'"));
    let next = || posted.recv_timeout(Duration::from_secs(30)).unwrap();
    let asked = next();
    let id = asked["approval"].as_str().unwrap().to_owned();
    assert_eq!(
        (asked["type"].as_str(), asked["requester"].as_str(), asked["message"].as_str()),
        (Some("onrecord.approval.requested"), Some("agent:copilot-agent"), Some("somebody must look at changes"))
    );
    assert!(!asked.to_string().contains("secret"), "a chat is no place for statements: {asked}");
    place.approvals("dora", &["deny", &id, "--yes"]).expect_success("deny");
    assert_eq!(all_kinds(&raw.until_ready(1)), "NEZ");
    let denied = next();
    assert_eq!(
        (denied["type"].as_str(), denied["by"].as_str()),
        (Some("onrecord.approval.denied"), Some("human:dora@example.com"))
    );
    assert!(!place.gateway.stderr().contains("secret-path"), "the URL is a secret");
}

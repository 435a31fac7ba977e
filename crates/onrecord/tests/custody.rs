//! Erasing, redacting, holding and keeping by age with the binary, on a record that no gateway has open; and the control
//! socket of one that has.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use common::{CONFIG, Place, Ran};
use model::{
    ChannelBinding, Durability, Field, Identity, Known, Label, Proof, ProofMethod, SessionEnd, Status, Time, Via,
};
use onrecord::control::{Asked, Code, Executor, Request, Rules, Server, ask};
use serde_json::Value;
use store::{
    Clock, Disk, IntentDraft, Options, OutcomeDraft, RealDisk, Recorder, RetentionRules, SessionClosing, SessionStart,
    SystemRandom,
};

const ORIGIN: &str = "gateway.example.com/1";
const PRIVATE: &str = "private-Text-51a0";

/// A clock of a long time ago: everything that it dates is old.
struct LongAgo(AtomicI64);

impl Clock for LongAgo {
    fn now(&self) -> Time {
        let passed = self.0.fetch_add(1_500, Ordering::Relaxed);
        Time { wall_us: 1_577_836_800_000_000 + passed, boot_us: 1_000_000 + u64::try_from(passed).unwrap() }
    }
}

fn open(data: &Path) -> Recorder {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(data));
    let clock = Arc::new(LongAgo(AtomicI64::new(10_000_000)));
    // Another test's fork may hold the directory's lock until it executes its program.
    loop {
        let options = Options { segment_bytes: 1 << 20, ..Options::new(ORIGIN) };
        match Recorder::open(disk.clone(), options, clock.clone(), Box::new(SystemRandom)) {
            Err(store::StoreError::Locked) => std::thread::sleep(std::time::Duration::from_millis(5)),
            opened => break opened.unwrap().0,
        }
    }
}

/// Makes a record with two sessions and gives their ids.
fn record(place: &Place) -> [String; 2] {
    place.write("onrecord.toml", CONFIG);
    place.write("password", "secret\n");
    let data = place.path().join("data");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(&data));
    let options = Options { segment_bytes: 1 << 20, ..Options::new(ORIGIN) };
    Recorder::create_on(&disk, &options, &LongAgo(AtomicI64::new(0)), &mut SystemRandom).unwrap();
    let recorder = open(&data);
    let ids = [0, 1].map(|_| session(&recorder));
    recorder.stop().unwrap();
    ids
}

fn session(recorder: &Recorder) -> String {
    let start = SessionStart {
        identity: Identity {
            name: "agent:copilot-agent".parse().unwrap(),
            known: Known::Verified,
            proof: Proof {
                method: ProofMethod::ScramSha256,
                channel: ChannelBinding::None,
                credential: "copilot-agent/1".to_owned(),
                evidence: None,
            },
            on_behalf_of: None,
            groups: Vec::new(),
            run: None,
        },
        connection: "app".to_owned(),
        database: Some(Label::new(b"app")),
        upstream_user: "app_owner".to_owned(),
        protocol: "postgres".to_owned(),
        client: "192.0.2.7:50123".to_owned(),
        tls: None,
        claims: vec![],
        durability: Durability::Intent,
        upstream: model::UpstreamSecurity::Local,
        outpost: None,
    };
    let (mut session, _opening) = recorder.open_session(start).unwrap();
    let id = session.id().to_string();
    let prepared = session.seal(format!("select '{PRIVATE}', $1").as_bytes());
    for value in ["seven", "eight"] {
        let parameters = session.seal(format!(r#"[{{"type":"text","value":"{value}"}}]"#).as_bytes());
        settle(&mut session, &prepared, &parameters);
    }
    let long = session.seal(format!("select '{}'", PRIVATE.repeat(9000)).as_bytes());
    settle(&mut session, &long, &Field::NONE);
    session.close(SessionClosing { reason: SessionEnd::ClientClosed, bytes_up: 1, bytes_down: 2 }).unwrap();
    id
}

fn settle(session: &mut store::SessionLog, text: &Field, parameters: &Field) {
    let intent = IntentDraft { bytes: 42, ..IntentDraft::new(Via::Extended, text, parameters) };
    session.settled(&intent, &OutcomeDraft::new(Status::Ok)).unwrap();
}

#[track_caller]
fn well(ran: Ran) -> String {
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    ran.out
}

fn run(place: &Place, args: &[&str]) -> Ran {
    place.command().args(args).output().unwrap().into()
}

fn uid() -> String {
    format!("uid:{}", rustix::process::geteuid().as_raw())
}

#[test]
fn a_session_is_erased_and_the_record_says_so() {
    let place = Place::new();
    let [first, second] = record(&place);
    let short = &first[20..];
    let said = well(run(&place, &["erase", "--session", short, "--reason", "asked for by the person"]));
    assert!(said.contains(&format!("The content of session {first} is erased, 1 long text removed; entry ")), "{said}");

    let show = well(place.run(&format!("show {first}")));
    let by = format!("UTC by {}, because: asked for by the person", uid());
    assert!(show.contains("erased        all content, ") && show.contains(&by), "{show}");
    let command = well(place.run(&format!("show {first}.1")));
    assert!(command.contains("text          (erased ") && command.contains(&by), "{command}");
    assert!(well(place.run(&format!("replay {first} --at-once"))).contains(&by));
    let listed: Value = serde_json::from_str(&well(place.run("commands --output json"))).unwrap();
    for row in listed.as_array().unwrap() {
        assert_eq!(row["text"].is_null(), row["session"] == first.as_str(), "{row}");
    }
    let json: Value = serde_json::from_str(&well(place.run(&format!("show {first} --output json")))).unwrap();
    assert_eq!(json["erasures"][0]["reason"], "asked for by the person");
    assert!(!show.contains(PRIVATE) && !command.contains(PRIVATE));
    well(place.run("verify"));

    let again = run(&place, &["erase", "--session", &first, "--reason", "again"]);
    assert_eq!(again.code, 1);
    assert!(again.err.contains("was erased before"), "{}", again.err);
    let nobody = run(&place, &["erase", "--session", "01K9ZZ3Q0V8C2M4N6P8R0T2W4Y", "--reason", "x"]);
    assert_eq!(nobody.code, 5, "{}", nobody.err);
    assert_eq!(run(&place, &["erase", "--session", &second, "--reason", " "]).code, 2);
}

#[test]
fn a_field_is_redacted_and_others_that_share_it_are_named() {
    let place = Place::new();
    let [first, _] = record(&place);
    let redact = |id: &str, field: &str| run(&place, &["redact", id, "--field", field, "--reason", "a name"]);
    let said = well(redact(&format!("{first}.1"), "statement"));
    assert!(said.contains("gone for them too:\n") && said.contains(&format!("  statement of {first}.2")), "{said}");
    let show = well(place.run(&format!("show {first}.2")));
    assert!(show.contains("(erased ") && show.contains("eight"), "{show}");
    let said = well(redact(&format!("{first}.3"), "statement"));
    assert!(said.contains("1 long text removed") && !said.contains("too:"), "{said}");
    assert_eq!(redact(&format!("{first}.3"), "message").code, 5);
    let session = redact(&first, "statement");
    assert!(session.code == 2 && session.err.contains("is a session"), "{}", session.err);
    assert_eq!(redact(&format!("{first}.1"), "rows").code, 2);
    assert!(well(place.run(&format!("show {first}"))).contains("erased        1 field, "));
    well(place.run("verify"));
}

#[test]
fn a_hold_keeps_content_from_erasure_and_retention() {
    let place = Place::new();
    let [first, second] = record(&place);
    place.write("onrecord.toml", &CONFIG.replace("[listen]", "[retention]\ndays = 30\n\n[listen]"));
    let hold = well(run(&place, &["hold", "place", "--session", &first, "--reason", "litigation 7"])).trim().to_owned();
    let list = well(place.run("hold list"));
    assert!(list.contains(&hold) && list.contains(&first) && list.contains("litigation 7"), "{list}");
    let refused = run(&place, &["erase", "--session", &first, "--reason", "x"]);
    assert!(refused.code == 1 && refused.err.contains("litigation 7"), "{}", refused.err);

    for words in ["retention", "retention --dry-run"] {
        let due = well(place.run(words));
        assert!(due.contains(&first) && due.contains(&second) && due.contains("retention.days = 30"), "{due}");
        assert!(due.contains(&hold), "{due}");
    }
    let ran = well(place.run("retention run"));
    assert_eq!(ran, "The content of 1 session was erased. 1 session that would be due stay under a hold.\n");
    assert!(well(place.run(&format!("show {second}"))).contains("by the rule: retention.days = 30"));
    assert!(well(place.run(&format!("show {first}.1"))).contains(PRIVATE));

    assert_eq!(run(&place, &["hold", "release", "nothing", "--reason", "x"]).code, 5);
    well(run(&place, &["hold", "release", &hold, "--reason", "settled"]));
    assert_eq!(well(place.run("hold list")), "No holds.\n");
    assert_eq!(well(place.run("retention run")), "The content of 1 session was erased.\n");
    assert_eq!(well(place.run("retention")), "Nothing is due.\n");
    well(place.run("verify"));
}

#[test]
fn the_keys_are_wrapped_as_the_configuration_says() {
    let place = Place::new();
    let [first, _] = record(&place);
    let configure = |source: &str| {
        place.write(
            "onrecord.toml",
            &CONFIG.replace("[listen]", &format!("[record]\nwrapping_key = \"{source}\"\n\n[listen]")),
        );
    };
    let doctor = || place.run("doctor").out;
    assert!(doctor().contains("ok    keys: in clear"), "{}", doctor());
    place.write("one.key", &"1".repeat(64));
    place.write("other.key", &"2".repeat(64));

    configure("file:one.key");
    assert!(doctor().contains("fail  keys: in clear, although"), "{}", doctor());
    // Reading needs no key that is not in use yet; writing insists on what is configured.
    assert!(well(place.run(&format!("show {first}.1"))).contains(PRIVATE));
    let refused = run(&place, &["erase", "--session", &first, "--reason", "x"]);
    assert!(refused.code == 1 && refused.err.contains("`onrecord keys rewrap` wraps it"), "{}", refused.err);
    let seal = std::fs::read(place.path().join("data/keys/seal")).unwrap();
    assert!(well(place.run("keys rewrap")).contains("is wrapped by local:"));
    assert!(doctor().contains("ok    keys: wrapped by local:"), "{}", doctor());
    let wrapped = std::fs::read(place.path().join("data/keys/seal")).unwrap();
    assert!(!wrapped.windows(32).any(|window| window == seal));
    assert!(well(place.run(&format!("show {first}.1"))).contains(PRIVATE));

    configure("file:other.key");
    let sealed = well(place.run(&format!("show {first}.1")));
    assert!(!sealed.contains(PRIVATE) && sealed.contains("its key cannot be read here"), "{sealed}");
    assert!(doctor().contains("fail  keys: wrapped by local:"), "{}", doctor());
    let without = place.run("keys rewrap");
    assert!(without.code == 1 && without.err.contains("--from"), "{}", without.err);
    well(place.run("keys rewrap --from file:one.key"));
    assert!(well(place.run(&format!("show {first}.1"))).contains(PRIVATE));

    configure("env:ONRECORD_TEST_WRAPPING_KEY");
    let from_environment = place
        .command()
        .args(["show", &format!("{first}.1")])
        .env("ONRECORD_TEST_WRAPPING_KEY", "2".repeat(64))
        .output()
        .unwrap();
    assert!(well(from_environment.into()).contains(PRIVATE));
    place.write("onrecord.toml", CONFIG);
    assert!(well(place.run("keys rewrap --from file:other.key")).contains("in clear"));
    assert_eq!(std::fs::read(place.path().join("data/keys/seal")).unwrap(), seal);
}

fn serving(data: &Path) -> (Server, Recorder) {
    let recorder = open(data);
    let access = gateway::Access::open(data, recorder.clone()).unwrap();
    let rules = Rules::new(RetentionRules::default());
    let executor = Executor { recorder: recorder.clone(), rules, access, outposts: None, outpost_address: None };
    (Server::start(data, executor).unwrap(), recorder)
}

fn asked(data: &Path, request: &Request) -> Result<Value, onrecord::control::Refusal> {
    match ask(data, request).unwrap() {
        Asked::Answered(answer) => answer,
        Asked::Nobody => panic!("nobody listens"),
    }
}

#[test]
fn the_control_socket_is_the_owners_alone_and_answers() {
    let place = Place::new();
    let [first, _] = record(&place);
    let data = place.path().join("data");
    assert!(matches!(ask(&data, &Request::Status {}).unwrap(), Asked::Nobody));
    // What a killed gateway leaves behind is no obstacle.
    drop(std::os::unix::net::UnixListener::bind(data.join("control")).unwrap());
    assert!(matches!(ask(&data, &Request::Status {}).unwrap(), Asked::Nobody));

    let (server, recorder) = serving(&data);
    let mode = std::fs::metadata(data.join("control")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(asked(&data, &Request::Status {}).unwrap()["recording"], true);
    // The command line finds it by itself.
    let said = well(run(&place, &["erase", "--session", &first, "--reason", "through the socket"]));
    assert!(said.contains("is erased"), "{said}");
    let again = Request::Erase { session: first.clone(), reason: "again".into() };
    assert_eq!(asked(&data, &again).unwrap_err().code, Code::Already);
    let rewrap = place.run("keys rewrap");
    assert!(rewrap.code == 1 && rewrap.err.contains("gateway is running"), "{}", rewrap.err);
    let note = |sha256: &str| Request::NoteExport {
        selection: "--session x".into(),
        entries: 3,
        disclosed: 2,
        sha256: sha256.into(),
    };
    assert!(asked(&data, &note(&"a5".repeat(32))).unwrap()["entry"].as_u64().is_some());
    for wrong in ["", "a5", &"zz".repeat(32), &"é".repeat(32)] {
        assert_eq!(asked(&data, &note(wrong)).unwrap_err().code, Code::Invalid);
    }
    let exports = store::Reader::open(&data).unwrap().entries(0).map(Result::unwrap).filter_map(|stored| match stored
        .entry
        .body
    {
        model::Body::Export(export) => Some(export.by.name),
        _ => None,
    });
    assert_eq!(exports.collect::<Vec<_>>(), [uid()]);
    drop(server);
    assert!(!data.join("control").exists());
    recorder.stop().unwrap();
    well(place.run("verify"));
}

/// Sends bytes and reads what comes until the end.
fn sent(stream: &mut UnixStream, bytes: &[u8]) -> String {
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn hostile_requests_are_refused_and_others_still_answered() {
    let place = Place::new();
    record(&place);
    let data = place.path().join("data");
    let (server, _recorder) = serving(&data);
    let connect = || UnixStream::connect(data.join("control")).unwrap();
    let deep = format!("{{\"v\":1,\"do\":{}", "[".repeat(60_000));
    for line in [
        "",
        "{}",
        "[]",
        "null",
        "\0\u{1}",
        "{\"v\":2,\"do\":\"status\"}",
        "{\"do\":\"status\"}",
        "{\"v\":1,\"do\":\"format-disk\"}",
        "{\"v\":1,\"do\":\"status\",\"more\":1}",
        "{\"v\":1,\"do\":\"erase\",\"session\":7,\"reason\":\"x\"}",
        "{\"v\":1,\"do\":\"erase\",\"session\":\"x\"}",
        &deep,
    ] {
        let answer = sent(&mut connect(), format!("{line}\n").as_bytes());
        assert!(answer.contains("\"code\":\"malformed\""), "{line:.60}: {answer}");
    }
    let invalid = sent(&mut connect(), b"{\"v\":1,\"do\":\"erase\",\"session\":\"x\",\"reason\":\"x\"}\n");
    assert!(invalid.contains("\"code\":\"invalid\""), "{invalid}");
    // A request without its end is none, and one that never ends is cut off.
    assert_eq!(sent(&mut connect(), b"{\"v\":1,\"do\":\"status\"}"), "");
    let endless = sent(&mut connect(), &vec![b'x'; 1 << 20]);
    assert!(endless.is_empty() || endless.contains("malformed"), "{endless}");
    // Several requests on one connection, in pieces.
    let mut stream = connect();
    stream.write_all(b"{\"v\":1,\"do\":\"status\"}\n{\"v\":1,\"do\":").unwrap();
    let answers = sent(&mut stream, b"\"hold-list\"}\n");
    assert_eq!(answers.lines().count(), 2, "{answers}");
    assert!(answers.ends_with("{\"v\":1,\"ok\":{\"holds\":[]}}\n") || answers.contains("\"holds\":[]"), "{answers}");

    // Those who hold connections open and say nothing: there is a limit, others are told, and the server still ends.
    let idle: Vec<UnixStream> = (0..24).map(|_| connect()).collect();
    let mut busy = connect();
    assert!(sent(&mut busy, b"{\"v\":1,\"do\":\"status\"}\n").contains("\"code\":\"busy\""));
    drop(server);
    drop(idle);
}

#[test]
fn a_data_directory_with_a_long_path_has_a_socket_too() {
    let place = Place::new();
    let deep = place.path().join("d".repeat(120)).join("e".repeat(120));
    std::fs::create_dir_all(&deep).unwrap();
    let data = deep.join("data");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(&data));
    let options = Options { segment_bytes: 1 << 20, ..Options::new(ORIGIN) };
    Recorder::create_on(&disk, &options, &LongAgo(AtomicI64::new(0)), &mut SystemRandom).unwrap();
    let (server, _recorder) = serving(&data);
    assert!(data.join("control").exists());
    assert_eq!(asked(&data, &Request::Status {}).unwrap()["recording"], true);
    drop(server);
    assert!(!data.join("control").exists());
}

#[test]
fn the_corpus_of_requests_is_read_without_a_panic() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/control");
    let files: Vec<_> = std::fs::read_dir(dir).unwrap().collect();
    assert!(!files.is_empty());
    for file in files {
        onrecord::control::fuzz(&std::fs::read(file.unwrap().path()).unwrap());
    }
}

//! The log as strangers see it: over HTTP, read by an implementation that is not ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::process::{Finished, PATIENCE, poll, run, run_for};
use testkit::raw::{Raw, kinds, query};
use testkit::{Gateway, Postgres, Witness, http};

use crate::plan;

pub(crate) const PUBLISH: &str = "[publish]\nlisten = [\"127.0.0.1:0\"]\n";

/// Runs so many commands in one session, and gives its id once it has ended.
pub(crate) fn session(gateway: &Gateway, commands: usize) -> String {
    let mut raw = Raw::login(&gateway.target());
    let text = format!("select 'of {commands}'");
    for _ in 0..commands {
        assert_eq!(kinds(&raw.exchange(&query(&text), 1)), "TDCZ");
    }
    raw.finish();
    drop(raw);
    let list = || {
        let out = gateway.cli(&["commands", "--output", "json", "--limit", "1"]).expect_success("commands");
        let rows: serde_json::Value = serde_json::from_str(&out).unwrap();
        rows[0]["session"].as_str().map(str::to_owned)
    };
    poll("the session on the record", list)
}

/// The receipt of a session, once there is one.
pub(crate) fn receipt(gateway: &Gateway, session: &str) -> String {
    poll("a receipt", || {
        let ran = gateway.cli(&["receipt", session]);
        match ran.status.code() {
            Some(0) => Some(ran.stdout),
            Some(5) => None,
            code => panic!("receipt: {code:?} {}", ran.stderr),
        }
    })
}

/// The Go program, built with Debian's packages alone. Without them there is none, and the test says so.
fn go_verifier() -> Option<(tempfile::TempDir, PathBuf)> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib/go-verifier/main.go");
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("go-verifier");
    let go = testkit::process::find_program("go")?;
    let mut build = Command::new(go);
    build.env("GO111MODULE", "off").env("GOPATH", "/usr/share/gocode").env("GOCACHE", dir.path().join("cache"));
    build.args(["build", "-o"]).arg(&program).arg(source);
    run_for(&mut build, "", PATIENCE * 3).expect_success("go build");
    Some((dir, program))
}

struct Go<'a> {
    program: &'a Path,
    url: String,
    log: String,
    more: Vec<String>,
}

impl Go<'_> {
    fn verify(&self) -> Finished {
        let mut command = Command::new(self.program);
        command.args(["-log", &self.log]).args(&self.more).arg(&self.url);
        run(&mut command, "")
    }

    #[track_caller]
    fn refuses(&self, expected: &str) {
        let ran = self.verify();
        assert_eq!(ran.status.code(), Some(1), "{}", ran.stdout);
        assert!(ran.stderr.contains(expected), "{}", ran.stderr);
    }
}

/// Changes one bit of a file, and puts it back when this is dropped.
struct Flipped {
    file: PathBuf,
    bytes: Vec<u8>,
}

impl Flipped {
    fn new(file: PathBuf, at: usize) -> Self {
        let bytes = fs::read(&file).unwrap();
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        fs::write(&file, changed).unwrap();
        Self { file, bytes }
    }
}

impl Drop for Flipped {
    fn drop(&mut self) {
        fs::write(&self.file, &self.bytes).unwrap();
    }
}

#[test]
fn go_verifies_the_log_over_http_and_finds_a_flipped_bit() {
    let Some((_dir, program)) = go_verifier() else {
        assert!(std::env::var_os("CI").is_none(), "golang-go is missing");
        eprintln!("skipped: there is no Go here");
        return;
    };
    let server = Postgres::start();
    let mut witness = Witness::start(env!("CARGO_BIN_EXE_onrecord"), "witness.example.com/go");
    let policy_dir = tempfile::tempdir().unwrap();
    let policy = policy_dir.path().join("policy.tlog");
    let text = format!("{}quorum {}\n", witness.policy_line(), witness.policy_name());
    fs::write(&policy, text).unwrap();
    let tables = format!("{PUBLISH}\n[witness]\npolicy = \"file:{}\"\ninterval_seconds = 1\n", policy.display());
    let gateway = plan().tables(&tables).start(&server);
    witness.add_log(&gateway.vkey());
    // Three full bundles and a partial one: two levels of tiles.
    let ended = session(&gateway, 400);
    let receipt = receipt(&gateway, &ended);
    let url = gateway.published();
    poll("a cosigned checkpoint", || (http::get(&format!("{url}/cosigned")).status == 200).then_some(()));
    let file = policy_dir.path().join("session.tlog-proof");
    fs::write(&file, &receipt).unwrap();

    let more = vec!["-witness".into(), witness.vkey().to_owned(), "-receipt".into(), file.display().to_string()];
    let go = Go { program: &program, url: url.clone(), log: gateway.vkey(), more };
    let said = go.verify().expect_success("the Go verifier");
    assert!(said.starts_with("ok: ") && said.contains("1 witnesses"), "{said}");

    // The witness may leave now: what it has cosigned stays.
    witness.kill9();
    let tiles = gateway.data().join("tiles");
    {
        let _flipped = Flipped::new(tiles.join("tile/entries/001"), 40_000);
        go.refuses("the entries lead to the root");
    }
    {
        let _flipped = Flipped::new(tiles.join("tile/0/000"), 100);
        go.refuses("inclusion");
    }
    let another = Witness::start(env!("CARGO_BIN_EXE_onrecord"), "witness.example.com/go");
    let of_another = Go { more: vec!["-witness".into(), another.vkey().to_owned()], url: url.clone(), ..go };
    of_another.refuses("has not signed the cosigned checkpoint");
    // And once everything is as it was, the log is good again; the gateway never minded.
    let good = Go { more: Vec::new(), ..of_another };
    good.verify().expect_success("the Go verifier");
    gateway.verify();
}

#[test]
fn only_the_published_log_can_be_reached() {
    let server = Postgres::start();
    let gateway = plan().tables(PUBLISH).start(&server);
    session(&gateway, 140);
    let url = gateway.published();
    let size = || http::get(&format!("{url}/checkpoint")).text().lines().nth(1)?.parse::<u64>().ok();
    poll("a full tile", || size().filter(|size| *size > 256));

    let checkpoint = http::get(&format!("{url}/checkpoint"));
    assert_eq!(checkpoint.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(checkpoint.header("cache-control"), Some("no-cache"));
    let tile = http::get(&format!("{url}/tile/0/000"));
    assert_eq!((tile.status, tile.body.len()), (200, 8192));
    assert_eq!(tile.header("content-type"), Some("application/octet-stream"));
    assert_eq!(tile.header("cache-control"), Some("public, max-age=31536000, immutable"));
    // A partial tile of an earlier size is cut from what there is now.
    let partial = http::get(&format!("{url}/tile/0/000.p/7"));
    assert_eq!(partial.body, tile.body[..7 * 32]);
    let bundle = http::get(&format!("{url}/tile/entries/000"));
    let begin = http::get(&format!("{url}/tile/entries/000.p/1"));
    assert!(bundle.body.starts_with(&begin.body) && begin.body.len() > 100);
    assert_eq!(http::get(&format!("{url}/tile/1/000.p/1")).body.len(), 32);
    // Compressed only for those who ask.
    assert_eq!(bundle.header("content-encoding"), None);
    let zipped =
        http::request("GET", &format!("{url}/tile/entries/000"), "accept-encoding: br, gzip\r\n", b"").unwrap();
    assert_eq!(zipped.header("content-encoding"), Some("gzip"));
    assert!(zipped.body.starts_with(&[0x1f, 0x8b]) && zipped.body.len() < bundle.body.len() / 2);
    let refused =
        http::request("GET", &format!("{url}/tile/entries/000"), "accept-encoding: gzip;q=0\r\n", b"").unwrap();
    assert_eq!(refused.header("content-encoding"), None);
    // HEAD has the length and no body.
    let head = http::request("HEAD", &format!("{url}/tile/0/000"), "", b"").unwrap();
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("8192"), 0));
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        assert_eq!(http::request(method, &format!("{url}/checkpoint"), "", b"").unwrap().status, 405, "{method}");
    }

    // Nothing else, however it is spelt: neither the tiles that are not there, nor any file of the data directory.
    let odd = [
        "",
        "tile",
        "tile/",
        "tile/0",
        "tile/0/",
        "tile/0/0",
        "tile/00/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/x000/000",
        "tile/0/999",
        "tile/1/000",
        "tile/63/000",
        "tile/entries",
        "tile/entries/",
        "tile/0/000/",
        "checkpoint/",
        "/checkpoint",
        "receipts/",
        "receipts/nobody",
        "receipts/01K9ZZ3Q0V8C2M4N6P8R0T2W4Y",
        "receipts/../keys/log",
        "tile%2f0%2f000",
        "tile/0/000?x",
        "%2e%2e/head",
        "tiles/checkpoint",
    ];
    for path in odd {
        let status = http::get(&format!("{url}/{path}")).status;
        // A query is no part of the path.
        assert_eq!(status, if path.contains('?') { 200 } else { 404 }, "{path}");
    }
    let files = fs::read_dir(gateway.data()).unwrap().chain(fs::read_dir(gateway.data().join("keys")).unwrap());
    let files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    assert!(files.len() > 6, "{files:?}");
    for file in files {
        let path = file.strip_prefix(gateway.data()).unwrap().display().to_string();
        for way in ["", "../", "tile/../../", "tile/0/../../../", "%2e%2e/", "..%2f", "receipts/../../", "/"] {
            let reply = http::get(&format!("{url}/{way}{path}"));
            let published = way.is_empty() && path == "checkpoint";
            assert_eq!(reply.status, if published { 200 } else { 404 }, "{way}{path}");
        }
    }
    // What is no HTTP, or too much of it, ends the connection.
    let host = url.strip_prefix("http://").unwrap();
    let long = format!("GET /checkpoint HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    assert!(http::raw(host, long.as_bytes()).is_none_or(|reply| reply.status == 431));
    assert!(http::raw(host, b"\x16\x03\x01\x02\x00\x01\x00").is_none_or(|reply| reply.status == 400));
    assert_eq!(http::get(&format!("{url}/checkpoint")).status, 200);
}

#[test]
fn a_receipt_proves_a_session_and_names_its_removal() {
    let server = Postgres::start();
    let mut gateway = plan().tables(PUBLISH).start(&server);
    let first = session(&gateway, 3);
    let text = receipt(&gateway, &first);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("first.tlog-proof");
    fs::write(&file, &text).unwrap();
    let file = file.to_str().unwrap();
    let vkey = gateway.vkey();
    let check = |gateway: &Gateway, more: &[&str]| {
        gateway.cli(&[&["receipt", "check", file, "--vkey", &vkey, "--output", "json"], more].concat())
    };
    let said = check(&gateway, &[]).expect_success("receipt check");
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&json["proven"], &json["intents"], &json["session"]), (&true.into(), &3.into(), &first.clone().into()));
    // The same receipt over HTTP, perhaps with a newer checkpoint.
    let url = gateway.published();
    let over_http = poll("the receipt over HTTP", || {
        let reply = http::get(&format!("{url}/receipts/{first}"));
        (reply.status == 200).then(|| reply.text())
    });
    assert_eq!(over_http.lines().nth(1), text.lines().nth(1));
    let data = gateway.data().to_str().unwrap().to_owned();
    for against in [data.as_str(), url.as_str()] {
        let said = check(&gateway, &["--against", against]).expect_success("receipt check --against");
        assert!(serde_json::from_str::<serde_json::Value>(&said).unwrap()["log_size"].is_u64());
    }
    // One that was changed, or is another log's, proves nothing.
    let changed = text.replacen("extra ey", "extra eA", 1);
    assert_ne!(changed, text);
    let other = dir.path().join("changed");
    fs::write(&other, changed).unwrap();
    let ran = gateway.cli(&["receipt", "check", other.to_str().unwrap(), "--vkey", &vkey]);
    assert_eq!(ran.status.code(), Some(3), "{}", ran.stdout);
    let stranger = plan().start(&server);
    let ran = gateway.cli(&["receipt", "check", file, "--vkey", &stranger.vkey()]);
    assert_eq!(ran.status.code(), Some(3), "{}", ran.stdout);

    // The log loses its end, with the session: whoever holds the receipt can show it.
    gateway.stop();
    let backup = dir.path().join("data");
    testkit::copy_directory(gateway.data(), &backup);
    let mut gateway = gateway.restart();
    let second = session(&gateway, 2);
    let removed = receipt(&gateway, &second);
    fs::write(dir.path().join("second"), &removed).unwrap();
    gateway.stop();
    let old = backup.to_str().unwrap();
    let second_file = dir.path().join("second");
    let args = ["receipt", "check", second_file.to_str().unwrap(), "--vkey", &vkey, "--against", old];
    let ran = gateway.cli(&args);
    assert_eq!(ran.status.code(), Some(3), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("is not in this log any more"), "{}", ran.stdout);
    // A log that hands out another entry at that place is found out by its own tree.
    let mut entries = fs::read_dir(gateway.data().join("tiles/tile/entries/000.p")).unwrap();
    let bundle = entries.next().unwrap().unwrap().path();
    let bytes = fs::read(&bundle).unwrap();
    let close = b"\"k\":\"session-close\",\"s\":\"";
    let at = bytes.windows(close.len()).position(|window| window == close).expect("the session's end");
    let _flipped = Flipped::new(bundle, at + close.len() + 200);
    let ran = check(&gateway, &["--against", &data]);
    assert_eq!(ran.status.code(), Some(3), "{}{}", ran.stdout, ran.stderr);
    let ran = gateway.cli(&["receipt", "01K9ZZ3Q0V8C2M4N6P8R0T2W4Y"]);
    assert_eq!(ran.status.code(), Some(5), "{}", ran.stderr);
}

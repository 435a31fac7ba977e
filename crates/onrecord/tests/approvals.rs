//! `onrecord approvals` against a server that answers as the gateway's API does.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use common::{Place, Ran};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

const SESSION: &str = "01KAN3V8Q0V8C2M4N6P8R0T2W4";
const HOSTILE: &str = "delete from customers\nwhere name = '\u{1b}[2Jx\u{202e}'";
const TOKEN: &str = "a.token.of-the-issuer";

/// What came in: the method, the path, who, and the body.
type Request = (String, String, String, Value);
/// What a request is answered with.
type Answer = dyn Fn(&str, &str) -> (u16, Value) + Send + Sync;

/// A server on loopback, and what it was asked.
struct Server {
    url: String,
    asked: Receiver<Request>,
}

impl Server {
    /// One whose certificate is written to `gateway.pem`.
    fn start(place: &Place, answer: Arc<Answer>) -> Self {
        let (certificate, key) = gateway::tls::generate(vec!["localhost".to_owned()]).unwrap();
        place.write("gateway.pem", &certificate);
        place.write("token", TOKEN);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let (sender, asked) = channel();
        let config = Arc::new(config);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                let (answer, sender) = (Arc::clone(&answer), sender.clone());
                let stream = rustls::StreamOwned::new(connection, stream.unwrap());
                thread::spawn(move || serve(stream, &*answer, &sender));
            }
        });
        Self { url, asked }
    }

    fn run(&self, place: &Place, words: &str) -> Ran {
        self.command(place, words).output().unwrap().into()
    }

    fn command(&self, place: &Place, words: &str) -> std::process::Command {
        let mut command = place.command();
        command.args(words.split(' ')).args(["--gateway", &self.url, "--ca", "gateway.pem", "--token-file", "token"]);
        command.env("HOME", place.path()).env_remove("XDG_CONFIG_HOME").stdin(std::process::Stdio::null());
        command
    }

    /// What was asked so far.
    fn asked(&self) -> Vec<Request> {
        self.asked.try_iter().collect()
    }
}

type Tls = rustls::StreamOwned<rustls::ServerConnection, std::net::TcpStream>;

/// Answers requests until the client leaves.
fn serve(stream: Tls, answer: &Answer, asked: &Sender<Request>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let (mut length, mut who) = (0, String::new());
        loop {
            let mut header = String::new();
            stream.read_line(&mut header).unwrap();
            let Some((name, value)) = header.trim().split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().unwrap(),
                "authorization" => who = value.to_owned(),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        let _ = asked.send((method.clone(), path.clone(), who, serde_json::from_slice(&body).unwrap_or(Value::Null)));
        let (status, answer) = answer(&method, &path);
        let body = answer.to_string();
        let head =
            format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        let out = stream.get_mut();
        if out
            .write_all(head.as_bytes())
            .and_then(|()| out.write_all(body.as_bytes()))
            .and_then(|()| out.flush())
            .is_err()
        {
            return;
        }
    }
}

fn id() -> String {
    format!("{SESSION}.3")
}

fn summary(state: &str) -> Value {
    json!({
        "id": id(), "state": state, "may_decide": true, "requester": "agent:copilot", "on_behalf_of": "human:bea",
        "connection": "app", "database": "shop", "role": "app_owner", "asked": "2026-11-22T09:35:01.000000Z",
        "expires": "2026-11-22T09:50:01.000000Z", "approvals": 0, "quorum": 1, "message": "ask the people on call",
        "rules": ["deletes"], "statement": HOSTILE, "statement_shortened": false,
    })
}

fn detail(state: &str) -> Value {
    let mut detail = summary(state);
    let more = json!({
        "parameters": null, "transaction": "idle", "policy": "aa".repeat(32), "intent": "bb".repeat(32),
        "request": "cc".repeat(32), "votes": [], "seen": [], "used_by": null,
    });
    detail.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    detail
}

/// One approval that waits, and is decided as it is asked for.
fn one(method: &str, path: &str) -> (u16, Value) {
    let known = format!("/v1/approvals/{}", id());
    match (method, path) {
        ("GET", "/v1/approvals") => (200, json!({"revision": 7, "approvals": [summary("waiting")]})),
        ("GET", path) if path == known => (200, detail("waiting")),
        ("POST", path) if path == known => (200, detail("approved")),
        _ => {
            (404, json!({"error": "not_found", "error_description": "there is no such approval", "hint": "list them"}))
        }
    }
}

#[test]
fn what_waits_is_listed_and_shown_harmlessly() {
    let place = Place::new();
    let server = Server::start(&place, Arc::new(one));
    let ran = server.run(&place, "approvals list");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    for said in [&*id(), "waiting", "2026-11-22 09:50:01", "agent:copilot", "human:bea", "'\\x1b[2Jx\\u{202e}'"] {
        assert!(ran.out.contains(said), "{}", ran.out);
    }
    let ran = server.run(&place, "approvals list --output json");
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap(), json!([summary("waiting")]));

    let ran = server.run(&place, &format!("approvals show {}", id()));
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let said = "statement     delete from customers\n              where name = '\\x1b[2Jx\\u{202e}'\n";
    assert!(ran.out.contains(said), "{}", ran.out);
    assert!(!ran.out.contains('\u{1b}') && !ran.out.contains('\u{202e}'));
    let ran = server.run(&place, "approvals show T2W4.3 --output json");
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap(), detail("waiting"));
    let who: Vec<String> = server.asked().into_iter().map(|(_, _, who, _)| who).collect();
    assert!(!who.is_empty() && who.iter().all(|who| *who == format!("Bearer {TOKEN}")));

    let ran = server.run(&place, &format!("approvals show {SESSION}.4"));
    assert_eq!((ran.code, ran.err.as_str()), (5, "onrecord: error: there is no such approval\n  hint: list them\n"));
    assert_eq!(server.run(&place, "approvals show T2W4.4").code, 5);
}

#[test]
fn a_decision_is_on_what_was_shown() {
    let place = Place::new();
    let server = Server::start(&place, Arc::new(one));
    let mut command = server.command(&place, "approvals approve w4.3 --yes");
    let ran: Ran = command.args(["--comment", "ticket 4711"]).output().unwrap().into();
    assert_eq!(
        (ran.code, ran.out.trim()),
        (0, &*format!("Approved {}. It runs once, as soon as who asked for it is there.", id())),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("where name = '\\x1b[2Jx\\u{202e}'"), "{}", ran.err);
    let posted: Vec<Value> = server.asked().into_iter().filter(|one| one.0 == "POST").map(|one| one.3).collect();
    let request = "cc".repeat(32);
    assert_eq!(posted, [json!({"decision": "approve", "request": request, "comment": "ticket 4711"})]);

    let ran = server.run(&place, &format!("approvals deny {} --yes --output json", id()));
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap(), detail("approved"));
    let posted: Vec<Value> = server.asked().into_iter().filter(|one| one.0 == "POST").map(|one| one.3).collect();
    assert_eq!(posted, [json!({"decision": "deny", "request": request})]);

    // Without a terminal nobody can be asked, and nothing is decided.
    let ran = server.run(&place, &format!("approvals approve {}", id()));
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("nothing was decided: there is no terminal to ask on\n  hint: --yes"), "{}", ran.err);
    assert!(server.asked().iter().all(|one| one.0 == "GET"));
}

#[test]
fn refusals_are_told_in_the_gateways_words() {
    let place = Place::new();
    let state = Arc::new(Mutex::new("waiting"));
    let told = Arc::clone(&state);
    let answer = move |method: &str, _: &str| match method {
        "GET" => (200, detail(&told.lock().unwrap())),
        _ => (
            403,
            json!({"error": "not_allowed", "error_description": "who asks \u{1b}never decides", "hint": "ask another"}),
        ),
    };
    let server = Server::start(&place, Arc::new(answer));
    let words = format!("approvals approve {} --yes", id());
    let ran = server.run(&place, &words);
    assert_eq!(ran.code, 1);
    assert!(ran.err.ends_with("onrecord: error: who asks \\x1bnever decides\n  hint: ask another\n"), "{}", ran.err);
    server.asked();
    *state.lock().unwrap() = "expired";
    let ran = server.run(&place, &words);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("is expired: there is nothing left to decide"), "{}", ran.err);
    assert!(server.asked().iter().all(|one| one.0 == "GET"));
}

#[test]
fn changes_are_followed() {
    let place = Place::new();
    let answer = |_: &str, path: &str| match path {
        "/v1/approvals" => (200, json!({"revision": 1, "approvals": [summary("waiting")]})),
        "/v1/approvals?wait=50&after=1" => (200, json!({"revision": 2, "approvals": [summary("used")]})),
        _ => (401, json!({"error": "invalid_token", "error_description": "the token has expired"})),
    };
    let server = Server::start(&place, Arc::new(answer));
    let mut command = server.command(&place, "approvals watch --output ndjson");
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for state in ["waiting", "used"] {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(line, summary(state));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

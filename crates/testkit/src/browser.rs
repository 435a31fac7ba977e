//! A real browser (Chromium, headless) with a virtual authenticator, driven over its DevTools protocol through a pipe.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use crate::process::{self, PATIENCE, poll};

/// A page in a browser. The browser ends with it.
pub struct Browser {
    browser: Child,
    commands: ChildStdin,
    answers: Receiver<Value>,
    session: String,
    number: u64,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts a browser that trusts this certificate (PEM), and has an authenticator whose owner is always there and
    /// always known.
    #[track_caller]
    pub fn start(certificate: &Path) -> Self {
        let profile = tempfile::Builder::new().prefix("onrecord-browser-").tempdir().unwrap();
        // Named by its key: a certificate that was merely passed over would not do for passkeys.
        let spki = "openssl x509 -in \"$0\" -pubkey -noout | openssl pkey -pubin -outform der | \
                    openssl dgst -sha256 -binary | openssl enc -base64";
        let spki = process::run(Command::new("sh").args(["-c", spki]).arg(certificate), "").expect_success("openssl");
        let chromium = "exec chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
                        --disable-background-networking --remote-debugging-pipe --user-data-dir=\"$0\" \
                        --ignore-certificate-errors-spki-list=\"$1\" about:blank 3<&0 4>&1 </dev/null >/dev/null 2>&1";
        let mut command = Command::new("sh");
        command.args(["-c", chromium]).arg(profile.path()).arg(spki.trim());
        command.env("HOME", profile.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut browser = command.spawn().unwrap();
        let (commands, said) = (browser.stdin.take().unwrap(), browser.stdout.take().unwrap());
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(said).split(0) {
                let Some(message) = message.ok().and_then(|message| serde_json::from_slice(&message).ok()) else {
                    return;
                };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let (session, number) = (String::new(), 0);
        let mut page = Self { browser, commands, answers, session, number, _profile: profile };
        let target = page.call("Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
        let attached = page.call("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        page.session = attached["sessionId"].as_str().unwrap().to_owned();
        page.call("WebAuthn.enable", json!({}));
        let options = json!({
            "protocol": "ctap2", "transport": "internal", "hasResidentKey": true, "hasUserVerification": true,
            "isUserVerified": true, "automaticPresenceSimulation": true,
        });
        page.call("WebAuthn.addVirtualAuthenticator", json!({"options": options}));
        page
    }

    /// Opens a URL, and waits until it is loaded. What comes later is for [`Browser::wait_for`].
    #[track_caller]
    pub fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", json!({"url": url}));
        assert!(opened.get("errorText").is_none(), "{url}: {opened}");
        self.wait_for(&format!("location.href.startsWith('{}') && document.readyState === 'complete'", origin(url)));
    }

    /// What an expression gives.
    #[track_caller]
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", parameters);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub fn wait_for(&mut self, expression: &str) {
        poll(expression, || (self.evaluate(expression) == Value::Bool(true)).then_some(()));
    }

    #[track_caller]
    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.number += 1;
        let mut message = json!({"id": self.number, "method": method, "params": parameters});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.commands.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let answer = self.answers.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{method}: {error}"));
            if answer["id"] == json!(self.number) {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }
}

/// The part of a URL before its path.
fn origin(url: &str) -> &str {
    let path = url.match_indices('/').nth(2).map_or(url.len(), |(at, _)| at);
    url.get(..path).unwrap_or(url)
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.browser.kill();
        let _ = self.browser.wait();
    }
}

//! Real issuers of tokens: one whose tokens can say anything, and an OpenID provider as companies have them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::clients::{installed, program, scripts};
use crate::postgres::free_port;
use crate::process::{Process, poll, tethered};
use crate::{Authority, http};

/// An issuer that signs whatever a test asks for: `oauth2-mock-server`. It can be stopped and started again with the same
/// address and keys, counts what is asked of it, and misbehaves on request.
pub struct Issuer {
    process: Option<Process>,
    port: u16,
    keys: tempfile::TempDir,
    control: Option<String>,
    authority: Option<Authority>,
}

impl Issuer {
    /// Starts one with one RSA key, `first`.
    pub fn start() -> Self {
        Self::with(None)
    }

    /// Starts one that speaks HTTPS, by a certificate of [`Issuer::ca`]. It takes no requests of [`Issuer::mint`] and the
    /// like.
    pub fn start_tls() -> Self {
        Self::with(Some(Authority::new()))
    }

    fn with(authority: Option<Authority>) -> Self {
        let port = free_port();
        let control = authority.is_none().then(|| format!("http://127.0.0.1:{port}/test/"));
        let mut issuer = Self { process: None, port, keys: tempfile::tempdir().unwrap(), control, authority };
        issuer.restart();
        issuer
    }

    /// Starts it again at the same address with the same keys, however it stands.
    pub fn restart(&mut self) {
        self.stop();
        let mut command = node("issuers/issuer.mjs");
        command.arg(self.port.to_string()).arg(self.keys.path().join("keys.json"));
        if let Some(authority) = &self.authority {
            command.arg(authority.certificate()).arg(authority.key());
        }
        self.process = Some(Process::start("issuer", &mut command, Signal::KILL));
        up(self.port);
    }

    /// Kills it.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Its `iss`.
    pub fn url(&self) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// The authority of its certificate, PEM.
    pub fn ca(&self) -> PathBuf {
        self.authority.as_ref().expect("an issuer that speaks HTTPS").ca()
    }

    /// A token with these claims over the usual ones (`iss`, `iat`, `nbf`, and `exp` in an hour); null takes one away.
    pub fn mint(&self, claims: Value) -> String {
        self.mint_with(claims, json!({}), None)
    }

    /// The same, with these members of the header, by the key of this name.
    pub fn mint_with(&self, claims: Value, header: Value, kid: Option<&str>) -> String {
        let reply = self.ask("mint", json!({"claims": claims, "header": header, "kid": kid}));
        reply["token"].as_str().unwrap().to_owned()
    }

    /// Makes a key of this algorithm and publishes it.
    pub fn publish(&self, kid: &str, algorithm: &str) {
        self.ask("publish", json!({"kid": kid, "alg": algorithm}));
    }

    /// Makes a key and does not publish it; [`Issuer::publish`] does so later.
    pub fn hide(&self, kid: &str, algorithm: &str) {
        self.ask("publish", json!({"kid": kid, "alg": algorithm, "hide": true}));
    }

    /// Takes a key from what is published. It still signs.
    pub fn withdraw(&self, kid: &str) {
        self.ask("withdraw", json!({"kid": kid}));
    }

    /// From now on it does not answer as it should: `error`, `hang`, `garbage`, `other-issuer`, `private`, `redirect`,
    /// `huge`; or does again: `well`.
    pub fn behave(&self, how: &str) {
        self.ask("behave", json!({"how": how}));
    }

    /// How often its keys were asked for since it was started.
    pub fn fetches(&self) -> u64 {
        self.ask("count", json!({}))["/jwks"].as_u64().unwrap_or(0)
    }

    #[track_caller]
    fn ask(&self, what: &str, body: Value) -> Value {
        let url = format!("{}{what}", self.control.as_ref().expect("an issuer that speaks HTTP"));
        post(&url, "application/json", &body.to_string())
    }
}

/// An OpenID provider: `oidc-provider`. The client `reporting` gets tokens by its secret, the client `onrecord` by the
/// device flow.
pub struct Provider {
    _process: Process,
    port: u16,
}

impl Provider {
    /// The client that has a secret.
    pub const CLIENT: &str = "reporting";
    /// Its secret.
    pub const CLIENT_SECRET: &str = "reporting-secret";
    /// The client that people log in with.
    pub const LOGIN_CLIENT: &str = "onrecord";

    /// Starts one whose access tokens are for this resource.
    pub fn start(resource: &str) -> Self {
        let port = free_port();
        let mut command = node("issuers/provider.mjs");
        let process = Process::start("provider", command.arg(port.to_string()).arg(resource), Signal::KILL);
        up(port);
        Self { _process: process, port }
    }

    /// Its `iss`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// An access token of the client that has a secret.
    pub fn client_credentials(&self) -> String {
        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}&scope=db%3Aread",
            Self::CLIENT,
            Self::CLIENT_SECRET
        );
        let reply = post(&format!("{}/token", self.url()), "application/x-www-form-urlencoded", &form);
        reply["access_token"].as_str().unwrap().to_owned()
    }

    /// The person who types the code of a device and agrees.
    #[track_caller]
    pub fn approve(&self, user_code: &str, account: &str) {
        let body = json!({"user_code": user_code, "account": account});
        post(&format!("{}/test/approve", self.url()), "application/json", &body.to_string());
    }

    /// Both tokens of a person who logs in by the device flow: the one about the person, the one for the resource.
    pub fn device_login(&self, account: &str) -> (String, String) {
        let form = "application/x-www-form-urlencoded";
        let client = Self::LOGIN_CLIENT;
        let asked = format!("client_id={client}&scope=openid+email+groups");
        let device = post(&format!("{}/device/auth", self.url()), form, &asked);
        self.approve(device["user_code"].as_str().unwrap(), account);
        let grant = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";
        let code = device["device_code"].as_str().unwrap();
        let tokens = format!("client_id={client}&grant_type={grant}&device_code={code}");
        let tokens = post(&format!("{}/token", self.url()), form, &tokens);
        let text = |name: &str| tokens[name].as_str().unwrap_or_else(|| panic!("{name} in {tokens}")).to_owned();
        (text("id_token"), text("access_token"))
    }
}

fn node(name: &str) -> Command {
    let modules = installed().join("issuers/node_modules");
    assert!(Path::new(&modules).is_dir(), "{} is missing; `cargo xtask test` installs it", modules.display());
    let mut command = tethered(program("node"), "KILL");
    command.arg("--no-warnings").arg(scripts().join(name)).env("MODULES", modules);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn up(port: u16) {
    poll("an issuer to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(drop));
}

#[track_caller]
fn post(url: &str, content_type: &str, body: &str) -> Value {
    let headers = format!("content-type: {content_type}\r\n");
    let reply = http::request("POST", url, &headers, body.as_bytes()).unwrap_or_else(|| panic!("no answer from {url}"));
    assert_eq!(reply.status, 200, "{url}: {}", reply.text());
    let text = reply.text();
    // A body without a length comes in chunks.
    let json = text.get(text.find('{').unwrap_or(0)..=text.rfind('}').unwrap_or(0)).unwrap_or_default();
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{url}: {error}: {text}"))
}

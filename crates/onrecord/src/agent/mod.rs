//! The side of whoever connects: how an agent, a person or a job proves who it is, and gets connection tokens.
//!
//! Not for: the gateway, which has no part of this; nor for operators, who ask over the control socket.
//!
//! Invariant: no secret is in an argument of a process, in an environment that is handed on, or in a message.

mod device;
mod login;
mod proof;
pub mod ssh;

use std::path::PathBuf;

use clap::Args;
use model::{BreakGlassId, CommandId};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::http::{Client, HttpError};
use crate::{Exit, Failure};

pub use device::Device;
pub use login::{Login, Proof as LoginProof};
pub use proof::{Source, SourceArgs};

/// RFC 8693, 2.1.
const GRANT_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// RFC 8693, 3.
const TYPE_JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// Ours: a certificate for an SSH key.
const TYPE_SSH_CERTIFICATE: &str = "urn:onrecord:token-type:ssh-certificate";
/// Bytes of an answer about approvals: it can have a whole statement in it.
const APPROVAL_BYTES_MAX: u64 = 128 << 20;
/// Seconds that the gateway waits for a change, at most; less than a request may take.
const CHANGE_SECONDS_MAX: u32 = 50;

/// Which gateway, and how its certificate is checked.
#[derive(Debug, Clone, Default, Args)]
pub struct GatewayPlace {
    /// The gateway's API, such as https://gateway.internal:6443 [default: as at `onrecord login`]
    #[arg(long, value_name = "URL", env = "ONRECORD_GATEWAY")]
    pub gateway: Option<String>,
    /// The authority of its certificate, or the certificate itself, PEM [default: the system's authorities]
    #[arg(long, value_name = "FILE", env = "ONRECORD_CA")]
    pub ca: Option<PathBuf>,
}

/// A gateway's API, as clients use it.
pub struct Api {
    url: String,
    client: Client,
    /// The file with the authority of its certificate, if one was named.
    pub ca: Option<PathBuf>,
}

/// A connection token, and what it opens.
pub struct Token {
    /// The token.
    pub text: Zeroizing<String>,
    /// Seconds that it holds.
    pub expires_in: u64,
    /// The gateway's answer without the token.
    pub about: Value,
}

impl Api {
    /// The API at a URL.
    ///
    /// # Errors
    /// The URL is none, or the certificate cannot be read.
    pub fn new(url: &str, ca: Option<PathBuf>) -> Result<Self, Failure> {
        let url = url.trim_end_matches('/').to_owned();
        if !url.starts_with("https://") {
            return Err(Failure::usage(format_args!("{url:?} is not the URL of a gateway's API"))
                .hint("it begins with https://, such as https://gateway.internal:6443"));
        }
        let client = match &ca {
            None => Client::new(),
            Some(file) => {
                let wrong = |why: &dyn std::fmt::Display| Failure::usage(format_args!("{}: {why}", file.display()));
                let pem = std::fs::read(file).map_err(|error| wrong(&error))?;
                Client::trusting(&pem).map_err(|why| wrong(&why))?
            }
        };
        Ok(Self { url, client, ca })
    }

    /// What the gateway tells everybody.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn about(&self) -> Result<Value, Failure> {
        let (status, about) =
            self.client.get_json(&format!("{}/v1/about", self.url), None).map_err(|e| self.unreachable(&e))?;
        if status == 200 {
            Ok(about)
        } else {
            Err(Failure::new(format_args!("{} answered with status {status}", self.url)))
        }
    }

    /// Who the bearer of a token is.
    ///
    /// # Errors
    /// The gateway cannot be asked, or does not accept the token.
    pub fn whoami(&self, token: &str) -> Result<Value, Failure> {
        let asked = self.client.get_json(&format!("{}/v1/whoami", self.url), Some(token));
        match asked.map_err(|error| self.unreachable(&error))? {
            (200, who) => Ok(who),
            (_, refusal) => Err(refused(&refusal)),
        }
    }

    /// A connection token for a proof.
    ///
    /// # Errors
    /// The gateway cannot be asked, or refuses.
    pub fn exchange(&self, proof: &str, connection: &str, ttl_seconds: Option<u64>) -> Result<Token, Failure> {
        let ttl = ttl_seconds.map(|ttl| ttl.to_string());
        let mut form = vec![
            ("grant_type", GRANT_EXCHANGE),
            ("subject_token_type", TYPE_JWT),
            ("subject_token", proof),
            ("audience", connection),
        ];
        form.extend(ttl.as_deref().map(|ttl| ("ttl_seconds", ttl)));
        let asked = self.client.post_form(&format!("{}/oauth/token", self.url), &form);
        let (status, mut about) = asked.map_err(|error| self.unreachable(&error))?;
        let text = about.as_object_mut().and_then(|fields| fields.remove("access_token"));
        match (status, text) {
            (200, Some(Value::String(text))) => Ok(Token {
                text: Zeroizing::new(text),
                expires_in: about.get("expires_in").and_then(Value::as_u64).unwrap_or(0),
                about,
            }),
            _ => Err(refused(&about)),
        }
    }

    /// A certificate for the public half of an SSH key, for these connections or all that there are for its owner.
    ///
    /// # Errors
    /// The gateway cannot be asked, or refuses.
    pub fn certify(
        &self,
        proof: &str,
        public_key: &str,
        connections: &[String],
        ttl_seconds: Option<u64>,
    ) -> Result<ssh::Certificate, Failure> {
        let ttl = ttl_seconds.map(|ttl| ttl.to_string());
        let mut form = vec![
            ("grant_type", GRANT_EXCHANGE),
            ("subject_token_type", TYPE_JWT),
            ("subject_token", proof),
            ("requested_token_type", TYPE_SSH_CERTIFICATE),
            ("public_key", public_key),
        ];
        form.extend(connections.iter().map(|name| ("audience", name.as_str())));
        form.extend(ttl.as_deref().map(|ttl| ("ttl_seconds", ttl)));
        let asked = self.client.post_form(&format!("{}/oauth/token", self.url), &form);
        let (status, mut about) = asked.map_err(|error| self.unreachable(&error))?;
        let line = about.as_object_mut().and_then(|fields| fields.remove("access_token"));
        let seconds = about.get("expires_in").and_then(Value::as_u64).and_then(|seconds| seconds.try_into().ok());
        match (status, line, seconds) {
            (200, Some(Value::String(line)), Some(expires_in)) => Ok(ssh::Certificate { line, expires_in, about }),
            _ => Err(refused(&about)),
        }
    }

    /// The approvals that the bearer may decide or has asked for; with a revision, as soon as there is a later one, or after
    /// less than a minute.
    ///
    /// # Errors
    /// The gateway cannot be asked, or refuses.
    pub fn approvals(&self, proof: &str, after: Option<u64>) -> Result<Value, Failure> {
        let query = after.map(|after| format!("?wait={CHANGE_SECONDS_MAX}&after={after}")).unwrap_or_default();
        let url = format!("{}/v1/approvals{query}", self.url);
        self.well(self.client.get_long_json(&url, proof, APPROVAL_BYTES_MAX))
    }

    /// All that the gateway tells of an approval, which it notes down that the bearer has seen.
    ///
    /// # Errors
    /// The gateway cannot be asked, or refuses; or there is none of that name.
    pub fn approval(&self, proof: &str, id: CommandId) -> Result<Value, Failure> {
        self.well(self.client.get_long_json(&format!("{}/v1/approvals/{id}", self.url), proof, APPROVAL_BYTES_MAX))
    }

    /// Decides an approval, and gives what it is then.
    ///
    /// # Errors
    /// As [`Api::approval`]; or it is not open, or not what was decided on.
    pub fn decide(&self, proof: &str, id: CommandId, decision: &Value) -> Result<Value, Failure> {
        let url = format!("{}/v1/approvals/{id}", self.url);
        self.well(self.client.post_json(&url, proof, decision, APPROVAL_BYTES_MAX))
    }

    /// The break-glass that is open or was not reviewed, as far as the bearer may see it.
    ///
    /// # Errors
    /// The gateway cannot be asked, or refuses.
    pub fn break_glasses(&self, proof: &str) -> Result<Value, Failure> {
        let url = format!("{}/v1/break-glass", self.url);
        self.well(self.client.get_long_json(&url, proof, APPROVAL_BYTES_MAX))
    }

    /// All that the gateway tells of one, with a page of the commands under it: the first, or the one after the page that
    /// ended there.
    ///
    /// # Errors
    /// The gateway cannot be asked, or refuses; or there is none of that name.
    pub fn break_glass(&self, proof: &str, id: BreakGlassId, after: Option<u64>) -> Result<Value, Failure> {
        let query = after.map(|after| format!("?after={after}")).unwrap_or_default();
        let url = format!("{}/v1/break-glass/{id}{query}", self.url);
        self.well(self.client.get_long_json(&url, proof, APPROVAL_BYTES_MAX))
    }

    /// Breaks the glass, and gives what is open then.
    ///
    /// # Errors
    /// The gateway cannot be asked, or refuses.
    pub fn break_the_glass(&self, proof: &str, opening: &Value) -> Result<Value, Failure> {
        let url = format!("{}/v1/break-glass", self.url);
        self.well(self.client.post_json(&url, proof, opening, APPROVAL_BYTES_MAX))
    }

    /// Closes one, and gives what it is then.
    ///
    /// # Errors
    /// As [`Api::break_glass`]; or it is over.
    pub fn close_break_glass(&self, proof: &str, id: BreakGlassId) -> Result<Value, Failure> {
        let url = format!("{}/v1/break-glass/{id}/close", self.url);
        self.well(self.client.post_json(&url, proof, &Value::Null, APPROVAL_BYTES_MAX))
    }

    /// Reviews one, and gives what it is then.
    ///
    /// # Errors
    /// As [`Api::break_glass`]; or it is open, or was reviewed.
    pub fn review_break_glass(&self, proof: &str, id: BreakGlassId, review: &Value) -> Result<Value, Failure> {
        let url = format!("{}/v1/break-glass/{id}/review", self.url);
        self.well(self.client.post_json(&url, proof, review, APPROVAL_BYTES_MAX))
    }

    /// What the gateway answered, if that is no refusal.
    fn well(&self, asked: Result<(u16, Value), HttpError>) -> Result<Value, Failure> {
        match asked.map_err(|error| self.unreachable(&error))? {
            (200, answer) => Ok(answer),
            (404, refusal) => Err(refused(&refusal).with(Exit::NotFound)),
            (_, refusal) => Err(refused(&refusal)),
        }
    }

    /// The URL of the API.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The host of the API, which is the gateway's.
    pub fn host(&self) -> &str {
        let authority = self.url.trim_start_matches("https://").split('/').next().unwrap_or_default();
        match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, _)) => address,
            None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
        }
    }

    fn unreachable(&self, error: &HttpError) -> Failure {
        let hint = match &self.ca {
            None => "is it the address of `listen.api`? A certificate of your own is named with --ca",
            Some(_) => "is it the address of `listen.api`, and is the certificate one of this authority?",
        };
        Failure::new(format_args!("the gateway cannot be asked: {error}")).hint(hint)
    }
}

/// What the gateway says of a request that it refuses.
fn refused(answer: &Value) -> Failure {
    let text = |key: &str| answer.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let said =
        text("error_description").or_else(|| text("error")).unwrap_or("the gateway refused, and did not say why");
    let failure = Failure::new(crate::output::single_line(said));
    match text("hint") {
        Some(hint) => failure.hint(crate::output::single_line(hint)),
        None => failure,
    }
}

/// What is needed for a connection token: a gateway, and something to prove oneself with. What is given now counts more
/// than the environment, and that more than the last `onrecord login`.
///
/// # Errors
/// Something is missing, or cannot be had.
pub fn ready(place: &GatewayPlace, source: Option<Source>) -> Result<(Api, Zeroizing<String>), Failure> {
    let mut saved = Login::load()?;
    let url = place.gateway.clone().or_else(|| saved.as_ref().map(|login| login.gateway.clone()));
    let Some(url) = url else {
        return Err(
            Failure::usage("which gateway?").hint("name its API with --gateway URL, or use `onrecord login` once")
        );
    };
    // What was kept for one gateway is not for another, whoever names that one.
    saved = saved.filter(|login| login.gateway.trim_end_matches('/') == url.trim_end_matches('/'));
    let ca = place.ca.clone().or_else(|| saved.as_ref().and_then(|login| login.ca.clone()));
    let api = Api::new(&url, ca)?;
    let source = source.or_else(Source::of_environment);
    let proof = match (source, &mut saved) {
        (Some(source), _) => source.proof(&api)?,
        (None, Some(login)) => login.proof(&api)?,
        (None, None) => {
            return Err(Failure::usage(format_args!("there is nothing to prove who you are with to {url}"))
                .hint("use `onrecord login`, or --token-file, --token-command or $ONRECORD_TOKEN"));
        }
    };
    Ok((api, proof))
}

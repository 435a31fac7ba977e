//! Where a token of an issuer comes from.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::Api;
use crate::Failure;

/// The variable that holds a token of an issuer.
const TOKEN_VARIABLE: &str = "ONRECORD_TOKEN";
/// The variable that holds the audience to ask GitHub for; the gateway's URL unless it is set.
const AUDIENCE_VARIABLE: &str = "ONRECORD_AUDIENCE";
/// Bytes of a token; a gateway takes no longer ones.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// What GitHub gives a job that may ask for a token: `permissions: id-token: write`.
const GITHUB_URL: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";
/// What proves to GitHub that it is that job.
const GITHUB_BEARER: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";

/// Where a token comes from, on the command line.
#[derive(Debug, Clone, Default, Args)]
pub struct SourceArgs {
    /// Read the issuer's token from this file each time, as where Kubernetes projects one
    #[arg(long, value_name = "FILE", conflicts_with = "token_command")]
    token_file: Option<PathBuf>,
    /// Run this with sh each time; what it prints is the issuer's token
    #[arg(long, value_name = "COMMAND")]
    token_command: Option<String>,
}

impl SourceArgs {
    /// The source, if one was named.
    #[must_use]
    pub fn source(self) -> Option<Source> {
        match (self.token_file, self.token_command) {
            (Some(path), _) => Some(Source::File { path: std::path::absolute(&path).unwrap_or(path) }),
            (None, Some(command)) => Some(Source::Command { command }),
            (None, None) => None,
        }
    }
}

/// Where a token comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
pub enum Source {
    /// A file that something else keeps fresh.
    File {
        /// Its path.
        path: PathBuf,
    },
    /// A command that prints it.
    Command {
        /// As `sh -c` takes it.
        command: String,
    },
    /// The environment: [`TOKEN_VARIABLE`].
    Environment,
    /// GitHub, which gives one to a job that asks.
    GithubActions,
}

impl Source {
    /// What the environment offers.
    #[must_use]
    pub fn of_environment() -> Option<Self> {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        if set(TOKEN_VARIABLE) {
            Some(Self::Environment)
        } else if set(GITHUB_URL) && set(GITHUB_BEARER) {
            Some(Self::GithubActions)
        } else {
            None
        }
    }

    /// In words, for who logs in.
    #[must_use]
    pub fn described(&self) -> String {
        match self {
            Self::File { path } => format!("the token in {}", path.display()),
            Self::Command { .. } => "the token that the command prints".to_owned(),
            Self::Environment => format!("the token in ${TOKEN_VARIABLE}"),
            Self::GithubActions => "GitHub's token for this job".to_owned(),
        }
    }

    /// The token as it is now.
    pub(super) fn proof(&self, api: &Api) -> Result<Zeroizing<String>, Failure> {
        match self {
            Self::File { path } => of_file(path),
            Self::Command { command } => of_command(command),
            Self::Environment => {
                of_bytes(std::env::var(TOKEN_VARIABLE).unwrap_or_default().into_bytes(), "$ONRECORD_TOKEN")
            }
            Self::GithubActions => of_github(api),
        }
    }
}

fn of_file(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::new(format_args!("cannot read the token in {}: {error}", path.display())))?;
    of_bytes(bytes, &path.display().to_string())
}

fn of_command(command: &str) -> Result<Zeroizing<String>, Failure> {
    let output = Command::new("sh").args(["-c", command]).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| Failure::new(format_args!("the token command cannot be run: {error}")))?;
    if !output.status.success() {
        return Err(Failure::new(format_args!("the token command failed: {}", output.status)));
    }
    of_bytes(output.stdout, "what the token command printed")
}

/// Asks GitHub as its documentation says: the URL of the job, with an audience. That is never the gateway's to say: a token
/// for something else would be worth having.
fn of_github(api: &Api) -> Result<Zeroizing<String>, Failure> {
    let named = std::env::var(AUDIENCE_VARIABLE).ok().filter(|audience| !audience.is_empty());
    let audience = named.unwrap_or_else(|| api.url().to_owned());
    let (url, bearer) =
        (std::env::var(GITHUB_URL).unwrap_or_default(), std::env::var(GITHUB_BEARER).unwrap_or_default());
    let encoded: String = form_urlencoded::byte_serialize(audience.as_bytes()).collect();
    let joint = if url.contains('?') { '&' } else { '?' };
    let asked = crate::http::Client::new().get_json(&format!("{url}{joint}audience={encoded}"), Some(&bearer));
    let (status, answer) = asked.map_err(|error| Failure::new(format_args!("GitHub gave no token: {error}")))?;
    match answer.get("value").and_then(Value::as_str) {
        Some(token) => of_bytes(token.as_bytes().to_vec(), "GitHub's answer"),
        None => Err(Failure::new(format_args!("GitHub gave no token: status {status}"))
            .hint("the job needs `permissions: id-token: write`")),
    }
}

fn of_bytes(bytes: Vec<u8>, from: &str) -> Result<Zeroizing<String>, Failure> {
    let bytes = Zeroizing::new(bytes);
    let text = std::str::from_utf8(&bytes).map(str::trim).unwrap_or_default();
    if text.is_empty() || text.len() > TOKEN_BYTES_MAX || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Failure::new(format_args!("{from} is no token"))
            .hint("a token is one word of at most 16 KiB, as an issuer signs it (JWT)"));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

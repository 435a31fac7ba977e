//! `onrecord config check` and `onrecord config schema`.

use clap::Subcommand;
use serde_json::json;

use super::Context;
use super::words::counted;
use crate::config::{Config, SCHEMA, SecretFinding, SecretState, resolve_secrets};
use crate::output::{Format, Tone};
use crate::{Exit, Failure};

/// `config ...`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check the configuration, and that its secrets can be read
    Check,
    /// Print the configuration's JSON Schema
    Schema,
}

impl ConfigCommand {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            Self::Check => check(context),
            Self::Schema => Ok(context.console.line(SCHEMA.trim_end())?),
        }
    }
}

fn check(context: &mut Context) -> Result<(), Failure> {
    let file = context.config_file();
    let config = Config::load(&file)?;
    let findings = resolve_secrets(&config);
    let unusable = findings.iter().any(|finding| matches!(finding.what, SecretState::Unreadable(_)));
    let warnings: Vec<(String, String, &str)> = findings.iter().map(described).chain(idle_parts(&config)).collect();
    let console = &mut context.console;
    if console.format() == Format::Table {
        for (key, what, hint) in &warnings {
            console.line(&format!("{}: {key}: {what}\n  hint: {hint}", file.display()))?;
        }
        let verdict =
            if unusable { console.paint(Tone::Bad, "cannot be used") } else { console.paint(Tone::Good, "ok") };
        console.line(&format!(
            "{}: {verdict} ({}, {}, data in {})",
            file.display(),
            counted(config.connections.len(), "connection", "connections"),
            counted(config.identities.len(), "identity", "identities"),
            config.gateway.data.display(),
        ))?;
    } else {
        let warnings: Vec<_> =
            warnings.iter().map(|(key, what, hint)| json!({"key": key, "what": what, "hint": hint})).collect();
        console.json(&json!({
            "file": file,
            "usable": !unusable,
            "findings": warnings,
            "connections": config.connections.len(),
            "identities": config.identities.len(),
            "data": config.gateway.data,
        }))?;
    }
    if unusable { Err(Failure::said(Exit::Usage)) } else { Ok(()) }
}

pub(super) fn described(finding: &SecretFinding) -> (String, String, &'static str) {
    let (what, hint) = match &finding.what {
        SecretState::Unreadable(error) => {
            (error.to_string(), "the gateway reads it at its start, as the user that it runs as")
        }
        SecretState::Loose(file, mode) => {
            (format!("others than the owner may read {file} (mode {mode:04o})"), "chmod 600 it")
        }
    };
    (finding.key.clone(), what, hint)
}

/// Parts that are valid and do nothing, which is rarely what was meant.
pub(super) fn idle_parts(config: &Config) -> impl Iterator<Item = (String, String, &'static str)> {
    let unused = config
        .connections
        .iter()
        .filter(|(_, connection)| connection.identities.is_empty() && connection.groups.is_empty());
    let connections = unused.map(|(name, _)| {
        let hint = "name them: identities = [\"agent:...\"], or `onrecord identities add NAME --connection ...`";
        (format!("connections.{name}.identities"), "nobody may use this connection".to_owned(), hint)
    });
    let identities = config.identities.keys().filter_map(|user| {
        let name = config.identity_name(user)?;
        let idle = config.connections_of(&name).next().is_none();
        let hint = "name it in a connection's `identities`, or remove it";
        idle.then(|| (format!("identities.{user}"), format!("{name} may use no connection"), hint))
    });
    let none = config.connections.is_empty().then(|| {
        let hint = "add a [connections.NAME] table";
        ("connections".to_owned(), "there is no connection".to_owned(), hint)
    });
    let parts: Vec<_> = connections.chain(identities).chain(none).collect();
    parts.into_iter()
}

//! `onrecord policy check`: what is wrong with policy files.

use std::path::PathBuf;

use clap::Args;
use policy::PolicySet;
use serde_json::json;

use super::super::words::counted;
use super::{Context, configured, parse, read, say};
use crate::output::{Console, Format, Tone};
use crate::{Exit, Failure};

/// Arguments of `policy check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Policy files; several together are one set [default: those of the configuration]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl Check {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        if self.files.is_empty() {
            // Loading the configuration has checked them.
            for (connection, set) in configured(context)? {
                good(&mut context.console, &[&format!("connections.{connection}.policy")], &set)?;
            }
            return Ok(());
        }
        let texts = read(&self.files)?;
        let names: Vec<&str> = texts.iter().map(|(name, _)| name.as_str()).collect();
        match parse(&texts) {
            Ok(set) => good(&mut context.console, &names, &set),
            Err(problems) => {
                say(&mut context.console, &problems)?;
                Err(Failure::said(Exit::Usage))
            }
        }
    }
}

/// Says that a policy can be put in force, and what it is.
fn good(console: &mut Console, names: &[&str], set: &PolicySet) -> Result<(), Failure> {
    let (rules, digest) = (set.rules().count(), set.digest().hex());
    if console.format() == Format::Table {
        let ok = console.paint(Tone::Good, "ok");
        let rules = counted(rules, "rule", "rules");
        console.line(&format!(
            "{}: {ok} ({rules}, default {}, digest {digest})",
            names.join(", "),
            set.default_ruling()
        ))?;
        return Ok(());
    }
    let ids: Vec<&str> = set.rules().map(policy::Rule::id).collect();
    let value = json!({"files": names, "rules": ids, "default": set.default_ruling().as_str(), "digest": digest});
    Ok(console.json(&value)?)
}

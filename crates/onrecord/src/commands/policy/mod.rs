//! `onrecord policy ...`: the rules of connections, before they are in force.
//!
//! What it is for: checking policy files, testing them with cases, explaining what they say about one command, and trying
//! them on the recorded past. What it is not for: deciding; the gateway does that. What these commands say is what the
//! gateway would decide for the same facts.

mod asked;
mod check;
mod explain;
mod replay;
mod test;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use policy::{PolicyFile, PolicyProblem, PolicySet};
use serde_json::{Value, json};

use super::Context;
use crate::output::{Console, Format, Tone, single_line};
use crate::{Exit, Failure};

/// `policy ...`.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Say what is wrong with policy files, and what to write instead
    Check(check::Check),
    /// Run the statements of a file of cases against policy files
    Test(test::Test),
    /// Say what each rule says about a recorded command, or about a statement that was never sent
    Explain(explain::Explain),
    /// Say what policy files would have decided about the recorded past
    Replay(replay::Replay),
}

impl PolicyCommand {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            Self::Check(check) => check.run(context),
            Self::Test(test) => test.run(context),
            Self::Explain(explain) => explain.run(context),
            Self::Replay(replay) => replay.run(context),
        }
    }
}

/// Which rules to use.
#[derive(Debug, Clone, Default, Args)]
struct PolicyPlace {
    /// A policy file; several together are one set [default: those of the configuration]
    #[arg(long = "policy", value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl PolicyPlace {
    /// The rules, or the failure that says all that is wrong with them.
    fn set(&self, context: &mut Context) -> Result<Arc<PolicySet>, Failure> {
        if self.files.is_empty() {
            let mut sets = configured(context)?.into_values();
            let (first, mut others) = (sets.next(), sets);
            let first = first.ok_or_else(|| Failure::usage("no connection of the configuration has a policy"))?;
            return match others.all(|other| other.digest() == first.digest()) {
                true => Ok(first),
                false => Err(Failure::usage("the connections of the configuration have different policies")
                    .hint("name the files of one of them with --policy")),
            };
        }
        let texts = read(&self.files)?;
        parse(&texts).map(Arc::new).or_else(|problems| {
            say(&mut context.console, &problems)?;
            Err(Failure::said(Exit::Usage))
        })
    }
}

/// The policies of the configuration's connections, by the connections' names.
fn configured(context: &Context) -> Result<BTreeMap<String, Arc<PolicySet>>, Failure> {
    let policies = context.load()?.policies;
    if policies.is_empty() {
        let hint = "name a policy file, or give a connection one: policy = [\"app.yaml\"]";
        return Err(Failure::usage("no connection of the configuration has a policy").hint(hint));
    }
    Ok(policies.into_iter().map(|(name, set)| (name.to_string(), set)).collect())
}

/// What labels connections have: those of the configuration, where there is one, and those that are given instead.
struct Labels {
    configured: BTreeMap<String, BTreeMap<String, String>>,
    given: Vec<(String, String)>,
}

impl Labels {
    fn new(context: &Context, given: Vec<(String, String)>) -> Self {
        let connections = context.load().map(|config| config.connections).unwrap_or_default();
        let configured = connections.into_iter().map(|(name, connection)| (name.to_string(), connection.labels));
        Self { configured: configured.collect(), given }
    }

    fn of(&self, connection: &str) -> BTreeMap<String, String> {
        let mut labels = self.configured.get(connection).cloned().unwrap_or_default();
        labels.extend(self.given.iter().cloned());
        labels
    }
}

/// Names and contents of files.
fn read(files: &[PathBuf]) -> Result<Vec<(String, String)>, Failure> {
    let one = |file: &PathBuf| Ok((file.display().to_string(), content(file)?));
    files.iter().map(one).collect()
}

fn content(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file)
        .map_err(|error| Failure::usage(format_args!("cannot read {}: {error}", file.display())))
}

fn parse(texts: &[(String, String)]) -> Result<PolicySet, Vec<PolicyProblem>> {
    let files: Vec<PolicyFile<'_>> = texts.iter().map(|(name, text)| PolicyFile { name, text }).collect();
    PolicySet::parse(&files)
}

/// Says what is wrong with files, one problem a line.
fn say(console: &mut Console, problems: &[PolicyProblem]) -> Result<(), Failure> {
    if console.format() != Format::Table {
        return console.json_list(problems.iter().map(|problem| Ok::<_, Failure>(as_json(problem))));
    }
    for problem in problems {
        console.line(&single_line(&problem.to_string()))?;
    }
    let count = super::words::counted(problems.len(), "problem", "problems");
    Ok(console.line(&console.paint(Tone::Bad, &count))?)
}

fn as_json(problem: &PolicyProblem) -> Value {
    json!({
        "file": problem.file,
        "line": problem.line,
        "rule": problem.rule,
        "what": problem.what,
        "instead": problem.instead,
    })
}

/// `NAME=TEXT`.
fn pair(text: &str) -> Result<(String, String), &'static str> {
    let named = text.split_once('=').filter(|(name, _)| !name.is_empty());
    named.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or("write NAME=TEXT, such as env=prod")
}

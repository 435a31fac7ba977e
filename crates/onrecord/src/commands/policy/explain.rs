//! `onrecord policy explain`: what each rule says about one command.

use std::collections::BTreeMap;

use clap::Args;
use model::{Facts, IdentityName};
use policy::{Finding, PolicySet};
use serde_json::{Value, json};
use store::{CommandView, Reader};

use super::super::selection::Selection;
use super::super::source::{self, Named};
use super::super::words;
use super::asked::{self, Asked, Imagined, reasons, verdict};
use super::{Context, Labels, PolicyPlace, pair};
use crate::Failure;
use crate::cli::RecordPlace;
use crate::output::{Cell, Column, Console, Format, Table, Tone, lines, single_line};

/// Columns of a fact's name.
const NAME: usize = 14;

/// Arguments of `policy explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// A recorded command: SESSION.N, in full or by the end of the session's id
    #[arg(value_name = "COMMAND", required_unless_present = "sql", conflicts_with = "sql")]
    command: Option<String>,
    /// A statement that was never sent
    #[arg(long, requires = "identity", requires = "connection")]
    sql: Option<String>,
    /// Who would send it, such as agent:copilot-agent
    #[arg(long, value_name = "IDENTITY", conflicts_with = "command")]
    identity: Option<IdentityName>,
    /// A group that the sender would be in
    #[arg(long = "group", value_name = "GROUP", conflicts_with = "command")]
    groups: Vec<String>,
    /// Whom the sender would act for
    #[arg(long, value_name = "IDENTITY", conflicts_with = "command")]
    on_behalf_of: Option<IdentityName>,
    /// Over which connection
    #[arg(long, value_name = "NAME", conflicts_with = "command")]
    connection: Option<String>,
    /// A label of the connection
    #[arg(long = "label", value_name = "NAME=TEXT", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// To which database
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, conflicts_with = "command")]
    database: String,
    /// As which user of the resource
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, conflicts_with = "command")]
    role: String,
    /// When: 90s, 30m, 1h, 2d ago, a date or a time [default: now]
    #[arg(long = "at", value_name = "WHEN", value_parser = words::moment, conflicts_with = "command")]
    at_us: Option<i64>,
    #[command(flatten)]
    policy: PolicyPlace,
    #[command(flatten)]
    place: RecordPlace,
}

/// What the record says was decided.
struct Then {
    verdict: String,
    rules: Vec<String>,
}

impl Explain {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        let set = self.policy.set(context)?;
        let labels = Labels::new(context, self.labels.clone());
        match &self.command {
            Some(command) => {
                let reader = context.reader(&self.place)?;
                let (view, asked, then) = recorded(&reader, command, &labels)?;
                explain(&mut context.console, &set, Some(&view.id.to_string()), &asked, Some(&then))
            }
            None => explain(&mut context.console, &set, None, &self.imagined(&labels)?, None),
        }
    }

    fn imagined(&self, labels: &Labels) -> Result<Asked, Failure> {
        let (Some(sql), Some(identity), Some(connection)) = (&self.sql, &self.identity, &self.connection) else {
            return Err(Failure::usage("a statement needs --sql, --identity and --connection"));
        };
        Ok(Asked::from(Imagined {
            identity,
            groups: &self.groups,
            on_behalf_of: self.on_behalf_of.as_ref(),
            run: None,
            claims: &BTreeMap::new(),
            connection,
            labels: &labels.of(connection),
            database: &self.database,
            role: &self.role,
            sql,
            unix: self.at_us.unwrap_or_else(words::now_us).div_euclid(1_000_000),
        }))
    }
}

fn recorded(reader: &Reader, id: &str, labels: &Labels) -> Result<(CommandView, Asked, Then), Failure> {
    let Named::Command(id) = source::named(reader, id)? else {
        return Err(Failure::usage(format_args!("{id} is a session")).hint("name one of its commands, as SESSION.N"));
    };
    let view = source::command(reader, id)?;
    let selection = Selection { session: Some(id.session.to_string()), ..Selection::default() };
    let sessions = asked::sessions(&source::sessions(reader, &selection)?, labels);
    let asked = asked::recorded(&view, &sessions).map_err(|why| {
        Failure::new(format_args!("what {id} was cannot be put to rules: {}", why.as_str()))
            .hint("`onrecord show` says what the record has of it")
    })?;
    let then = Then { verdict: view.verdict.as_str().to_owned(), rules: view.rules.clone() };
    Ok((view, asked, then))
}

fn explain(
    console: &mut Console,
    set: &PolicySet,
    id: Option<&str>,
    asked: &Asked,
    then: Option<&Then>,
) -> Result<(), Failure> {
    let decision = asked.decide(set);
    let found: Vec<(&policy::Rule, Finding)> = asked.with(set, |input| set.explain(input).collect());
    if console.format() != Format::Table {
        let rules: Vec<Value> = found.iter().map(|(rule, finding)| rule_json(rule, finding)).collect();
        let value = json!({
            "command": id,
            "text": asked.text,
            "facts": facts_json(set, &asked.facts),
            "rules": rules,
            "default": set.default_ruling().as_str(),
            "verdict": decision.ruling().as_str(),
            "matched": decision.rules(),
            "decisive": decision.decisive(),
            "message": decision.message(),
            "error": decision.error(),
            "recorded": then.map(|then| json!({"verdict": then.verdict, "rules": then.rules})),
            "policy": set.digest().hex(),
        });
        return Ok(console.json(&value)?);
    }
    if let Some(id) = id {
        fact(console, "command", Tone::Plain, id)?;
    }
    let mut name = "text";
    for line in asked.text.as_deref().map(lines).into_iter().flatten() {
        fact(console, name, Tone::Strong, &line)?;
        name = "";
    }
    about(console, set, &asked.facts)?;
    console.line("")?;
    let mut table = Table::new([
        Column::text("RULE"),
        Column::text("THEN"),
        Column::text("RESULT"),
        Column::text("WHERE"),
        Column::flexible("WHEN"),
    ]);
    for (rule, finding) in &found {
        let (tone, result) = match finding {
            Finding::Matched => (Tone::Strong, "matched".to_owned()),
            Finding::NotMatched => (Tone::Faint, "not matched".to_owned()),
            Finding::Failed(why) => (Tone::Bad, format!("error: {why}")),
        };
        table.row([
            Cell::new(rule.id()),
            Cell::new(rule.then().as_str()),
            Cell::toned(tone, result),
            Cell::toned(Tone::Faint, format!("{}:{}", rule.file(), rule.line())),
            Cell::toned(Tone::Faint, rule.when().trim()),
        ]);
    }
    if !found.is_empty() {
        console.table(&table)?;
        console.line("")?;
    }
    let tone = if decision.ruling() == policy::Ruling::Allow { Tone::Good } else { Tone::Bad };
    fact(console, "verdict", tone, &verdict(&decision))?;
    if let Some(message) = decision.message() {
        fact(console, "message", Tone::Plain, message)?;
    }
    if let Some(then) = then {
        let rules = if then.rules.is_empty() { String::new() } else { format!(" by {}", then.rules.join(", ")) };
        fact(console, "recorded", Tone::Plain, &format!("{}{rules}", then.verdict))?;
    }
    fact(console, "policy", Tone::Faint, &set.digest().hex())
}

fn fact(console: &mut Console, name: &str, tone: Tone, value: &str) -> Result<(), Failure> {
    let name = console.paint(Tone::Faint, &format!("{name:NAME$}"));
    let value = console.paint(tone, &single_line(value));
    Ok(console.line(&format!("{name}{value}"))?)
}

fn about(console: &mut Console, set: &PolicySet, facts: &Facts) -> Result<(), Failure> {
    let words = |words: Vec<&str>| words.join(", ");
    fact(console, "operations", Tone::Plain, &words(facts.operations.iter().map(|word| word.as_str()).collect()))?;
    fact(console, "effects", Tone::Plain, &words(facts.effects.iter().map(|word| word.as_str()).collect()))?;
    for relation in &facts.relations {
        let schema = relation.schema.as_ref().map(|schema| format!("{schema}.")).unwrap_or_default();
        let access = words(relation.access.iter().map(|word| word.as_str()).collect());
        let labels = set.labels_of(facts, relation);
        let label = |label: &&str| {
            if labels.surely.contains(label) { (*label).to_owned() } else { format!("{label} (possibly)") }
        };
        let labels: Vec<String> = labels.possibly.iter().map(label).collect();
        let labels = if labels.is_empty() { String::new() } else { format!(" [{}]", labels.join(", ")) };
        fact(console, "relation", Tone::Plain, &format!("{schema}{}: {access}{labels}", relation.name))?;
    }
    if !facts.functions.is_empty() {
        fact(console, "functions", Tone::Plain, &facts.functions.join(", "))?;
    }
    fact(console, "has where", Tone::Plain, if facts.bounded { "yes" } else { "no" })?;
    match facts.opaque.as_slice() {
        [] => fact(console, "complete", Tone::Plain, "yes"),
        opaque => fact(console, "complete", Tone::Warning, &format!("no: {}", reasons(opaque))),
    }
}

fn rule_json(rule: &policy::Rule, finding: &Finding) -> Value {
    let (result, error) = match finding {
        Finding::Matched => ("matched", None),
        Finding::NotMatched => ("not_matched", None),
        Finding::Failed(why) => ("error", Some(why)),
    };
    json!({
        "id": rule.id(), "then": rule.then().as_str(), "result": result, "error": error,
        "file": rule.file(), "line": rule.line(), "when": rule.when(),
    })
}

fn facts_json(set: &PolicySet, facts: &Facts) -> Value {
    let relations: Vec<Value> = facts
        .relations
        .iter()
        .map(|relation| {
            let labels = set.labels_of(facts, relation);
            json!({
                "schema": relation.schema,
                "name": relation.name,
                "access": relation.access.iter().map(|word| word.as_str()).collect::<Vec<_>>(),
                "labels": {"surely": labels.surely, "possibly": labels.possibly},
            })
        })
        .collect();
    json!({
        "operation": facts.operation.as_str(),
        "operations": facts.operations.iter().map(|word| word.as_str()).collect::<Vec<_>>(),
        "effects": facts.effects.iter().map(|word| word.as_str()).collect::<Vec<_>>(),
        "complete": facts.complete(),
        "opaque": facts.opaque.iter().map(|word| word.as_str()).collect::<Vec<_>>(),
        "has_where": facts.bounded,
        "relations": relations,
        "functions": facts.functions,
        "fingerprint": facts.fingerprint.map(|fingerprint| fingerprint.hex()),
    })
}

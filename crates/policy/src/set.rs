//! All rules of a connection: read from their files, checked, and put to commands.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cel::common::ast::IdedExpr;
use cel::common::types::{CelBool, CelList, CelString};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::{Context, Env, ExecutionError, Value};
use model::{Digest, Facts, Opaque, Operation, Relation};
use sha2::{Digest as _, Sha256};

use crate::check::{self, Aim, PATTERN_PREFIX, SURE_LABELS, Uses};
use crate::decision::{Decision, Finding, Ruling, Voice};
use crate::expression;
use crate::file::{self, RULES_MAX, RawRule};
use crate::input::{Fields, Input, Moment};
use crate::labels::{self, LABELLED_MAX, LABELS_MAX, Labels};
use crate::problem::{Fault, PolicyProblem};
use crate::value::{Pattern, Shared, environment};
use crate::yaml::Style;

/// The longest text of a command that rules can look at, bytes. A rule that asks for a longer one fails, and the command
/// is denied.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// The most files of one set.
const FILES_MAX: usize = 64;
/// What all conditions of a set may cost together at most, steps of the engine.
const SET_COST_MAX: u64 = 4_000_000;

/// A policy file: its name is for messages only.
#[derive(Clone, Copy, Debug)]
pub struct PolicyFile<'a> {
    /// Its name.
    pub name: &'a str,
    /// What is in it.
    pub text: &'a str,
}

/// A rule of a set.
#[derive(Debug)]
pub struct Rule {
    id: String,
    then: Ruling,
    message: Option<String>,
    when: String,
    file: String,
    line: u32,
    tree: IdedExpr,
}

impl Rule {
    /// By which the record calls it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it wants when it matches.
    #[must_use]
    pub fn then(&self) -> Ruling {
        self.then
    }

    /// What it has to say to whoever sent the command.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Its condition, as it is written.
    #[must_use]
    pub fn when(&self) -> &str {
        &self.when
    }

    /// The file it is in.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line it begins on.
    #[must_use]
    pub fn line(&self) -> u32 {
        self.line
    }
}

/// What else than who, where and the facts decisions depend on. Where none of it counts, a decision can be remembered for
/// the same [`crate::Subject`], the same [`crate::Target`] and the same facts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Variation {
    /// On the text of the command.
    pub text: bool,
    /// On the time.
    pub time: bool,
    /// On the state of the session.
    pub session: bool,
}

/// The labels of a relation that a command names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationLabels<'a> {
    /// It has them, whatever schema is meant: what allows counts these.
    pub surely: Vec<&'a str>,
    /// Those, and what it has if the schema is one that is listed: what denies counts these.
    pub possibly: Vec<&'a str>,
}

/// All rules of a connection. It does not change; share it in an `Arc`.
pub struct PolicySet {
    rules: Vec<Rule>,
    default: Ruling,
    /// How far the policy's clocks are ahead of UTC, seconds.
    ahead: i64,
    /// Where names without a schema are looked up, if that is said.
    search_path: Option<Vec<String>>,
    labels: Labels,
    patterns: Vec<Pattern>,
    pattern_names: HashMap<String, usize>,
    env: Arc<Env>,
    uses: Uses,
    digest: Digest,
}

impl PolicySet {
    /// Reads the files of a connection. Without any, everything is denied.
    ///
    /// # Errors
    /// All that is wrong with them, in the order of the files.
    pub fn parse(files: &[PolicyFile<'_>]) -> Result<Self, Vec<PolicyProblem>> {
        let mut problems = Vec::new();
        let whole = |what: String, instead: &str| PolicyProblem {
            file: files.first().map(|file| file.name).unwrap_or_default().to_owned(),
            line: None,
            rule: None,
            what,
            instead: instead.to_owned(),
        };
        if files.len() > FILES_MAX {
            let what = format!("there are {} files, and {FILES_MAX} is the most", files.len());
            return Err(vec![whole(what, "fewer, larger files")]);
        }
        let mut env = match environment() {
            Ok(env) => env,
            Err(error) => {
                return Err(vec![whole(
                    format!("the engine does not start: {error}"),
                    "to those who made this program",
                )]);
            }
        };
        env.set_error_on_duplicate_map_keys(true);
        let mut gathered = Gathered::default();
        for given in files {
            let document = file::read(given.name, given.text, &mut problems);
            gathered.add(given.name, document, &mut problems);
        }
        let names: Vec<String> = gathered.labels.keys().cloned().collect();
        let mut compiler = Compiler { env: &env, labels: &names, patterns: Vec::new(), uses: Uses::default(), cost: 0 };
        let mut rules = Vec::new();
        for (file, raw) in gathered.rules.drain(..) {
            match compiler.rule(&file, raw) {
                Ok(rule) => rules.push(rule),
                Err(found) => problems.extend(found),
            }
        }
        if compiler.cost > SET_COST_MAX {
            let what = format!("all rules together may take {} steps, and {SET_COST_MAX} is the most", compiler.cost);
            problems.push(whole(what, "fewer rules that look through lists or at `cmd.text`"));
        }
        let Compiler { patterns, uses, .. } = compiler;
        if !problems.is_empty() {
            let place = |problem: &PolicyProblem| files.iter().position(|file| file.name == problem.file);
            problems.sort_by_key(|problem| (place(problem), problem.line));
            return Err(problems);
        }
        let default = gathered.default.map_or(Ruling::Deny, |(default, _)| default);
        let ahead = gathered.timezone.map_or(0, |(ahead, _)| ahead);
        let search_path = gathered.search_path.map(|(path, _)| path);
        let digest = digest(default, ahead, search_path.as_deref(), &gathered.labels, &rules);
        Ok(Self {
            default,
            ahead,
            search_path,
            labels: Labels::new(&gathered.labels),
            pattern_names: (0..patterns.len()).map(|index| (format!("{PATTERN_PREFIX}{index}"), index)).collect(),
            patterns,
            env: Arc::new(env),
            uses,
            rules,
            digest,
        })
    }

    /// SHA-256 of what decides: the default, the time zone, the search path, the labels with their names, and each rule's id, condition,
    /// verdict and message, in order. Names of files, comments, and how YAML is written do not count.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The rules, in the order of the files.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// What is decided where no rule matches.
    #[must_use]
    pub fn default_ruling(&self) -> Ruling {
        self.default
    }

    /// What else than who, where and the facts decisions depend on.
    #[must_use]
    pub fn varies_with(&self) -> Variation {
        Variation { text: self.uses.text || self.uses.argv, time: self.uses.time, session: self.uses.session }
    }

    /// The moment of this many seconds since 1970 (UTC), in the time zone of the rules.
    #[must_use]
    pub fn moment(&self, unix: i64) -> Moment {
        Moment::at(unix, self.ahead)
    }

    /// The labels of a relation that a command with these facts names.
    #[must_use]
    pub fn labels_of(&self, facts: &Facts, relation: &Relation) -> RelationLabels<'_> {
        // Once a session may have changed it, the policy's word on the search path is worth nothing.
        let changed = facts.opaque.contains(&Opaque::Settings);
        let path = self.search_path.as_deref().filter(|_| !changed);
        let labels::Found { surely, possibly } = self.labels.of(relation, path);
        let names = |indices: Vec<usize>| indices.into_iter().filter_map(|index| self.labels.name(index)).collect();
        RelationLabels { surely: names(surely), possibly: names(possibly) }
    }

    /// What the rules say about a command.
    #[must_use]
    pub fn decide(&self, input: &Input<'_>) -> Decision {
        let voices = |findings: Vec<Finding>| {
            let voice = |(rule, finding): (_, Finding)| {
                let rule: &Rule = rule;
                Voice { id: &rule.id, then: rule.then, message: rule.message.as_deref(), finding }
            };
            Decision::of(self.rules.iter().zip(findings).map(voice), self.default)
        };
        match self.findings(input) {
            Some(findings) => voices(findings),
            None => Decision::broken("the rules cannot be evaluated: the engine failed"),
        }
    }

    /// What each rule says about a command, in order.
    pub fn explain(&self, input: &Input<'_>) -> impl Iterator<Item = (&Rule, Finding)> {
        let findings = self.findings(input);
        self.rules.iter().enumerate().map(move |(index, rule)| {
            let finding = findings.as_ref().and_then(|findings| findings.get(index)).cloned();
            (rule, finding.unwrap_or_else(|| Finding::Failed("cannot be evaluated: the engine failed".to_owned())))
        })
    }

    /// None when the engine panicked: that is not to end a session, let alone to let a command pass.
    fn findings(&self, input: &Input<'_>) -> Option<Vec<Finding>> {
        catch_unwind(AssertUnwindSafe(|| {
            let variables = Variables::new(self, input);
            let mut context = Context::with_env(Arc::clone(&self.env));
            context.set_variable_resolver(&variables);
            self.rules.iter().map(|rule| evaluate(&rule.tree, &context)).collect()
        }))
        .ok()
    }
}

impl std::fmt::Debug for PolicySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<&str> = self.rules.iter().map(|rule| rule.id.as_str()).collect();
        f.debug_struct("PolicySet").field("rules", &ids).field("digest", &self.digest).finish_non_exhaustive()
    }
}

fn evaluate(tree: &IdedExpr, context: &Context<'_, '_>) -> Finding {
    match Value::resolve_val(tree, context) {
        Ok(value) => match value.downcast_ref::<CelBool>().map(|holds| *holds.inner()) {
            Some(true) => Finding::Matched,
            Some(false) => Finding::NotMatched,
            None => Finding::Failed("gives neither true nor false".to_owned()),
        },
        Err(error) => Finding::Failed(failure(error)),
    }
}

/// What a failed evaluation is called. Values are left out: they are the command's.
fn failure(error: ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(name) if name.as_str() == "text" => {
            format!("asks for `cmd.text`, which is not at hand: it is no UTF-8, or longer than {TEXT_BYTES_MAX} bytes")
        }
        ExecutionError::NoSuchKey(name) => format!("asks for {:?}, which is not there", name.as_str()),
        ExecutionError::IndexOutOfBounds(_) => "asks for more of a list than there is".to_owned(),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "divides by zero".to_owned(),
        ExecutionError::Overflow(..) => "reckons with numbers that are too large".to_owned(),
        ExecutionError::FunctionError { function, .. } => format!("calls {function}, which fails"),
        _ => "has parts that do not fit each other".to_owned(),
    }
}

/// The variables of one decision.
struct Variables<'a> {
    identity: &'a Shared<'static>,
    connection: &'a Shared<'static>,
    command: Option<Shared<'a>>,
    time: Option<Shared<'a>>,
    session: Option<Shared<'a>>,
    set: &'a PolicySet,
}

impl<'a> Variables<'a> {
    fn new(set: &'a PolicySet, input: &Input<'a>) -> Self {
        let uses = set.uses;
        Self {
            identity: &input.who.value,
            connection: &input.target.value,
            command: uses.command.then(|| command(set, input.facts, input.text)),
            time: uses.time.then(|| {
                let mut fields = Fields::with_capacity(2);
                fields.number("hour", u64::from(input.moment.hour));
                fields.borrowed("weekday", input.moment.weekday);
                fields.done()
            }),
            session: uses.session.then(|| {
                let mut fields = Fields::with_capacity(3);
                fields.number("age", input.session.age);
                fields.number("count", input.session.count);
                fields.borrowed("transaction", input.session.transaction.as_str());
                fields.done()
            }),
            set,
        }
    }
}

impl VariableResolver for Variables<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let value: &'b dyn Val = match variable {
            "identity" => self.identity,
            "conn" => self.connection,
            "cmd" => self.command.as_ref()?,
            "time" => self.time.as_ref()?,
            "session" => self.session.as_ref()?,
            name => self.set.patterns.get(*self.set.pattern_names.get(name)?)?,
        };
        Some(CowVal::Borrowed(value))
    }
}

/// `cmd`. Lists that are longer than facts may be are cut nowhere: whoever made them is wrong, and `complete` says so.
fn command<'a>(set: &'a PolicySet, facts: &'a Facts, text: Option<&'a str>) -> Shared<'a> {
    let mut fields = Fields::with_capacity(11);
    if let Some(text) = text.filter(|text| set.uses.text && text.len() <= TEXT_BYTES_MAX) {
        fields.borrowed("text", text);
    }
    fields.borrowed("operation", facts.operation.as_str());
    fields.words("operations", facts.operations.iter().map(|operation| operation.as_str()));
    fields.words("effects", facts.effects.iter().map(|effect| effect.as_str()));
    fields.value("complete", Box::new(CelBool::from(facts.complete())));
    fields.words("opaque", facts.opaque.iter().map(|reason| reason.as_str()));
    fields.value("has_where", Box::new(CelBool::from(facts.bounded)));
    fields.words("functions", facts.functions.iter().map(String::as_str));
    if let Some(fingerprint) = facts.fingerprint {
        fields.value("fingerprint", Box::new(CelString::from(fingerprint.hex())));
    }
    let argv = text.filter(|text| set.uses.argv && facts.operation == Operation::Exec && text.len() <= TEXT_BYTES_MAX);
    let argv = argv.and_then(wire::ssh::argv::argv).unwrap_or_default();
    fields.value(
        "argv",
        Box::new(CelList::from(
            argv.into_iter().map(|word| Box::new(CelString::from(word)) as Box<dyn Val>).collect::<Vec<_>>(),
        )),
    );
    let relations = facts.relations.iter().map(|relation| {
        let mut fields = Fields::with_capacity(5);
        if let Some(schema) = &relation.schema {
            fields.borrowed("schema", schema);
        }
        fields.borrowed("name", &relation.name);
        fields.words("access", relation.access.iter().map(|access| access.as_str()));
        let RelationLabels { surely, possibly } = set.labels_of(facts, relation);
        fields.words("labels", possibly.into_iter());
        fields.words(SURE_LABELS, surely.into_iter());
        Box::new(fields.done()) as Box<dyn Val + 'a>
    });
    fields.value("relations", Box::new(CelList::from(relations.collect::<Vec<_>>())));
    fields.done()
}

/// What the files of a set say together.
#[derive(Default)]
struct Gathered {
    default: Option<(Ruling, String)>,
    timezone: Option<(i64, String)>,
    search_path: Option<(Vec<String>, String)>,
    labels: BTreeMap<String, Vec<labels::Pattern>>,
    rules: Vec<(String, RawRule)>,
    ids: HashMap<String, (String, u32)>,
}

impl Gathered {
    fn add(&mut self, name: &str, document: file::Document, problems: &mut Vec<PolicyProblem>) {
        agree("default", &mut self.default, document.default, name, problems);
        agree("timezone", &mut self.timezone, document.timezone, name, problems);
        agree("search_path", &mut self.search_path, document.search_path, name, problems);
        for (label, patterns) in document.labels {
            self.labels.entry(label).or_default().extend(patterns);
        }
        let names: usize = self.labels.values().map(Vec::len).sum();
        if self.labels.len() > LABELS_MAX || names > LABELLED_MAX {
            let what = format!("there are more than {LABELS_MAX} labels or {LABELLED_MAX} names under them");
            problems.push(Fault::new(what, "fewer labels, or `schema.*`").at(name, 1));
        }
        for raw in document.rules {
            if let Some((file, line)) = self.ids.get(&raw.id) {
                let fault = Fault::new(format!("the id is taken by the rule at {file}:{line}"), "another id");
                problems.push(PolicyProblem { rule: Some(raw.id), ..fault.at(name, raw.line) });
                continue;
            }
            self.ids.insert(raw.id.clone(), (name.to_owned(), raw.line));
            if self.rules.len() == RULES_MAX {
                let fault = Fault::new(format!("the files have more than {RULES_MAX} rules"), "rules that say more");
                problems.push(fault.at(name, raw.line));
            }
            self.rules.push((name.to_owned(), raw));
        }
    }
}

/// Takes what one file says for all, which must be what another says, if another does.
fn agree<T: PartialEq>(
    key: &str,
    all: &mut Option<(T, String)>,
    said: Option<(T, u32)>,
    name: &str,
    problems: &mut Vec<PolicyProblem>,
) {
    let Some((value, line)) = said else { return };
    match all {
        Some((other, file)) if *other != value => {
            let what = format!("`{key}` is another than in {file}");
            let instead = format!("the same in both, or `{key}` in one file only");
            problems.push(Fault::new(what, instead).at(name, line));
        }
        _ => *all = Some((value, name.to_owned())),
    }
}

/// Turns written rules into rules.
struct Compiler<'a> {
    env: &'a Env,
    labels: &'a [String],
    patterns: Vec<Pattern>,
    uses: Uses,
    cost: u64,
}

impl Compiler<'_> {
    fn rule(&mut self, file: &str, raw: RawRule) -> Result<Rule, Vec<PolicyProblem>> {
        let first = raw.when_line;
        let problem = |line: u32, fault: Fault| PolicyProblem { rule: Some(raw.id.clone()), ..fault.at(file, line) };
        let mut tree = expression::parse(self.env, &raw.when).map_err(|(line, fault)| {
            let line =
                if raw.when_style == Style::Literal { first.saturating_add(line.saturating_sub(1)) } else { first };
            vec![problem(line, fault)]
        })?;
        let aim = match raw.then {
            Ruling::Allow => Aim::Permits,
            Ruling::Deny | Ruling::Hold => Aim::Restricts,
        };
        let checked = check::check(&mut tree, aim, self.labels, &mut self.patterns)
            .map_err(|faults| faults.into_iter().map(|fault| problem(first, fault)).collect::<Vec<_>>())?;
        self.cost = self.cost.saturating_add(checked.cost);
        self.uses = self.uses.with(checked.uses);
        let RawRule { id, line, when, then, message, .. } = raw;
        Ok(Rule { id, then, message, when, file: file.to_owned(), line, tree })
    }
}

/// The digest of what decides: every text with its length before it, so that no two sets have the same.
fn digest(
    default: Ruling,
    ahead: i64,
    search_path: Option<&[String]>,
    labels: &BTreeMap<String, Vec<labels::Pattern>>,
    rules: &[Rule],
) -> Digest {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(text.as_bytes());
    };
    add("onrecord policy 1");
    add(default.as_str());
    add(&ahead.to_string());
    let search_path = search_path.unwrap_or_default();
    add(&search_path.len().to_string());
    search_path.iter().for_each(|schema| add(schema));
    add(&labels.len().to_string());
    for (label, patterns) in labels {
        let mut patterns: Vec<String> = patterns.iter().map(labels::Pattern::canonical).collect();
        patterns.sort();
        patterns.dedup();
        add(label);
        add(&patterns.len().to_string());
        patterns.iter().for_each(|pattern| add(pattern));
    }
    for rule in rules {
        add(&rule.id);
        add(&rule.when);
        add(rule.then.as_str());
        add(if rule.message.is_some() { "message" } else { "" });
        add(rule.message.as_deref().unwrap_or_default());
    }
    Digest(hash.finalize().into())
}

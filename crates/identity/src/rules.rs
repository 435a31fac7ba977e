//! The operator's rules: the first one that matches says which identity a set of verified claims is.

use std::collections::HashMap;
use std::sync::Arc;

use cel::objects::{Key, Map};
use cel::{Context, Env, Value, extensions};
use model::{Digest, IdentityKind, IdentityName, Known, OnBehalfOf, Run};
use sha2::{Digest as _, Sha256};

use crate::refusal::{Refusal, shown};
use crate::settings::RuleSettings;
use crate::template::{Expression, Failure, Template};

/// The most groups that an identity may be given.
pub const GROUPS_MAX: usize = 64;
/// The longest group, in bytes.
const GROUP_BYTES_MAX: usize = 128;
/// The longest id of a run, in bytes.
const RUN_BYTES_MAX: usize = 256;
/// The most rules of one issuer.
const RULES_MAX: usize = 256;
/// The longest name of an issuer or a rule, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// What is wrong with an issuer's settings or rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A setting of the issuer.
    #[error("issuer {issuer}: `{setting}` {what}")]
    Issuer {
        /// The issuer's name.
        issuer: String,
        /// The setting.
        setting: &'static str,
        /// What is wrong.
        what: String,
    },
    /// A rule.
    #[error("issuer {issuer}, rule {rule}: `{field}` {what}")]
    Rule {
        /// The issuer's name.
        issuer: String,
        /// The rule's name.
        rule: String,
        /// Which part of the rule.
        field: &'static str,
        /// What is wrong.
        what: String,
    },
}

/// The compiled rules of one issuer.
pub(crate) struct Rules {
    issuer: String,
    env: Arc<Env>,
    rules: Vec<Rule>,
    digest: Digest,
}

struct Rule {
    name: String,
    when: Expression,
    identity: Template,
    groups: Vec<Template>,
    on_behalf_of: Option<Template>,
    run: Option<Template>,
    mentions_act: bool,
}

/// What a rule made of claims.
pub(crate) struct Mapped {
    pub(crate) name: IdentityName,
    pub(crate) groups: Vec<String>,
    pub(crate) on_behalf_of: Option<OnBehalfOf>,
    pub(crate) run: Option<Run>,
    /// `ISSUER/RULE`.
    pub(crate) rule: String,
}

impl Rules {
    /// Compiles the rules of an issuer. `settings` is what else of the issuer the digest covers.
    pub(crate) fn new(issuer: &str, settings: &str, rules: &[RuleSettings]) -> Result<Self, RuleError> {
        let fault = |setting, what: String| RuleError::Issuer { issuer: issuer.to_owned(), setting, what };
        if !is_name(issuer) {
            return Err(fault("name", format!("must be 1 to {NAME_BYTES_MAX} of a-z 0-9 - _ .")));
        }
        if rules.is_empty() {
            let what = "is missing: without a rule or a preset, nobody is let in by its tokens".to_owned();
            return Err(fault("rules", what));
        }
        if rules.len() > RULES_MAX {
            return Err(fault("rules", format!("has more than {RULES_MAX} rules")));
        }
        let mut env = Env::stdlib().with_optional_support(false);
        env.add_extension(extensions::strings).map_err(|error| fault("rules", error.to_string()))?;
        let mut compiled: Vec<Rule> = Vec::new();
        for rule in rules {
            if compiled.iter().any(|other| other.name == rule.name) {
                return Err(fault("rules", format!("has two rules {:?}", rule.name)));
            }
            compiled.push(Rule::new(issuer, &env, rule)?);
        }
        let digest = digest(issuer, settings, rules);
        Ok(Self { issuer: issuer.to_owned(), env: Arc::new(env), rules: compiled, digest })
    }

    /// SHA-256 of the settings and the rules: the same for the same text, in any run of any version that has this form.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// The short name of the issuer.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// What the first rule that matches makes of these claims.
    pub(crate) fn map(
        &self,
        claims: &serde_json::Map<String, serde_json::Value>,
        act: &[String],
    ) -> Result<Mapped, Refusal> {
        let mut context = Context::with_env(Arc::clone(&self.env));
        context.add_variable_from_value("claims", cel_map(claims));
        context.add_variable_from_value("issuer", self.issuer.as_str());
        context.add_variable_from_value("act", act.iter().map(|sub| Value::from(sub.as_str())).collect::<Vec<_>>());
        let mut passed_over = false;
        for rule in &self.rules {
            if !act.is_empty() && !rule.mentions_act {
                passed_over = true;
                continue;
            }
            match rule.when.holds(&context) {
                Ok(true) => return self.apply(rule, &context),
                Ok(false) | Err(Failure::Absent(_)) => {}
                Err(Failure::Other(what)) => return Err(self.fault(rule, "when", what)),
            }
        }
        let hint = if passed_over {
            ": it was issued to someone who acts for another (`act`), and only rules that mention `act` are for such"
        } else {
            ""
        };
        Err(Refusal::Unmapped { issuer: self.issuer.clone(), hint })
    }

    fn apply(&self, rule: &Rule, context: &Context<'_, '_>) -> Result<Mapped, Refusal> {
        let name = self.identity(rule, "identity", &rule.identity, context)?;
        let on_behalf_of = match &rule.on_behalf_of {
            None => None,
            Some(template) => {
                let name = self.identity(rule, "on_behalf_of", template, context)?;
                Some(OnBehalfOf { name, known: Known::Verified })
            }
        };
        let run = match rule.run.as_ref().map(|template| template.text(context)) {
            None | Some(Err(Failure::Absent(_))) => None,
            Some(Err(Failure::Other(what))) => return Err(self.fault(rule, "run", what)),
            Some(Ok(id)) if is_plain(&id, RUN_BYTES_MAX) => Some(Run { id, known: Known::Verified }),
            Some(Ok(id)) => return Err(self.fault(rule, "run", not_plain(&id, RUN_BYTES_MAX))),
        };
        let groups = self.groups(rule, context)?;
        Ok(Mapped { name, groups, on_behalf_of, run, rule: format!("{}/{}", self.issuer, rule.name) })
    }

    fn identity(
        &self,
        rule: &Rule,
        field: &'static str,
        template: &Template,
        context: &Context<'_, '_>,
    ) -> Result<IdentityName, Refusal> {
        let text = template.text(context).map_err(|failure| match failure {
            Failure::Absent(what) | Failure::Other(what) => self.fault(rule, field, what),
        })?;
        text.parse().map_err(|error| self.fault(rule, field, format!("gives {}: {error}", shown(&text))))
    }

    fn groups(&self, rule: &Rule, context: &Context<'_, '_>) -> Result<Vec<String>, Refusal> {
        let mut groups = Vec::new();
        for template in &rule.groups {
            match template.texts(context) {
                Ok(texts) => groups.extend(texts),
                Err(Failure::Absent(_)) => {}
                Err(Failure::Other(what)) => return Err(self.fault(rule, "groups", what)),
            }
        }
        if let Some(group) = groups.iter().find(|group| !is_plain(group, GROUP_BYTES_MAX)) {
            return Err(self.fault(rule, "groups", not_plain(group, GROUP_BYTES_MAX)));
        }
        groups.sort();
        groups.dedup();
        if groups.len() > GROUPS_MAX {
            let what = format!(
                "gives {} groups, and {GROUPS_MAX} is the most; keep those that matter, as in \
                 {{claims.groups.filter(group, group.startsWith(\"db-\"))}}",
                groups.len()
            );
            return Err(self.fault(rule, "groups", what));
        }
        Ok(groups)
    }

    fn fault(&self, rule: &Rule, field: &'static str, what: String) -> Refusal {
        Refusal::Rule { issuer: self.issuer.clone(), rule: rule.name.clone(), field, what }
    }
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.rules.iter().map(|rule| rule.name.as_str()).collect();
        f.debug_struct("Rules").field("issuer", &self.issuer).field("rules", &names).finish_non_exhaustive()
    }
}

impl Rule {
    fn new(issuer: &str, env: &Env, settings: &RuleSettings) -> Result<Self, RuleError> {
        let fault = |field: &'static str| {
            let (issuer, rule) = (issuer.to_owned(), settings.name.clone());
            move |what: String| RuleError::Rule { issuer, rule, field, what }
        };
        if !is_name(&settings.name) {
            return Err(fault("name")(format!("must be 1 to {NAME_BYTES_MAX} of a-z 0-9 - _ .")));
        }
        let of_a_kind = |field: &'static str, source: &str| {
            let template = Template::new(env, source).map_err(fault(field))?;
            let kind = template.prefix().split_once(':').and_then(|(kind, _)| IdentityKind::parse(kind));
            match kind {
                Some(_) => Ok(template),
                None => Err(fault(field)("must start with agent:, human: or service:, as plain text".to_owned())),
            }
        };
        let when = Expression::new(env, &settings.when).map_err(fault("when"))?;
        let identity = of_a_kind("identity", &settings.identity)?;
        let on_behalf_of = settings.on_behalf_of.as_deref().map(|text| of_a_kind("on_behalf_of", text)).transpose()?;
        let run = settings.run.as_deref().map(|text| Template::new(env, text)).transpose().map_err(fault("run"))?;
        let groups: Result<Vec<_>, _> = settings.groups.iter().map(|text| Template::new(env, text)).collect();
        let groups = groups.map_err(fault("groups"))?;
        if identity.mentions_act() && on_behalf_of.is_none() {
            let what =
                "is missing: whoever acts by `act` acts for someone, as in on_behalf_of = \"human:{claims.sub}\"";
            return Err(fault("on_behalf_of")(what.to_owned()));
        }
        let mentions_act = when.mentions_act() || identity.mentions_act();
        Ok(Self { name: settings.name.clone(), when, identity, groups, on_behalf_of, run, mentions_act })
    }
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

/// Whether this is text that a table can show: not empty, not long, without control characters.
fn is_plain(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn not_plain(text: &str, bytes_max: usize) -> String {
    format!("gives {}: it must be 1 to {bytes_max} bytes without control characters", shown(text))
}

/// The digest of what decides: every text with its length before it, so that no two sets of rules have the same.
fn digest(issuer: &str, settings: &str, rules: &[RuleSettings]) -> Digest {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update(text.len().to_string());
        hash.update([b':']);
        hash.update(text);
    };
    add("onrecord rules 1");
    add(issuer);
    add(settings);
    for rule in rules {
        add(&rule.name);
        add(&rule.when);
        add(&rule.identity);
        add(&rule.groups.len().to_string());
        rule.groups.iter().for_each(|group| add(group));
        // No template is empty, so an empty text stands for none.
        add(rule.on_behalf_of.as_deref().unwrap_or_default());
        add(rule.run.as_deref().unwrap_or_default());
    }
    Digest(hash.finalize().into())
}

fn cel_map(object: &serde_json::Map<String, serde_json::Value>) -> Value {
    let map: HashMap<Key, Value> =
        object.iter().map(|(name, value)| (Key::from(name.as_str()), cel_value(value))).collect();
    Value::Map(Map { map: Arc::new(map) })
}

/// A value of JSON as CEL sees it: whole numbers are `int`, others `double`.
fn cel_value(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(flag) => Value::Bool(*flag),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::UInt(number),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(list) => Value::List(Arc::new(list.iter().map(cel_value).collect())),
        serde_json::Value::Object(object) => cel_map(object),
    }
}

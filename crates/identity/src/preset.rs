//! Rules for issuers that many have, on what does not change: ids rather than names that can be given to someone else.

use crate::rules::RuleError;
use crate::settings::RuleSettings;

/// An issuer of a well-known kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// GitHub Actions. Mapped on `repository_id` and `repository_owner_id`: the text of `sub` and all names change hands
    /// with a renamed repository or account.
    GithubActions,
    /// Service accounts of a Kubernetes cluster.
    Kubernetes,
    /// SPIFFE: a JWT-SVID, or a certificate by [`Preset::certificate_rules`]. The issuer must be set in the workload API
    /// (SPIRE: `jwt_issuer`), since a token is told by its `iss` here.
    Spiffe,
    /// Programs that got a token by client credentials (RFC 6749, section 4.4).
    ClientCredentials,
}

/// What the operator says for a preset. What a preset does not know is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PresetSettings {
    /// GitHub: ids of the owners whose repositories are let in.
    pub owner_ids: Vec<String>,
    /// GitHub: ids of single repositories that are let in.
    pub repository_ids: Vec<String>,
    /// Kubernetes: the namespaces whose service accounts are let in.
    pub namespaces: Vec<String>,
    /// SPIFFE: the trust domain, without `spiffe://`.
    pub trust_domain: Option<String>,
    /// Client credentials: the clients that are let in; empty for all of the issuer's.
    pub clients: Vec<String>,
    /// The groups that all of them are in.
    pub groups: Vec<String>,
}

/// The longest list of ids, and the longest id in bytes.
const LIST_MAX: usize = 256;
const ID_BYTES_MAX: usize = 128;

impl Preset {
    /// Every preset.
    pub const ALL: [Self; 4] = [Self::GithubActions, Self::Kubernetes, Self::Spiffe, Self::ClientCredentials];

    /// Its name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GithubActions => "github-actions",
            Self::Kubernetes => "kubernetes",
            Self::Spiffe => "spiffe",
            Self::ClientCredentials => "client-credentials",
        }
    }

    /// The preset with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.as_str() == name)
    }

    /// The `iss` of its tokens, if all have the same.
    #[must_use]
    pub const fn issuer(self) -> Option<&'static str> {
        match self {
            Self::GithubActions => Some("https://token.actions.githubusercontent.com"),
            _ => None,
        }
    }

    /// Claims worth keeping on the record, for when names have changed.
    #[must_use]
    pub fn kept_claims(self) -> Vec<String> {
        let names: &[&str] = match self {
            Self::GithubActions => &[
                "repository",
                "ref",
                "environment",
                "job_workflow_ref",
                "actor",
                "event_name",
                "run_id",
                "run_attempt",
            ],
            Self::Kubernetes => &["kubernetes.io"],
            Self::Spiffe => &[],
            Self::ClientCredentials => &["scope", "scp", "roles"],
        };
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// The rules for tokens of the issuer with this short name. The operator's own rules come before them.
    ///
    /// # Errors
    /// A setting is missing, has a wrong form, or is of another preset.
    pub fn rules(self, issuer: &str, settings: &PresetSettings) -> Result<Vec<RuleSettings>, RuleError> {
        self.check(issuer, settings)?;
        let mut rules = match self {
            Self::GithubActions => github(settings),
            Self::Kubernetes => kubernetes(settings),
            Self::Spiffe => vec![spiffe(settings, "claims.sub")],
            Self::ClientCredentials => client_credentials(settings),
        };
        rules.iter_mut().for_each(|rule| rule.groups.extend(settings.groups.iter().map(|group| literal(group))));
        Ok(rules)
    }

    /// The rules for client certificates, of the presets that have any: SPIFFE.
    ///
    /// # Errors
    /// As [`Preset::rules`]; and the preset has none.
    pub fn certificate_rules(self, issuer: &str, settings: &PresetSettings) -> Result<Vec<RuleSettings>, RuleError> {
        self.check(issuer, settings)?;
        if self != Self::Spiffe {
            return Err(fault(issuer, "preset", "is for tokens; for certificates there is \"spiffe\""));
        }
        let mut rule = spiffe(settings, "claims.uris[0]");
        // An X.509-SVID has exactly one URI.
        rule.when = format!("size(claims.uris) == 1 && {}", rule.when);
        rule.groups.extend(settings.groups.iter().map(|group| literal(group)));
        Ok(vec![rule])
    }

    fn check(self, issuer: &str, settings: &PresetSettings) -> Result<(), RuleError> {
        let digits = |id: &String| !id.is_empty() && id.len() <= 20 && id.bytes().all(|byte| byte.is_ascii_digit());
        let label = |name: &String| {
            let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            (1..=63).contains(&name.len()) && name.bytes().all(allowed)
        };
        let domain = |name: &String| {
            let allowed =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.');
            (1..=ID_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed)
        };
        let plain = |name: &String| (1..=ID_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
        let trust_domain: Vec<String> = settings.trust_domain.iter().cloned().collect();
        type Check<'c> = (&'static str, &'c [String], Preset, &'c dyn Fn(&String) -> bool, &'static str);
        let lists: [Check<'_>; 5] = [
            (
                "owner_ids",
                &settings.owner_ids,
                Self::GithubActions,
                &digits,
                "must be numbers: `gh api users/OWNER -q .id` tells one",
            ),
            (
                "repository_ids",
                &settings.repository_ids,
                Self::GithubActions,
                &digits,
                "must be numbers: `gh api repos/OWNER/NAME -q .id` tells one",
            ),
            ("namespaces", &settings.namespaces, Self::Kubernetes, &label, "must be names of namespaces: a-z 0-9 -"),
            (
                "trust_domain",
                &trust_domain,
                Self::Spiffe,
                &domain,
                "must be a trust domain without spiffe://, such as prod.example.org",
            ),
            ("clients", &settings.clients, Self::ClientCredentials, &plain, "must be ids of clients"),
        ];
        for (setting, list, preset, form, what) in lists {
            if !list.is_empty() && self != preset {
                return Err(fault(issuer, setting, &format!("is for the preset {}", preset.as_str())));
            }
            if !list.iter().all(form) {
                return Err(fault(issuer, setting, what));
            }
            if list.len() > LIST_MAX {
                return Err(fault(issuer, setting, &format!("has more than {LIST_MAX} members")));
            }
        }
        match self {
            Self::GithubActions if settings.owner_ids.is_empty() && settings.repository_ids.is_empty() => {
                let what = "or `repository_ids` must say whose tokens are let in: anyone on GitHub can get one";
                Err(fault(issuer, "owner_ids", what))
            }
            Self::Kubernetes if settings.namespaces.is_empty() => Err(fault(
                issuer,
                "namespaces",
                "must say whose service accounts are let in: every pod can get a token",
            )),
            Self::Spiffe if settings.trust_domain.is_none() => Err(fault(issuer, "trust_domain", "must be given")),
            _ => Ok(()),
        }
    }
}

/// Jobs of a repository. Those of Copilot run in the environment `copilot`, which anyone who may write to the repository
/// can name too: who it acts for is then as good as the repository's protection.
fn github(settings: &PresetSettings) -> Vec<RuleSettings> {
    let whose = format!(
        "(claims.repository_owner_id in {} || claims.repository_id in {})",
        list(&settings.owner_ids),
        list(&settings.repository_ids)
    );
    let rule = |name: &str, when: String, identity: &str| RuleSettings {
        on_behalf_of: Some("human:github.{claims.actor_id}".to_owned()),
        run: Some("github:{claims.run_id}.{claims.run_attempt}".to_owned()),
        ..RuleSettings::new(name, &when, identity)
    };
    vec![
        rule(
            "copilot",
            format!("{whose} && claims.environment == \"copilot\""),
            "agent:copilot.{claims.repository_id}",
        ),
        rule("workflow", whose, "service:github.{claims.repository_id}"),
    ]
}

/// Pods, by their service account. The name of an account can be given again after it was deleted; its `uid` is kept on
/// the record, and the pod's is the run.
fn kubernetes(settings: &PresetSettings) -> Vec<RuleSettings> {
    let namespace = "claims[\"kubernetes.io\"].namespace";
    let account = "claims[\"kubernetes.io\"].serviceaccount.name";
    let when = format!(
        "{namespace} in {} && claims.sub == \"system:serviceaccount:\" + {namespace} + \":\" + {account}",
        list(&settings.namespaces)
    );
    let identity = format!("service:{{issuer}}/{{{namespace}}}/{{{account}}}");
    let run = "pod:{claims[\"kubernetes.io\"].pod.uid}".to_owned();
    vec![RuleSettings { run: Some(run), ..RuleSettings::new("service-account", &when, &identity) }]
}

/// Workloads, by the path of their SPIFFE id.
fn spiffe(settings: &PresetSettings, id: &str) -> RuleSettings {
    let domain = settings.trust_domain.as_deref().unwrap_or_default();
    let when = format!("{id}.startsWith({})", quoted(&format!("spiffe://{domain}/")));
    RuleSettings::new("workload", &when, &format!("service:{{{id}.substring(9)}}"))
}

/// Programs, by their client id. A token that a person got by the same client has that id too, so each form says how it
/// tells them apart: by a subject that is the client (RFC 9068), by `idtyp` (Entra ID), by `gty` (Auth0).
fn client_credentials(settings: &PresetSettings) -> Vec<RuleSettings> {
    let rule = |name: &str, client: &str, proof: &str| {
        let mut when = proof.to_owned();
        if !settings.clients.is_empty() {
            when = format!("{client} in {} && {when}", list(&settings.clients));
        }
        RuleSettings::new(name, &when, &format!("service:{{{client}}}"))
    };
    vec![
        rule("client", "claims.client_id", "claims.sub == claims.client_id"),
        rule("authorized-party", "claims.azp", "claims.sub == claims.azp"),
        rule("application", "claims.azp", "claims.idtyp == \"app\""),
        rule(
            "machine",
            "claims.azp",
            "claims.gty == \"client-credentials\" && claims.sub == claims.azp + \"@clients\"",
        ),
    ]
}

/// A list of texts in CEL.
fn list(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", texts.join(", "))
}

/// A text in CEL. Control characters were refused before.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A template that gives this very text.
fn literal(text: &str) -> String {
    if text.contains(['{', '}']) { format!("{{{}}}", quoted(text)) } else { text.to_owned() }
}

fn fault(issuer: &str, setting: &'static str, what: &str) -> RuleError {
    RuleError::Issuer { issuer: issuer.to_owned(), setting, what: what.to_owned() }
}

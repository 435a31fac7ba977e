//! Who is trusted to say who somebody is: issuers of tokens, and the authority of client certificates.

use std::time::Duration;

use identity::{IssuerSettings, LEEWAY_DEFAULT, Preset, PresetSettings, RuleError, RuleSettings};
use serde::{Deserialize, Deserializer};

use super::value::{SecretSource, WebUrl};

/// `[issuers.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// Exactly what its tokens have as `iss`; that of the preset unless given.
    issuer: Option<String>,
    /// What its tokens must have as `aud`: one of these.
    #[serde(deserialize_with = "one_or_many")]
    pub audience: Vec<String>,
    /// The algorithms that it may sign by.
    #[serde(default)]
    algorithms: Vec<String>,
    /// Where its keys are; found by discovery unless given.
    pub jwks: Option<KeysPlace>,
    /// The authority of its server's certificate; the system's unless given.
    pub ca: Option<SecretSource>,
    /// The longest time from `iat` to `exp`.
    token_seconds_max: Option<u32>,
    /// How far the clocks may differ.
    leeway_seconds: Option<u32>,
    /// Claims that are kept on the record beside those that always are.
    #[serde(default)]
    keep_claims: Vec<String>,
    /// Rules for an issuer that many have; they come after the own ones.
    #[serde(default, deserialize_with = "preset")]
    preset: Option<Preset>,
    /// For `github-actions`: the owners whose repositories are let in.
    #[serde(default)]
    owner_ids: Vec<String>,
    /// For `github-actions`: single repositories that are let in.
    #[serde(default)]
    repository_ids: Vec<String>,
    /// For `kubernetes`: the namespaces whose service accounts are let in.
    #[serde(default)]
    namespaces: Vec<String>,
    /// For `spiffe`: the trust domain.
    trust_domain: Option<String>,
    /// For `client-credentials`: the clients that are let in.
    #[serde(default)]
    clients: Vec<String>,
    /// The groups that all of them are in.
    #[serde(default)]
    groups: Vec<String>,
    /// What makes identities of its tokens.
    #[serde(default)]
    rules: Vec<Rule>,
    /// How people log in with it.
    pub login: Option<LoginWay>,
}

/// `[certificates]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificates {
    /// The authority of the clients' certificates, PEM.
    pub ca: SecretSource,
    /// For certificates of SPIFFE: the trust domain.
    trust_domain: Option<String>,
    /// The groups that all of them are in.
    #[serde(default)]
    groups: Vec<String>,
    /// What makes identities of them.
    #[serde(default)]
    rules: Vec<Rule>,
}

/// `[[issuers.NAME.rules]]`: the first that matches counts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// Its name, which the record keeps.
    name: String,
    /// For which tokens it is: CEL.
    when: String,
    /// Whom they prove: a template.
    identity: String,
    /// Its groups: templates.
    #[serde(default)]
    groups: Vec<String>,
    /// For whom they act: a template.
    on_behalf_of: Option<String>,
    /// Which run it is: a template.
    run: Option<String>,
}

/// `[issuers.NAME.login]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginWay {
    /// The client that the issuer knows `onrecord login` as.
    pub client_id: String,
    /// What is asked for.
    #[serde(default = "scope")]
    pub scope: String,
    /// RFC 8707: for whom the access token is to be.
    pub resource: Option<String>,
    /// Which of the issuer's tokens proves who one is.
    #[serde(default)]
    pub token: LoginToken,
}

/// Which of an issuer's tokens proves who one is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginToken {
    /// The one about the person.
    #[default]
    IdToken,
    /// The one for a resource; it must be a JWT.
    AccessToken,
}

/// Where the keys of an issuer are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum KeysPlace {
    /// At this URL.
    Url(WebUrl),
    /// In this file.
    File(SecretSource),
}

impl LoginToken {
    /// As the API says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IdToken => "id_token",
            Self::AccessToken => "access_token",
        }
    }
}

impl TryFrom<String> for KeysPlace {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.starts_with("file:") {
            return SecretSource::try_from(text).map(Self::File).map_err(|error| error.to_string());
        }
        WebUrl::try_from(text).map(Self::Url).map_err(|error| error.to_string())
    }
}

impl Issuer {
    /// Exactly what its tokens have as `iss`.
    pub fn issuer(&self) -> &str {
        let preset = self.preset.and_then(Preset::issuer);
        self.issuer.as_deref().or(preset).unwrap_or_default()
    }

    /// What is wrong with how people log in with it, if anything is.
    pub fn login_fault(&self) -> Option<String> {
        let login = self.login.as_ref()?;
        let meant = login.token == LoginToken::AccessToken || self.audience.contains(&login.client_id);
        (!meant)
            .then(|| format!("an ID token is meant for its client, and `audience` does not have {:?}", login.client_id))
    }

    /// The issuer with its rules compiled.
    ///
    /// # Errors
    /// A setting or a rule is wrong; the text names it and says what to write.
    pub fn build(&self, name: &str) -> Result<identity::Issuer, RuleError> {
        let kept = self.preset.map(Preset::kept_claims).unwrap_or_default();
        let settings = IssuerSettings {
            algorithms: self.algorithms.clone(),
            token_max: self.token_seconds_max.map(|seconds| Duration::from_secs(seconds.into())),
            leeway: self.leeway_seconds.map_or(LEEWAY_DEFAULT, |seconds| Duration::from_secs(seconds.into())),
            kept_claims: kept.into_iter().chain(self.keep_claims.iter().cloned()).collect(),
            audiences: self.audience.clone(),
            ..IssuerSettings::new(name, self.issuer(), &[])
        };
        let preset = match self.preset {
            Some(preset) => preset.rules(name, &self.of_preset())?,
            None => Vec::new(),
        };
        let rules: Vec<_> = own(&self.rules, &self.groups).chain(preset).collect();
        identity::Issuer::new(settings, &rules)
    }

    fn of_preset(&self) -> PresetSettings {
        PresetSettings {
            owner_ids: self.owner_ids.clone(),
            repository_ids: self.repository_ids.clone(),
            namespaces: self.namespaces.clone(),
            trust_domain: self.trust_domain.clone(),
            clients: self.clients.clone(),
            groups: self.groups.clone(),
        }
    }
}

impl Certificates {
    /// The rules, compiled.
    ///
    /// # Errors
    /// As [`Issuer::build`].
    pub fn build(&self) -> Result<identity::Certificates, RuleError> {
        let name = "certificates";
        let (trust_domain, groups) = (self.trust_domain.clone(), self.groups.clone());
        let preset = match trust_domain {
            Some(_) => Preset::Spiffe
                .certificate_rules(name, &PresetSettings { trust_domain, groups, ..Default::default() })?,
            None => Vec::new(),
        };
        let rules: Vec<_> = own(&self.rules, &self.groups).chain(preset).collect();
        identity::Certificates::new(name, &rules)
    }
}

/// The own rules, each with the groups that all are in beside its own.
fn own<'a>(rules: &'a [Rule], all: &'a [String]) -> impl Iterator<Item = RuleSettings> + 'a {
    rules.iter().map(move |rule| RuleSettings {
        name: rule.name.clone(),
        when: rule.when.clone(),
        identity: rule.identity.clone(),
        groups: rule.groups.iter().chain(all).cloned().collect(),
        on_behalf_of: rule.on_behalf_of.clone(),
        run: rule.run.clone(),
    })
}

fn scope() -> String {
    "openid".to_owned()
}

fn preset<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Preset>, D::Error> {
    let name = String::deserialize(deserializer)?;
    let known = || Preset::ALL.map(Preset::as_str).join(", ");
    let preset = Preset::parse(&name);
    preset.map(Some).ok_or_else(|| {
        serde::de::Error::custom(format_args!("{name:?} is not known here\nhint: write one of {}", known()))
    })
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a text, or a list of texts")]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}

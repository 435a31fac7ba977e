//! What an operator says about an issuer and about rules. Plain data; [`crate::Issuer::new`] checks it.

use std::time::Duration;

/// The algorithms that can be allowed: RSA and elliptic curves. There is no symmetric one, and no `none`.
pub const ALGORITHMS: [&str; 10] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA", "Ed25519"];

/// The algorithms that are allowed unless the operator says otherwise.
pub const ALGORITHMS_DEFAULT: [&str; 5] = ["RS256", "PS256", "ES256", "EdDSA", "Ed25519"];

/// How far the clocks of an issuer and of the gateway may differ unless the operator says otherwise.
pub const LEEWAY_DEFAULT: Duration = Duration::from_secs(30);

/// One trusted issuer, as the operator describes it.
#[derive(Clone, Debug)]
pub struct IssuerSettings {
    /// Its short name here: 1 to 64 of `a-z 0-9 - _ .`.
    pub name: String,
    /// Exactly what its tokens have as `iss`.
    pub issuer: String,
    /// What its tokens must have as `aud`: one of these.
    pub audiences: Vec<String>,
    /// The algorithms that it may sign by, of [`ALGORITHMS`]; empty for [`ALGORITHMS_DEFAULT`].
    pub algorithms: Vec<String>,
    /// The longest time from `iat` to `exp`; none for any.
    pub token_max: Option<Duration>,
    /// How far the clocks may differ.
    pub leeway: Duration,
    /// Claims that are kept on the record beside those that always are, by name.
    pub kept_claims: Vec<String>,
}

impl IssuerSettings {
    /// An issuer with the usual settings.
    #[must_use]
    pub fn new(name: &str, issuer: &str, audiences: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            issuer: issuer.to_owned(),
            audiences: audiences.iter().map(|audience| (*audience).to_owned()).collect(),
            algorithms: Vec::new(),
            token_max: None,
            leeway: LEEWAY_DEFAULT,
            kept_claims: Vec::new(),
        }
    }
}

/// One rule: for which tokens or certificates it is, and what it makes of them. The first rule that matches counts.
///
/// `when` is a CEL expression that gives true or false. The others are templates: text with CEL expressions in braces,
/// such as `agent:build.{claims.repository_id}`. Expressions know three names:
/// - `claims`: what the token or the certificate says, all of it verified.
/// - `issuer`: the issuer's short name.
/// - `act`: who acts, by the chain of RFC 8693: the `sub` of each `act`, the one who acts now first. Empty if the token's
///   subject acts for itself.
///
/// A rule that does not mention `act` is not tried for a token that has it: whoever acts for a person would else be
/// taken for that person. A rule whose `identity` comes from `act` says `on_behalf_of` too, as in
/// `identity = "agent:{act[0]}"`, `on_behalf_of = "human:{claims.sub}"`, `when = "size(act) == 1"`.
///
/// A claim that the token does not have makes `when` false, leaves out the group or the run that asks for it, and
/// refuses the token where `identity` or `on_behalf_of` asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSettings {
    /// Its name: 1 to 64 of `a-z 0-9 - _ .`.
    pub name: String,
    /// For which ones it is: CEL, true or false.
    pub when: String,
    /// Whom they prove. It starts with `agent:`, `human:` or `service:`.
    pub identity: String,
    /// The groups. A template that is one expression may give a list.
    pub groups: Vec<String>,
    /// For whom they act. It starts with `agent:`, `human:` or `service:`.
    pub on_behalf_of: Option<String>,
    /// Which run it is.
    pub run: Option<String>,
}

impl RuleSettings {
    /// A rule that gives an identity and nothing else.
    #[must_use]
    pub fn new(name: &str, when: &str, identity: &str) -> Self {
        Self {
            name: name.to_owned(),
            when: when.to_owned(),
            identity: identity.to_owned(),
            groups: Vec::new(),
            on_behalf_of: None,
            run: None,
        }
    }
}

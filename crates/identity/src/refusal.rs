//! Why a token or a certificate proves nothing: a clear text for whoever sent it, and a word for the record.

use model::RefusedReason;

use crate::token::TOKEN_BYTES_MAX;

/// How many characters of a value from outside a text shows.
const SHOWN_MAX: usize = 80;

/// Why a token or a certificate is refused. Each text completes "this is not accepted: "; it names what is wrong and never
/// holds a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is no token, or no certificate.
    #[error("it cannot be checked: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// It is longer than a token may be.
    #[error("it has {bytes} bytes; at most {TOKEN_BYTES_MAX} are read")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// It is signed by an algorithm that is not allowed.
    #[error("it is signed by {algorithm}, which is not allowed here; allowed are: {allowed}")]
    Algorithm {
        /// The algorithm.
        algorithm: String,
        /// Those that are allowed.
        allowed: String,
    },
    /// Its issuer is not trusted.
    #[error(
        "it was issued by {issuer}, which this gateway does not trust; compare its `iss` with the issuers in the configuration, character by character"
    )]
    Issuer {
        /// Who issued it.
        issuer: String,
    },
    /// It is meant for someone else.
    #[error("it is meant for {audience}, not for this gateway; ask the issuer for one with the audience {expected}")]
    Audience {
        /// For whom.
        audience: String,
        /// For whom it should be.
        expected: String,
    },
    /// It does not hold any more.
    #[error("it expired {seconds_ago} s ago; get a new one")]
    Expired {
        /// Since when.
        seconds_ago: u64,
    },
    /// It does not hold yet.
    #[error("it holds only in {seconds} s (`{claim}`); compare the clocks of the issuer and of the gateway")]
    NotYetValid {
        /// When it will.
        seconds: u64,
        /// The claim that says so.
        claim: &'static str,
    },
    /// It is signed by a key that the issuer does not publish.
    #[error("it is signed by key {kid}, which issuer {issuer} does not publish")]
    UnknownKey {
        /// The issuer's name here.
        issuer: String,
        /// The issuer's name for the key.
        kid: String,
    },
    /// Its signature is wrong.
    #[error("its signature is wrong: it was changed, or someone else signed it")]
    Signature,
    /// It holds for longer than a token of this issuer may.
    #[error("it holds for {seconds} s; issuer {issuer} may hand out tokens of at most {max} s")]
    Lifetime {
        /// The issuer's name here.
        issuer: String,
        /// How long it holds.
        seconds: u64,
        /// How long it may.
        max: u64,
    },
    /// A claim is missing or has a wrong form.
    #[error("its claim `{claim}` {what}")]
    Claims {
        /// Which one.
        claim: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// No rule gives it an identity.
    #[error("it is genuine, but no rule of {issuer} gives it an identity{hint}")]
    Unmapped {
        /// The issuer's name here.
        issuer: String,
        /// What to look at.
        hint: &'static str,
    },
    /// A rule matched and could not be evaluated.
    #[error("it is genuine, but the rule {issuer}/{rule} cannot be applied: `{field}` {what}")]
    Rule {
        /// The issuer's name here.
        issuer: String,
        /// The rule.
        rule: String,
        /// Which part of the rule.
        field: &'static str,
        /// What is wrong.
        what: String,
    },
    /// The keys of its issuer are not to be had.
    #[error(
        "the keys of issuer {issuer} are not to be had at the moment; try again, or ask the operator of the gateway"
    )]
    Unreachable {
        /// The issuer's name here.
        issuer: String,
    },
}

impl Refusal {
    /// That of a token whose issuer is not among the trusted ones.
    #[must_use]
    pub fn untrusted(issuer: &str) -> Self {
        Self::Issuer { issuer: shown(issuer) }
    }

    /// The word that the record has for it.
    #[must_use]
    pub fn reason(&self) -> RefusedReason {
        match self {
            Self::Malformed { .. } => RefusedReason::TokenMalformed,
            Self::TooLong { .. } => RefusedReason::TokenTooLong,
            Self::Algorithm { .. } => RefusedReason::TokenAlgorithm,
            Self::Issuer { .. } => RefusedReason::TokenIssuer,
            Self::Audience { .. } => RefusedReason::TokenAudience,
            Self::Expired { .. } => RefusedReason::TokenExpired,
            Self::NotYetValid { .. } => RefusedReason::TokenNotYetValid,
            Self::UnknownKey { .. } => RefusedReason::TokenKey,
            Self::Signature => RefusedReason::TokenSignature,
            Self::Lifetime { .. } | Self::Claims { .. } => RefusedReason::TokenClaims,
            Self::Unmapped { .. } | Self::Rule { .. } => RefusedReason::TokenUnmapped,
            Self::Unreachable { .. } => RefusedReason::IssuerUnreachable,
        }
    }
}

/// A value from outside as a text shows it: quoted, without control characters, and not long.
pub(crate) fn shown(value: &str) -> String {
    let mut text: String = value.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
    if value.chars().nth(SHOWN_MAX).is_some() {
        text.push_str("...");
    }
    format!("\"{text}\"")
}

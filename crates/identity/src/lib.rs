//! Who a token or a client certificate says it is: is it genuine, is it meant for this gateway, does it hold now, and
//! which identity do the operator's rules give it.
//!
//! ```text
//! token -> peek (which issuer, which key) -> Issuer::verify: signature by a key of the issuer, then the claims, then
//!   the rules -> Proven
//! certificate (its chain already checked by TLS) -> Certificates::prove: the names, then the same rules -> Proven
//! ```
//!
//! Not for: fetching keys, remembering tokens, clocks. Keys and the time come as arguments, so that a decision can be
//! made again from what is on the record.
//!
//! Invariants: nothing of a token but its issuer's name is looked at before its signature is verified by a key that the
//! issuer publishes; the algorithm is one that the operator allows, and never a symmetric one; a name is what a rule
//! says or nothing: values that do not fit are refused, never mangled; the kind of an identity (agent, human, service)
//! is the rule's, never the token's.

mod certificate;
mod claims;
mod discovery;
pub mod fuzz;
mod json;
mod keys;
mod preset;
mod refusal;
mod rules;
mod settings;
mod template;
mod token;

pub use certificate::{CERTIFICATE_BYTES_MAX, Certificates};
pub use discovery::{DISCOVERY_BYTES_MAX, DiscoveryError, jwks_uri};
pub use keys::{JWKS_BYTES_MAX, KEYS_MAX, Key, KeySet, KeysError};
pub use preset::{Preset, PresetSettings};
pub use refusal::Refusal;
pub use rules::{GROUPS_MAX, RuleError};
pub use settings::{ALGORITHMS, ALGORITHMS_DEFAULT, IssuerSettings, LEEWAY_DEFAULT, RuleSettings};
pub use token::{Issuer, Peeked, TOKEN_BYTES_MAX, peek};

use model::{Evidence, IdentityName, OnBehalfOf, ProofMethod, Run};

/// An identity that a token or a certificate proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// Its name.
    pub name: IdentityName,
    /// The groups that the rule gives it.
    pub groups: Vec<String>,
    /// For whom it acts, if the rule says so.
    pub on_behalf_of: Option<OnBehalfOf>,
    /// Which run of it this is, if the rule says so.
    pub run: Option<Run>,
    /// How it was proven.
    pub method: ProofMethod,
    /// Names the credential, and reveals nothing of it: the same for each use of the same token or certificate.
    pub credential: String,
    /// What was checked.
    pub evidence: Evidence,
    /// Until when the proof holds, in seconds since 1970.
    pub not_after: u64,
}

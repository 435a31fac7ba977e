//! `[connections.NAME.approvals]`: who approves what the connection's policy holds, and how long that may take.

use std::time::Duration;

use model::{IdentityKind, IdentityName};
use policy::approvals::ApprovalRules;
use serde::Deserialize;

use super::check::LIST_ENTRIES_MAX;
use super::value;

/// The most people that can be asked for.
const QUORUM_MAX: u32 = 10;
/// How long a request can be open, seconds.
const EXPIRES_SECONDS: std::ops::RangeInclusive<u32> = 60..=86_400;
/// The longest that a client is kept waiting, seconds.
const WAIT_SECONDS_MAX: u32 = 3600;
/// The longest that a client is kept waiting with a transaction open, seconds.
const WAIT_IN_TRANSACTION_SECONDS_MAX: u32 = 600;

/// `[connections.NAME.approvals]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approvals {
    /// People who may decide.
    #[serde(default, deserialize_with = "value::identity_names")]
    pub approvers: Vec<IdentityName>,
    /// Groups whose people may decide.
    #[serde(default)]
    pub groups: Vec<String>,
    /// How many people must approve.
    #[serde(default = "default_quorum")]
    pub quorum: u32,
    /// Whether those who approve must sign with a passkey.
    #[serde(default)]
    pub signed: bool,
    /// How long a request can be decided and its approval be used, seconds.
    #[serde(default = "default_expires_seconds")]
    pub expires_seconds: u32,
    /// How long a client is kept waiting, seconds.
    #[serde(default = "default_wait_seconds")]
    pub wait_seconds: u32,
    /// As `wait_seconds`, of a client that has a transaction open.
    #[serde(default = "default_wait_in_transaction_seconds")]
    pub wait_in_transaction_seconds: u32,
}

impl Approvals {
    /// What policies are told.
    #[must_use]
    pub fn rules(&self) -> ApprovalRules {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        ApprovalRules {
            identities: self.approvers.iter().cloned().collect(),
            groups: self.groups.iter().cloned().collect(),
            quorum: self.quorum,
            signed: self.signed,
            expires: seconds(self.expires_seconds),
            wait: seconds(self.wait_seconds),
            wait_in_transaction: seconds(self.wait_in_transaction_seconds),
        }
    }

    /// Says what is wrong with it by itself: the key, what, and what to do about it.
    pub(super) fn check(&self, mut problem: impl FnMut(&str, String, &str)) {
        let rules = self.rules();
        if rules.identities.is_empty() && rules.groups.is_empty() {
            problem("", "nobody could approve".into(), WHO);
        }
        if self.approvers.len().max(self.groups.len()) > LIST_ENTRIES_MAX {
            problem("approvers", format!("more than {LIST_ENTRIES_MAX} entries"), "write a group that they are in");
        }
        for other in self.approvers.iter().filter(|name| name.kind() != IdentityKind::Human) {
            let what = format!("{other} is no person, and only people approve");
            problem("approvers", what, "write \"human:NAME\" of somebody who may decide");
        }
        let named = u32::try_from(rules.identities.len()).unwrap_or(u32::MAX);
        if !(1..=QUORUM_MAX).contains(&self.quorum) {
            problem("quorum", format!("{} people is out of range", self.quorum), "write 1 to 10");
        } else if rules.groups.is_empty() && named > 0 && self.quorum > named {
            let what = format!("{} must approve, and only {named} may", self.quorum);
            problem("quorum", what, "name more approvers, or a group of them, or ask for fewer");
        }
        let mut seconds = |key: &str, value: u32, range: std::ops::RangeInclusive<u32>, hint: &str| {
            if !range.contains(&value) {
                problem(key, format!("{value} seconds is out of range"), hint);
            }
        };
        seconds("expires_seconds", self.expires_seconds, EXPIRES_SECONDS, "write 60 (a minute) to 86400 (a day)");
        seconds("wait_seconds", self.wait_seconds, 0..=WAIT_SECONDS_MAX, "write 0 to 3600 (an hour)");
        seconds(
            "wait_in_transaction_seconds",
            self.wait_in_transaction_seconds,
            0..=WAIT_IN_TRANSACTION_SECONDS_MAX,
            "write 0 to 600 (ten minutes): a transaction that waits holds locks",
        );
    }
}

/// What to write where nobody could approve.
const WHO: &str = "write approvers = [\"human:NAME\"], or groups = [\"GROUP\"] for all people of a group";

fn default_quorum() -> u32 {
    1
}

fn default_expires_seconds() -> u32 {
    15 * 60
}

fn default_wait_seconds() -> u32 {
    10 * 60
}

fn default_wait_in_transaction_seconds() -> u32 {
    30
}

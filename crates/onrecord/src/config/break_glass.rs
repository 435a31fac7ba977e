//! `[connections.NAME.break_glass]`: who may run what is held without waiting for an approval, and who reviews that.

use std::time::Duration;

use model::{IdentityKind, IdentityName};
use policy::break_glass::GlassRules;
use serde::Deserialize;

use super::check::LIST_ENTRIES_MAX;
use super::{Approvals, value};

/// How long it may be open at most, minutes.
const MINUTES: std::ops::RangeInclusive<u32> = 1..=60;

/// `[connections.NAME.break_glass]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakGlass {
    /// People who may open it.
    #[serde(default, deserialize_with = "value::identity_names")]
    pub openers: Vec<IdentityName>,
    /// Groups whose people may open it.
    #[serde(default)]
    pub groups: Vec<String>,
    /// How long it may be open at most, minutes.
    #[serde(default = "default_minutes_max")]
    pub minutes_max: u32,
    /// People who may review it; who may approve on the connection, unless given here or as groups.
    #[serde(default, deserialize_with = "value::identity_names")]
    pub reviewers: Vec<IdentityName>,
    /// Groups whose people may review it.
    #[serde(default)]
    pub reviewer_groups: Vec<String>,
}

impl BreakGlass {
    /// What policies are told. `approvals` says who reviews where this does not.
    #[must_use]
    pub fn rules(&self, approvals: Option<&Approvals>) -> GlassRules {
        let own = !self.reviewers.is_empty() || !self.reviewer_groups.is_empty();
        let (reviewers, reviewer_groups) = match approvals.filter(|_| !own) {
            Some(approvals) => (&approvals.approvers, &approvals.groups),
            None => (&self.reviewers, &self.reviewer_groups),
        };
        GlassRules {
            openers: self.openers.iter().cloned().collect(),
            opener_groups: self.groups.iter().cloned().collect(),
            longest: Duration::from_secs(60 * u64::from(self.minutes_max)),
            reviewers: reviewers.iter().cloned().collect(),
            reviewer_groups: reviewer_groups.iter().cloned().collect(),
        }
    }

    /// Says what is wrong with it by itself: the key, what, and what to do about it.
    pub(super) fn check(&self, approvals: Option<&Approvals>, mut problem: impl FnMut(&str, String, &str)) {
        let rules = self.rules(approvals);
        if rules.openers.is_empty() && rules.opener_groups.is_empty() {
            let hint = "write openers = [\"human:NAME\"], or groups = [\"GROUP\"] for all people of a group";
            problem("", "nobody could open it".into(), hint);
        }
        if rules.reviewers.is_empty() && rules.reviewer_groups.is_empty() {
            let hint = "write reviewers = [\"human:NAME\"], or reviewer_groups = [\"GROUP\"], or who approves";
            problem("", "nobody could review it".into(), hint);
        } else if rules.reviewer_groups.is_empty() && rules.opener_groups.is_empty() {
            let alone = |opener: &&IdentityName| rules.reviewers.iter().all(|reviewer| reviewer == *opener);
            if let Some(opener) = rules.openers.iter().find(alone) {
                let what =
                    format!("nobody but {opener} could review what {opener} opens, and nobody reviews their own");
                problem("", what, "name another reviewer with reviewers = [\"human:NAME\"]");
            }
        }
        for (key, length) in [
            ("openers", self.openers.len()),
            ("groups", self.groups.len()),
            ("reviewers", self.reviewers.len()),
            ("reviewer_groups", self.reviewer_groups.len()),
        ] {
            if length > LIST_ENTRIES_MAX {
                problem(key, format!("more than {LIST_ENTRIES_MAX} entries"), "write a group that they are in");
            }
        }
        for (key, names) in [("openers", &self.openers), ("reviewers", &self.reviewers)] {
            for other in names.iter().filter(|name| name.kind() != IdentityKind::Human) {
                let what = format!("{other} is no person, and break-glass is for people");
                problem(key, what, "write \"human:NAME\"");
            }
        }
        if !MINUTES.contains(&self.minutes_max) {
            let what = format!("{} minutes is out of range", self.minutes_max);
            problem("minutes_max", what, "write 1 to 60: longer is no emergency");
        }
    }
}

fn default_minutes_max() -> u32 {
    *MINUTES.end()
}

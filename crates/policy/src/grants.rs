//! Who may use a connection, and the permits of those who may.

use std::borrow::Cow;
use std::collections::BTreeSet;

use model::IdentityName;

use crate::decision::{Decision, Ruling};

/// Who may use one connection. Nobody, unless named.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    identities: BTreeSet<IdentityName>,
    groups: BTreeSet<String>,
}

impl Grants {
    /// Grants for exactly these identities, and for whoever is in one of these groups.
    pub fn new(identities: impl IntoIterator<Item = IdentityName>, groups: impl IntoIterator<Item = String>) -> Self {
        Self { identities: identities.into_iter().collect(), groups: groups.into_iter().collect() }
    }

    /// The admission of an identity with the groups that it is proven to be in, or `None` when no rule names either.
    pub fn admit(&self, identity: &IdentityName, groups: &[String]) -> Option<Admission> {
        let named = self.identities.contains(identity) || groups.iter().any(|group| self.groups.contains(group));
        named.then_some(Admission(()))
    }

    /// The identities that are named, in order.
    pub fn identities(&self) -> impl Iterator<Item = &IdentityName> {
        self.identities.iter()
    }
}

/// Proof that an identity may use a connection. One per session.
#[derive(Debug)]
pub struct Admission(());

impl Admission {
    /// Decides one command of the admitted session by the built-in rules alone.
    pub fn decide(&self, request: &Request) -> Verdict {
        match request {
            Request::Statement | Request::FunctionCall { listed: Listed::Yes } => Verdict::Allow(Permit(())),
            Request::FunctionCall { listed: Listed::No } => {
                Verdict::Deny(Denial { rule: Cow::Borrowed("builtin:function-call") })
            }
        }
    }

    /// What a decision means for the command it was made for. It may be one that was remembered for the same input; what
    /// else than the facts must be the same says [`PolicySet::varies_with`].
    pub fn apply(&self, decision: &Decision, mode: Mode) -> Verdict {
        match (decision.ruling(), mode) {
            (Ruling::Allow, _) | (Ruling::Deny | Ruling::Hold, Mode::Observe) => Verdict::Allow(Permit(())),
            (ruling @ (Ruling::Deny | Ruling::Hold), Mode::Enforce) => {
                let rule = match (decision.decisive(), decision.error()) {
                    (Some(rule), _) => Cow::Owned(rule.to_owned()),
                    (None, Some(_)) => Cow::Borrowed("builtin:policy-error"),
                    (None, None) => Cow::Borrowed("builtin:default"),
                };
                match ruling {
                    Ruling::Hold => Verdict::Hold(Denial { rule }),
                    Ruling::Allow | Ruling::Deny => Verdict::Deny(Denial { rule }),
                }
            }
        }
    }
}

/// Whether a denied command is kept from running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is.
    Enforce,
    /// It runs; the decision says what was to be said.
    Observe,
}

/// What is asked for, as far as the built-in rules look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// A statement with its text on the record.
    Statement,
    /// A call of a function by its number, without a text that could be recorded.
    FunctionCall {
        /// Whether the number is one of the large-object functions.
        listed: Listed,
    },
}

/// Whether a function is on the list of functions that may be called by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// It is.
    Yes,
    /// It is not.
    No,
}

/// The decision on one command.
#[derive(Debug)]
pub enum Verdict {
    /// It may run.
    Allow(Permit),
    /// It must not run.
    Deny(Denial),
    /// It must not run unless people approve it: [`crate::approvals`].
    Hold(Denial),
}

/// Proof that a command may run. Consumed by no one, shown to the upstream.
///
/// It cannot be made up:
/// ```compile_fail
/// let forged = policy::Permit(());
/// ```
/// and not be copied:
/// ```compile_fail
/// fn twice(permit: policy::Permit) -> (policy::Permit, policy::Permit) { (permit.clone(), permit) }
/// ```
#[derive(Debug)]
pub struct Permit(pub(crate) ());

/// Why a command must not run, or not yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The rule that denied or held it: one of the connection's, or `builtin:` and a name.
    pub rule: Cow<'static, str>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_admitted_unless_named() {
        let copilot: IdentityName = "agent:copilot-agent".parse().unwrap();
        let other: IdentityName = "human:copilot-agent".parse().unwrap();
        assert!(Grants::default().admit(&copilot, &[]).is_none());
        let grants = Grants::new([copilot.clone()], ["agents".to_owned()]);
        assert!(grants.admit(&copilot, &[]).is_some());
        assert!(grants.admit(&other, &[]).is_none());
        assert!(grants.admit(&other, &["staff".to_owned()]).is_none());
        assert!(grants.admit(&other, &["staff".to_owned(), "agents".to_owned()]).is_some());
    }

    #[test]
    fn a_function_call_without_a_text_is_denied() {
        let name: IdentityName = "agent:a".parse().unwrap();
        let admission = Grants::new([name.clone()], []).admit(&name, &[]).unwrap();
        let request = Request::FunctionCall { listed: Listed::No };
        let Verdict::Deny(denial) = admission.decide(&request) else { panic!("denied") };
        assert_eq!(denial.rule, "builtin:function-call");
    }
}

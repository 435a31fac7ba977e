//! Rules to verdicts.
//!
//! What it is for: deciding whether an identity may use a connection and whether a command may run,
//! and minting the [`Permit`] that says so. What it is not for: asking anyone, waiting, reading
//! clocks or files; `now` and all facts are arguments.
//!
//! Invariant: a [`Permit`] exists only because a rule allowed that command. Its fields are private,
//! it cannot be cloned, and the gateway's upstream takes one for every command it forwards.

use std::collections::BTreeSet;

use model::IdentityName;

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
    /// Decides one command of the admitted session.
    pub fn decide(&self, request: &Request) -> Verdict {
        match request {
            Request::Statement => Verdict::Allow(Permit(())),
            Request::FunctionCall { listed: Listed::Yes } => Verdict::Allow(Permit(())),
            Request::FunctionCall { listed: Listed::No } => Verdict::Deny(Denial { rule: "builtin:function-call" }),
        }
    }
}

/// What is asked for, as far as this crate's rules look at it.
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
pub struct Permit(());

/// Why a command must not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denial {
    /// The rule that matched.
    pub rule: &'static str,
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
        assert!(matches!(admission.decide(&request), Verdict::Deny(Denial { rule: "builtin:function-call" })));
    }
}

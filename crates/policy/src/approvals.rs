//! Who may approve a held command, when enough have, and the one command that goes ahead for it.
//!
//! Pure: times and identities are arguments, and what is to be on the record is written by the caller, first.
//!
//! Invariants: one [`Grant`] at most comes out of a [`Case`]; only after as many different people as the connection asks
//! for have approved, nobody has denied, its time is not over, and the policy is the one that asked. Who sent the command,
//! the human for whom it was sent, agents and services never decide, whatever else they are.

use std::collections::BTreeSet;
use std::time::Duration;

use model::{ApprovalDecision, ApprovalEnd, Digest, Identity, IdentityKind, IdentityName, Known, Who};

use crate::Permit;

/// How commands of a connection are approved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalRules {
    /// People who may decide.
    pub identities: BTreeSet<IdentityName>,
    /// Groups whose people may decide.
    pub groups: BTreeSet<String>,
    /// How many people must approve; at least 1. One who denies is enough.
    pub quorum: u32,
    /// Whether those who approve must sign with a passkey. Denying needs no signature.
    pub signed: bool,
    /// How long a request can be decided and its approval be used.
    pub expires: Duration,
    /// How long a client is kept waiting.
    pub wait: Duration,
    /// As `wait`, of a client that has a transaction open, and with it locks.
    pub wait_in_transaction: Duration,
}

impl ApprovalRules {
    /// Whether somebody may decide what this requester asked for.
    ///
    /// # Errors
    /// They may not, for this reason.
    pub fn may_decide(&self, requester: &Who, by: &Identity) -> Result<(), NotAllowed> {
        if by.name.kind() != IdentityKind::Human || by.on_behalf_of.is_some() {
            return Err(NotAllowed::NoPerson);
        }
        if by.known != Known::Verified {
            return Err(NotAllowed::NotVerified);
        }
        if by.name == requester.name {
            return Err(NotAllowed::Requester);
        }
        if requester.on_behalf_of.as_ref().is_some_and(|whom| whom.name == by.name) {
            return Err(NotAllowed::Principal);
        }
        let named = self.identities.contains(&by.name) || by.groups.iter().any(|group| self.groups.contains(group));
        if named { Ok(()) } else { Err(NotAllowed::NotNamed) }
    }
}

/// Why somebody may not decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    /// Agents and services, and whoever acts for somebody else.
    #[error("only people decide, each for themselves: no agent, no service, nobody on behalf of another")]
    NoPerson,
    /// It is only claimed who they are.
    #[error("who decides must be proven, and here it is only claimed")]
    NotVerified,
    /// They sent it.
    #[error("whoever sent a command does not approve it, whatever else they may do")]
    Requester,
    /// It was sent for them.
    #[error("the command was sent on your behalf: somebody else must decide")]
    Principal,
    /// The connection names others.
    #[error("you are not among the approvers of the connection")]
    NotNamed,
}

/// Where a case stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// More people must approve.
    Waiting,
    /// Enough have; nobody has used it.
    Approved,
    /// Somebody has denied it.
    Denied,
    /// A command went ahead for it.
    Used,
    /// It can be used no more, and was not.
    Ended(ApprovalEnd),
}

/// A moment, by both clocks: neither one that stands still nor one that is set back makes an approval last longer.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Microseconds since 1970.
    pub wall_us: i64,
    /// How long ago the case was opened, by a clock that nobody sets.
    pub age: Duration,
}

/// A command that waits for people, and what they said.
#[derive(Debug)]
pub struct Case {
    requester: Who,
    rules: ApprovalRules,
    policy: Digest,
    /// The leaf hash of what is decided on.
    request: Digest,
    expires_us: i64,
    approved_by: BTreeSet<IdentityName>,
    standing: Standing,
}

/// Why a decision does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDecided {
    /// They may not decide.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// It is not what was asked for.
    #[error("what you decided on is not what is asked for: look at it again")]
    Changed,
    /// It is no longer open.
    #[error("it is no longer open")]
    NotOpen,
    /// They have approved before.
    #[error("you have approved it already; another person must too")]
    Again,
}

/// Why a command cannot go ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotUsable {
    /// It stands so.
    Stands(Standing),
    /// The policy is not the one that asked.
    Superseded,
}

/// Proof that a command may go ahead because people approved it.
#[derive(Debug)]
pub struct Grant(());

impl Grant {
    /// The permit of the command that was approved.
    #[must_use]
    pub fn into_permit(self) -> Permit {
        let Self(()) = self;
        Permit(())
    }
}

impl Case {
    /// A case of what this requester asked for, at leaf `request`, until `expires_us` (microseconds since 1970).
    #[must_use]
    pub fn new(requester: Who, rules: ApprovalRules, policy: Digest, request: Digest, expires_us: i64) -> Self {
        let approved_by = BTreeSet::new();
        Self { requester, rules, policy, request, expires_us, approved_by, standing: Standing::Waiting }
    }

    /// Who asked.
    #[must_use]
    pub fn requester(&self) -> &Who {
        &self.requester
    }

    /// How it is to be approved.
    #[must_use]
    pub fn rules(&self) -> &ApprovalRules {
        &self.rules
    }

    /// The leaf hash of what is decided on.
    #[must_use]
    pub fn request(&self) -> Digest {
        self.request
    }

    /// The policy that asked.
    #[must_use]
    pub fn policy(&self) -> Digest {
        self.policy
    }

    /// Until when it can be decided and used, microseconds since 1970.
    #[must_use]
    pub fn expires_us(&self) -> i64 {
        self.expires_us
    }

    /// How many people have approved.
    #[must_use]
    pub fn approvals(&self) -> usize {
        self.approved_by.len()
    }

    /// Where it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether it can still be decided or used.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.standing, Standing::Waiting | Standing::Approved)
    }

    /// Whether its time is over though it is still open. The caller writes that down, and ends it.
    #[must_use]
    pub fn is_overdue(&self, now: Now) -> bool {
        self.is_open() && (now.wall_us >= self.expires_us || now.age >= self.rules.expires)
    }

    /// Whether this decision would count now. The caller writes it down before [`Case::decide`].
    ///
    /// # Errors
    /// It would not.
    pub fn check(
        &self,
        by: &Identity,
        decision: ApprovalDecision,
        request: Digest,
        now: Now,
    ) -> Result<(), NotDecided> {
        self.rules.may_decide(&self.requester, by)?;
        if request != self.request {
            return Err(NotDecided::Changed);
        }
        // Somebody may still deny what enough others have approved, as long as it has not run.
        if !self.is_open()
            || self.is_overdue(now)
            || (self.standing, decision) == (Standing::Approved, ApprovalDecision::Approve)
        {
            return Err(NotDecided::NotOpen);
        }
        if decision == ApprovalDecision::Approve && self.approved_by.contains(&by.name) {
            return Err(NotDecided::Again);
        }
        Ok(())
    }

    /// Counts a decision.
    ///
    /// # Errors
    /// As [`Case::check`].
    pub fn decide(
        &mut self,
        by: &Identity,
        decision: ApprovalDecision,
        request: Digest,
        now: Now,
    ) -> Result<Standing, NotDecided> {
        self.check(by, decision, request, now)?;
        match decision {
            ApprovalDecision::Deny => self.standing = Standing::Denied,
            ApprovalDecision::Approve => {
                self.approved_by.insert(by.name.clone());
                let quorum = usize::try_from(self.rules.quorum.max(1)).unwrap_or(usize::MAX);
                if self.approved_by.len() >= quorum {
                    self.standing = Standing::Approved;
                }
            }
        }
        Ok(self.standing)
    }

    /// Lets one command go ahead, under the policy in force now.
    ///
    /// # Errors
    /// It must not.
    pub fn take(&mut self, policy: Option<Digest>, now: Now) -> Result<Grant, NotUsable> {
        if self.is_overdue(now) {
            return Err(NotUsable::Stands(Standing::Ended(ApprovalEnd::Expired)));
        }
        if self.standing != Standing::Approved {
            return Err(NotUsable::Stands(self.standing));
        }
        if policy != Some(self.policy) {
            return Err(NotUsable::Superseded);
        }
        self.standing = Standing::Used;
        Ok(Grant(()))
    }

    /// Ends it, if it is open. Says whether it was.
    pub fn end(&mut self, how: ApprovalEnd) -> bool {
        let open = self.is_open();
        if open {
            self.standing = Standing::Ended(how);
        }
        open
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use model::{ChannelBinding, OnBehalfOf, Proof, ProofMethod};

    fn identity(name: &str, groups: &[&str]) -> Identity {
        Identity {
            name: name.parse().unwrap(),
            known: Known::Verified,
            proof: Proof {
                method: ProofMethod::Jwt,
                channel: ChannelBinding::None,
                credential: "jwt:1".into(),
                evidence: None,
            },
            on_behalf_of: None,
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
            run: None,
        }
    }

    fn case(quorum: u32) -> Case {
        let verified = |name: &str| OnBehalfOf { name: name.parse().unwrap(), known: Known::Verified };
        let requester = Who {
            name: "agent:copilot".parse().unwrap(),
            known: Known::Verified,
            on_behalf_of: Some(verified("human:ann")),
        };
        let rules = ApprovalRules {
            identities: ["human:ann", "human:bea", "agent:copilot"].map(|name| name.parse().unwrap()).into(),
            groups: ["dbas".to_owned()].into(),
            quorum,
            signed: false,
            expires: Duration::from_secs(60),
            wait: Duration::from_secs(10),
            wait_in_transaction: Duration::from_secs(1),
        };
        Case::new(requester, rules, POLICY, REQUEST, 60_000_000)
    }

    const POLICY: Digest = Digest([1; 32]);
    const REQUEST: Digest = Digest([2; 32]);
    const APPROVE: ApprovalDecision = ApprovalDecision::Approve;

    fn at(seconds: u64) -> Now {
        Now { wall_us: i64::try_from(seconds).unwrap() * 1_000_000, age: Duration::from_secs(seconds) }
    }

    #[test]
    fn only_people_who_are_named_and_have_no_part_in_it_decide() {
        let mut case = case(1);
        let mut refused = |by: &Identity| match case.decide(by, APPROVE, REQUEST, at(1)) {
            Err(NotDecided::NotAllowed(why)) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(&identity("agent:copilot", &["dbas"])), NotAllowed::NoPerson);
        assert_eq!(refused(&identity("service:bot", &["dbas"])), NotAllowed::NoPerson);
        assert_eq!(refused(&identity("human:ann", &["dbas"])), NotAllowed::Principal);
        assert_eq!(refused(&identity("human:eve", &["staff"])), NotAllowed::NotNamed);
        let claimed = Identity { known: Known::Claimed, ..identity("human:bea", &[]) };
        assert_eq!(refused(&claimed), NotAllowed::NotVerified);
        let deputy = OnBehalfOf { name: "human:bea".parse().unwrap(), known: Known::Verified };
        assert_eq!(
            refused(&Identity { on_behalf_of: Some(deputy), ..identity("human:dora", &["dbas"]) }),
            NotAllowed::NoPerson
        );
        case.requester.name = "human:bea".parse().unwrap();
        let refused = case.decide(&identity("human:bea", &["dbas"]), APPROVE, REQUEST, at(1));
        assert_eq!(refused, Err(NotDecided::NotAllowed(NotAllowed::Requester)));
        assert_eq!(case.standing(), Standing::Waiting);
        assert_eq!(case.decide(&identity("human:dora", &["dbas"]), APPROVE, REQUEST, at(1)), Ok(Standing::Approved));
    }

    #[test]
    fn a_quorum_is_of_different_people_and_one_who_denies_is_enough() {
        let (bea, dora) = (identity("human:bea", &["dbas"]), identity("human:dora", &["dbas"]));
        let mut case = case(2);
        assert_eq!(case.decide(&bea, APPROVE, REQUEST, at(1)), Ok(Standing::Waiting));
        assert_eq!(case.decide(&bea, APPROVE, REQUEST, at(2)), Err(NotDecided::Again));
        assert_eq!(case.take(Some(POLICY), at(3)).unwrap_err(), NotUsable::Stands(Standing::Waiting));
        assert_eq!(case.decide(&dora, APPROVE, REQUEST, at(4)), Ok(Standing::Approved));
        assert_eq!(case.decide(&bea, ApprovalDecision::Deny, REQUEST, at(5)), Ok(Standing::Denied));
        assert_eq!(case.take(Some(POLICY), at(6)).unwrap_err(), NotUsable::Stands(Standing::Denied));
        assert_eq!(case.decide(&dora, APPROVE, REQUEST, at(7)), Err(NotDecided::NotOpen));
    }

    #[test]
    fn it_is_used_once_in_time_and_under_the_policy_that_asked() {
        let bea = identity("human:bea", &[]);
        let approved = || {
            let mut case = case(1);
            assert_eq!(case.decide(&bea, APPROVE, Digest([9; 32]), at(1)), Err(NotDecided::Changed));
            assert_eq!(case.decide(&bea, APPROVE, REQUEST, at(1)), Ok(Standing::Approved));
            case
        };
        let mut case = approved();
        assert_eq!(case.take(Some(Digest([9; 32])), at(2)).unwrap_err(), NotUsable::Superseded);
        assert_eq!(case.take(None, at(2)).unwrap_err(), NotUsable::Superseded);
        let _permit = case.take(Some(POLICY), at(2)).unwrap().into_permit();
        assert_eq!(case.take(Some(POLICY), at(2)).unwrap_err(), NotUsable::Stands(Standing::Used));
        assert!(!case.end(ApprovalEnd::Expired), "what was used is not ended");
        // Either clock is enough.
        let late = [at(60), Now { wall_us: 0, age: Duration::from_secs(61) }, Now { age: Duration::ZERO, ..at(61) }];
        for now in late {
            let mut case = approved();
            let expired = NotUsable::Stands(Standing::Ended(ApprovalEnd::Expired));
            assert_eq!(case.take(Some(POLICY), now).unwrap_err(), expired);
            assert_eq!(case.decide(&bea, ApprovalDecision::Deny, REQUEST, now), Err(NotDecided::NotOpen));
        }
    }
}

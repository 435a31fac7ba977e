//! Break-glass: who may run what is held without waiting for an approval, for how long, and who looks at it afterwards.
//!
//! Pure: times and identities are arguments, and what is to be on the record is written by the caller, first.
//!
//! Invariants: a [`Glass`] is opened only by a person who is proven, named, and acts for nobody else; it lasts an hour at
//! most, by both clocks, and covers that person's own commands on one connection. It lifts holds: what is denied stays
//! denied. It is reviewed once, after it is over, by another person.

use std::collections::BTreeSet;
use std::time::Duration;

use model::{
    BREAK_GLASS_SECONDS_MAX, BreakGlassEnd, BreakGlassOpening, Identity, IdentityKind, IdentityName, Known, Who,
};

use crate::approvals::Now;
use crate::{Permit, TEXT_CHARACTERS_MAX, Verdict};

/// The longest that break-glass lasts.
pub const LASTS_MAX: Duration = Duration::from_secs(BREAK_GLASS_SECONDS_MAX);
/// The shortest that can be asked for.
pub const LASTS_MIN: Duration = Duration::from_secs(10);
/// Nothing is covered in this last part of the time, so that what is still covered is written down before its end.
const LAST_CALL: Duration = Duration::from_secs(1);

/// Who may open break-glass on a connection, and who reviews it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlassRules {
    /// People who may open it.
    pub openers: BTreeSet<IdentityName>,
    /// Groups whose people may open it.
    pub opener_groups: BTreeSet<String>,
    /// The longest that it may be open.
    pub longest: Duration,
    /// People who may review it.
    pub reviewers: BTreeSet<IdentityName>,
    /// Groups whose people may review it.
    pub reviewer_groups: BTreeSet<String>,
}

/// Why somebody may not open or review.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    /// Agents and services, and whoever acts for somebody else.
    #[error("break-glass is for people, each for themselves: no agent, no service, nobody on behalf of another")]
    NoPerson,
    /// It is only claimed who they are.
    #[error("break-glass is for people who are proven to be who they are, and here it is only claimed")]
    NotVerified,
    /// They opened it.
    #[error("whoever opened break-glass does not review it, whatever else they may do")]
    Opener,
    /// The connection names others.
    #[error("you are not among the people that the connection names for this")]
    NotNamed,
}

/// Why it is not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// They may not.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// It would last too long, or not long enough to be of use.
    #[error("break-glass on this connection lasts 10 seconds to {} minutes", .0.as_secs() / 60)]
    Lasts(Duration),
    /// No reason, or too much of one.
    #[error("a reason has 1 to {TEXT_CHARACTERS_MAX} characters")]
    Reason,
}

/// Why a review does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReviewed {
    /// They may not.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// More may still run under it.
    #[error("it is still open: it is reviewed once it is over")]
    Open,
    /// Somebody was first.
    #[error("it has been reviewed already")]
    Again,
    /// No comment, or too much of one.
    #[error("a comment has 1 to {TEXT_CHARACTERS_MAX} characters")]
    Comment,
}

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// What its opener sends is covered.
    Open,
    /// It is over, and waits for its review.
    Closed(BreakGlassEnd),
    /// It was reviewed.
    Reviewed(BreakGlassEnd),
}

impl GlassRules {
    /// Whether somebody may open it.
    ///
    /// # Errors
    /// They may not, for this reason.
    pub fn may_open(&self, by: &Identity) -> Result<(), NotAllowed> {
        is_person(by)?;
        named(by, &self.openers, &self.opener_groups)
    }

    /// Whether somebody may review what this person opened.
    ///
    /// # Errors
    /// They may not, for this reason.
    pub fn may_review(&self, opener: &IdentityName, by: &Identity) -> Result<(), NotAllowed> {
        is_person(by)?;
        if by.name == *opener {
            return Err(NotAllowed::Opener);
        }
        named(by, &self.reviewers, &self.reviewer_groups)
    }

    /// Opens it, from `now_us` (microseconds since 1970) on.
    ///
    /// # Errors
    /// It must not be opened.
    pub fn open(
        &self,
        by: Identity,
        connection: &str,
        reason: &str,
        lasts: Duration,
        now_us: i64,
    ) -> Result<Glass, NotOpened> {
        self.may_open(&by)?;
        let longest = self.longest.min(LASTS_MAX);
        if lasts < LASTS_MIN || lasts > longest {
            return Err(NotOpened::Lasts(longest));
        }
        if !is_text(reason) {
            return Err(NotOpened::Reason);
        }
        let lasts_us = i64::try_from(lasts.as_micros()).unwrap_or(0);
        let until_us = now_us.saturating_add(lasts_us);
        let (connection, reason) = (connection.to_owned(), reason.to_owned());
        let opening = BreakGlassOpening { connection, by, reason, until_us };
        Ok(Glass { opening, lasts, standing: Standing::Open })
    }
}

/// Break-glass of one person on one connection.
#[derive(Debug)]
pub struct Glass {
    opening: BreakGlassOpening,
    lasts: Duration,
    standing: Standing,
}

impl Glass {
    /// One that was over before, as the record has it. It covers nothing any more.
    #[must_use]
    pub fn over(opening: BreakGlassOpening, how: BreakGlassEnd) -> Self {
        Self { opening, lasts: Duration::ZERO, standing: Standing::Closed(how) }
    }

    /// Who opened it, where, why, and until when.
    #[must_use]
    pub fn opening(&self) -> &BreakGlassOpening {
        &self.opening
    }

    /// Where it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether its time is over though it is still open. `now.age` is how long ago it was opened. The caller writes that
    /// down, and closes it.
    #[must_use]
    pub fn is_overdue(&self, now: Now) -> bool {
        let last_call_us = i64::try_from(LAST_CALL.as_micros()).unwrap_or(i64::MAX);
        self.standing == Standing::Open
            && (now.wall_us >= self.opening.until_us.saturating_sub(last_call_us)
                || now.age >= self.lasts.saturating_sub(LAST_CALL))
    }

    /// Whether it covers what this client sends over this connection: its opener's own commands, while it is open.
    #[must_use]
    pub fn covers(&self, who: &Who, connection: &str, now: Now) -> Option<Cover> {
        let own = who.name == self.opening.by.name && who.known == Known::Verified && who.on_behalf_of.is_none();
        let covers =
            self.standing == Standing::Open && own && connection == self.opening.connection && !self.is_overdue(now);
        covers.then_some(Cover(()))
    }

    /// Closes it. Says whether it was open.
    pub fn close(&mut self, how: BreakGlassEnd) -> bool {
        let open = self.standing == Standing::Open;
        if open {
            self.standing = Standing::Closed(how);
        }
        open
    }

    /// Whether this review would count now. The caller writes it down before [`Glass::review`].
    ///
    /// # Errors
    /// It would not.
    pub fn check_review(&self, rules: &GlassRules, by: &Identity, comment: &str) -> Result<(), NotReviewed> {
        rules.may_review(&self.opening.by.name, by)?;
        match self.standing {
            Standing::Open => Err(NotReviewed::Open),
            Standing::Reviewed(_) => Err(NotReviewed::Again),
            Standing::Closed(_) if !is_text(comment) => Err(NotReviewed::Comment),
            Standing::Closed(_) => Ok(()),
        }
    }

    /// Counts a review that [`Glass::check_review`] let through.
    pub fn review(&mut self) {
        if let Standing::Closed(how) = self.standing {
            self.standing = Standing::Reviewed(how);
        }
    }
}

/// Proof that a command is covered by open break-glass.
///
/// It cannot be made up:
/// ```compile_fail
/// let forged = policy::break_glass::Cover(());
/// ```
#[derive(Debug)]
pub struct Cover(());

impl Cover {
    /// What is to be done with a command that is covered: what was held may run. What was denied stays so.
    #[must_use]
    pub fn lift(&self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Hold(_) => Verdict::Allow(Permit(())),
            verdict @ (Verdict::Allow(_) | Verdict::Deny(_)) => verdict,
        }
    }
}

fn is_person(by: &Identity) -> Result<(), NotAllowed> {
    if by.name.kind() != IdentityKind::Human || by.on_behalf_of.is_some() {
        return Err(NotAllowed::NoPerson);
    }
    if by.known == Known::Verified { Ok(()) } else { Err(NotAllowed::NotVerified) }
}

fn named(by: &Identity, names: &BTreeSet<IdentityName>, groups: &BTreeSet<String>) -> Result<(), NotAllowed> {
    let named = names.contains(&by.name) || by.groups.iter().any(|group| groups.contains(group));
    if named { Ok(()) } else { Err(NotAllowed::NotNamed) }
}

/// Whether something is said, in as many words as the record takes.
fn is_text(text: &str) -> bool {
    !text.trim().is_empty() && text.chars().count() <= TEXT_CHARACTERS_MAX
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Denial;
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

    fn on_behalf_of(name: &str) -> Option<OnBehalfOf> {
        Some(OnBehalfOf { name: name.parse().unwrap(), known: Known::Verified })
    }

    fn rules() -> GlassRules {
        GlassRules {
            openers: ["human:cy", "agent:copilot"].map(|name| name.parse().unwrap()).into(),
            opener_groups: ["on-call".to_owned()].into(),
            longest: Duration::from_secs(1800),
            reviewers: ["human:dora", "human:cy"].map(|name| name.parse().unwrap()).into(),
            reviewer_groups: ["leads".to_owned()].into(),
        }
    }

    fn opened() -> Glass {
        rules().open(identity("human:cy", &[]), "app", "stuck", Duration::from_secs(600), 0).unwrap()
    }

    fn who(name: &str) -> Who {
        Who { name: name.parse().unwrap(), known: Known::Verified, on_behalf_of: None }
    }

    fn at(seconds: u64) -> Now {
        Now { wall_us: i64::try_from(seconds).unwrap() * 1_000_000, age: Duration::from_secs(seconds) }
    }

    #[test]
    fn only_a_person_who_is_named_opens_it_with_a_reason_and_not_for_long() {
        let open = |by: Identity, reason: &str, seconds| {
            rules().open(by, "app", reason, Duration::from_secs(seconds), 0).err()
        };
        let cy = || identity("human:cy", &[]);
        assert_eq!(open(cy(), "stuck", 1800), None);
        assert_eq!(open(identity("human:eve", &["on-call"]), "stuck", 60), None);
        let refused = |by| open(by, "stuck", 600).unwrap();
        assert_eq!(refused(identity("human:eve", &["staff"])), NotAllowed::NotNamed.into());
        assert_eq!(refused(identity("agent:copilot", &["on-call"])), NotAllowed::NoPerson.into());
        assert_eq!(refused(identity("service:bot", &["on-call"])), NotAllowed::NoPerson.into());
        let deputy = Identity { on_behalf_of: on_behalf_of("human:dora"), ..cy() };
        assert_eq!(refused(deputy), NotAllowed::NoPerson.into());
        assert_eq!(refused(Identity { known: Known::Claimed, ..cy() }), NotAllowed::NotVerified.into());
        for seconds in [0, 9, 1801, 86_400] {
            assert_eq!(open(cy(), "stuck", seconds), Some(NotOpened::Lasts(Duration::from_secs(1800))), "{seconds}");
        }
        let hours = GlassRules { longest: Duration::from_secs(86_400), ..rules() };
        let too_long = hours.open(cy(), "app", "stuck", Duration::from_secs(3601), 0);
        assert_eq!(too_long.unwrap_err(), NotOpened::Lasts(LASTS_MAX), "an hour, whatever the rules say");
        for reason in ["", " \n", &"x".repeat(1001)] {
            assert_eq!(open(cy(), reason, 600), Some(NotOpened::Reason));
        }
    }

    #[test]
    fn it_covers_its_opener_there_and_then_and_nobody_else() {
        let glass = opened();
        let covers = |who: &Who, connection, now| glass.covers(who, connection, now).is_some();
        assert!(covers(&who("human:cy"), "app", at(0)) && covers(&who("human:cy"), "app", at(598)));
        assert!(!covers(&who("human:dora"), "app", at(1)) && !covers(&who("human:cy"), "other", at(1)));
        let agent = Who { on_behalf_of: on_behalf_of("human:cy"), ..who("agent:copilot") };
        assert!(!covers(&agent, "app", at(1)), "an agent of that person is not that person");
        let deputy = Who { on_behalf_of: on_behalf_of("human:dora"), ..who("human:cy") };
        let claimed = Who { known: Known::Claimed, ..who("human:cy") };
        assert!(!covers(&deputy, "app", at(1)) && !covers(&claimed, "app", at(1)));
        // Either clock ends it, the last second before included; one that is set back keeps nothing open.
        for now in [at(599), Now { wall_us: 0, ..at(599) }, Now { age: Duration::ZERO, ..at(600) }, at(86_400)] {
            assert!(!covers(&who("human:cy"), "app", now) && glass.is_overdue(now), "{now:?}");
        }
        let mut glass = glass;
        assert!(glass.close(BreakGlassEnd::Person) && !glass.close(BreakGlassEnd::Expired));
        assert!(glass.covers(&who("human:cy"), "app", at(1)).is_none());
        assert!(Glass::over(opened().opening, BreakGlassEnd::Restart).covers(&who("human:cy"), "app", at(1)).is_none());
    }

    #[test]
    fn it_lifts_holds_and_nothing_else() {
        let cover = opened().covers(&who("human:cy"), "app", at(1)).unwrap();
        let denial = || Denial { rule: "r".into() };
        assert!(matches!(cover.lift(Verdict::Hold(denial())), Verdict::Allow(_)));
        assert!(matches!(cover.lift(Verdict::Deny(denial())), Verdict::Deny(why) if why == denial()));
        assert!(matches!(cover.lift(Verdict::Allow(Permit(()))), Verdict::Allow(_)));
    }

    #[test]
    fn another_person_reviews_it_once_when_it_is_over() {
        let mut glass = opened();
        let (cy, dora) = (identity("human:cy", &["leads"]), identity("human:dora", &[]));
        let check = |glass: &Glass, by: &Identity| glass.check_review(&rules(), by, "fine");
        assert_eq!(check(&glass, &dora), Err(NotReviewed::Open));
        glass.review();
        assert_eq!(glass.standing(), Standing::Open);
        glass.close(BreakGlassEnd::Expired);
        assert_eq!(check(&glass, &cy), Err(NotAllowed::Opener.into()));
        assert_eq!(check(&glass, &identity("agent:copilot", &["leads"])), Err(NotAllowed::NoPerson.into()));
        assert_eq!(check(&glass, &identity("human:eve", &["on-call"])), Err(NotAllowed::NotNamed.into()));
        assert_eq!(glass.check_review(&rules(), &dora, " "), Err(NotReviewed::Comment));
        assert_eq!(check(&glass, &identity("human:eve", &["leads"])), Ok(()));
        assert_eq!(check(&glass, &dora), Ok(()));
        glass.review();
        assert_eq!(glass.standing(), Standing::Reviewed(BreakGlassEnd::Expired));
        assert_eq!(check(&glass, &dora), Err(NotReviewed::Again));
    }
}

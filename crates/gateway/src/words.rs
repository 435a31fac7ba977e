//! What a client is told of a command that a policy or people keep from running, or that break-glass lets run, whatever its
//! protocol.

use model::{ApprovalEnd, Reason, wall_text};
use policy::approvals::Standing;
use policy::{Decision, Denial};

use crate::approvals::Ticket;
use crate::break_glass::Covered;

/// Why a policy refuses it: what decided, and by which rule. `what` is what the protocol calls a command.
pub(crate) fn why_denied(what: &str, decision: Option<&Decision>, denial: &Denial) -> String {
    let rule = &denial.rule;
    let said = decision.map(|decision| (decision.message(), decision.error(), decision.decisive()));
    let why = match said {
        Some((Some(message), _, _)) => format!("{message} (rule {rule})"),
        Some((None, Some(error), _)) => format!("its policy could not be evaluated: {error}"),
        Some((None, None, None)) => "no rule of the connection's policy allows it".to_owned(),
        Some((None, None, Some(_))) | None => format!("rule {rule} denies it"),
    };
    format!("OnRecord refused this {what}: {why}")
}

/// What a client is told whose command runs under break-glass, and what to do about it.
pub(crate) fn runs_under(covered: &Covered<'_>) -> (String, String) {
    let (id, until) = (covered.id(), wall_text(covered.until_us()));
    (
        format!(
            "OnRecord: break-glass {id} is open until {until}: nothing waits for an approval, and another person reviews what ran"
        ),
        format!("Close it as soon as you can: onrecord break-glass close {id}"),
    )
}

/// Why people do not let it run, as the record and its client are told.
pub(crate) fn why_not_approved(what: &str, standing: Standing, ticket: &Ticket) -> (Reason, String) {
    let (reason, why) = match standing {
        Standing::Denied => {
            let (by, comment) = ticket.denied().map_or_else(Default::default, |(by, said)| (by.to_string(), said));
            let comment = comment.map_or_else(String::new, |comment| format!(": {comment}"));
            (Reason::ApprovalDenied, format!("{by} denied it{comment}"))
        }
        Standing::Ended(ApprovalEnd::Superseded) => {
            (Reason::Policy, "the policy is another now than when approval was asked for".to_owned())
        }
        Standing::Ended(ApprovalEnd::Cancelled) => {
            (Reason::ApprovalDenied, "the request for its approval was taken back".to_owned())
        }
        Standing::Ended(ApprovalEnd::Expired) => (Reason::ApprovalExpired, "nobody approved it in time".to_owned()),
        Standing::Ended(ApprovalEnd::Revoked) => (Reason::Revoked, "its identity was revoked".to_owned()),
        Standing::Used | Standing::Waiting | Standing::Approved => {
            (Reason::ApprovalExpired, format!("its approval was used by the same {what} in another session"))
        }
    };
    (reason, format!("OnRecord refused this {what}: {why}"))
}

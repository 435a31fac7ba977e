//! A command that people must approve: it stays here until they have decided.
//!
//! The client is told on standard error, at once and again from time to time, and it can go away: then the approval
//! stays, and the same command runs under it once.

use std::future::poll_fn;
use std::time::Duration;

use model::{ApprovalEnd, Reason, wall_text};
use policy::approvals::Standing;
use policy::{Denial, Permit, Ruling};
use store::{Pending, Position, RecordError};

use super::entries::{self, Asked};
use super::inbox::Inbox;
use super::program::Client;
use super::session::{Said, refusal};
use crate::approvals::{self, HELD_BYTES_MAX, NotHeld, NotTaken, Shown, Ticket, wait_of};
use crate::words;

/// Between two lines that say why the command does not start.
const BEAT: Duration = Duration::from_secs(60);

/// How a wait ended.
pub(super) enum Waited {
    /// It goes ahead, once what is at this position is safe.
    Goes(Permit, Pending, Position),
    /// It does not, and the record and this text say why.
    Refused(String),
    /// The client is gone.
    Gone,
}

/// Waits for people to decide on a command.
pub(super) async fn hold(
    client: &Client,
    inbox: &mut Inbox,
    asked: &Asked,
    said: &Said,
    why: &Denial,
) -> Result<Waited, RecordError> {
    let session = client.session();
    let what = match said.policy.as_ref().and_then(|(_, decision)| decision.message()) {
        Some(message) => format!("{message} (rule {})", why.rule),
        None => format!("rule {}", why.rule),
    };
    let refuse = |because: &str| {
        let text = format!("OnRecord refused this command: somebody must approve it ({what}), and {because}");
        session.refuse(asked, said, &text).map(Waited::Refused)
    };
    let question = match question(client, asked, said) {
        Ok(question) => question,
        Err(because) => return refuse(because),
    };
    let wait = wait_of(&question.rules, None).min(question.rules.expires);
    let held = session.approvals().hold(question, |under| session.intend(asked, said, under));
    let (pending, ticket) = match held {
        Ok(held) => held,
        Err(NotHeld::Record(error)) => return Err(error),
        Err(NotHeld::TooMany(because)) => return refuse(because),
    };
    let (of, until) = (ticket.of(), wall_text(ticket.expires_us()));
    let told = format!(
        "OnRecord holds this command until somebody approves it: {what}\r\n\
         Approve it with: onrecord approvals approve {of} (until {until}). It waits here for {} s.",
        wait.as_secs()
    );
    client.say(&told).await;
    let over = tokio::time::sleep(wait);
    tokio::pin!(over);
    let mut beat = tokio::time::interval_at(tokio::time::Instant::now() + BEAT, BEAT);
    let ending = session.ending();
    loop {
        tokio::select! {
            // An approval that comes in the same moment lets nothing go that may not any more.
            biased;
            _ = ending.wait() => {
                session.log().withdraw(pending, &entries::not_forwarded())?;
                return Ok(Waited::Gone);
            }
            standing = poll_fn(|cx| ticket.poll(cx)) => {
                return match standing {
                    Standing::Approved => go_ahead(client, asked, pending, &ticket),
                    standing => refuse_standing(client, pending, &ticket, standing).map(Waited::Refused),
                };
            }
            () = &mut over => {
                let text = format!("OnRecord still waits for somebody to approve this command: approval {of}");
                let hint = format!("Run the same command again once it is approved; until {until} it then runs, once.");
                let told = withdraw(client, pending, Reason::ApprovalPending, &text)?;
                return Ok(Waited::Refused(format!("{told}\r\n{hint}")));
            }
            () = inbox.take() => {
                if !inbox.is_open() || inbox.is_stuck() {
                    session.log().withdraw(pending, &entries::not_forwarded())?;
                    return Ok(Waited::Gone);
                }
            }
            _ = beat.tick() => client.say(&told).await,
        }
    }
}

/// What people are asked, if they can be.
fn question(client: &Client, asked: &Asked, said: &Said) -> Result<approvals::Asked, &'static str> {
    let session = client.session();
    let rules = session.approval_rules().ok_or("the connection names nobody who could approve it")?;
    let (policy, decision) = said.policy.as_ref().ok_or("no policy asks for it any more")?;
    if asked.bytes() > HELD_BYTES_MAX {
        return Err("it is too long to be read and approved; more than 64 KiB is not held");
    }
    let statement = asked.as_text().ok_or("its text is not UTF-8, so it cannot be shown as it is")?;
    let parameters = match &asked.parameters {
        None => None,
        Some(parameters) => Some(serde_json::from_slice(parameters).map_err(|_| "its environment cannot be shown")?),
    };
    let shown = Shown {
        connection: session.connection().to_owned(),
        database: None,
        role: session.user().to_owned(),
        statement: statement.to_owned(),
        parameters,
        transaction: None,
        rules: decision.rules().to_vec(),
        message: decision.message().map(str::to_owned),
        opaque: said.facts.opaque.clone(),
    };
    Ok(approvals::Asked {
        who: session.who().clone(),
        rules,
        policy: policy.set.digest(),
        shown,
        facts: said.facts.clone(),
        raw_parameters: asked.parameters.clone().unwrap_or_default(),
    })
}

/// People have approved: the policy is asked again, and what they approved is what goes.
fn go_ahead(client: &Client, asked: &Asked, pending: Pending, ticket: &Ticket) -> Result<Waited, RecordError> {
    let session = client.session();
    let said = session.say(asked);
    if said.policy.as_ref().is_none_or(|(_, decision)| decision.ruling() == Ruling::Deny) {
        ticket.supersede();
        let standing = Standing::Ended(ApprovalEnd::Superseded);
        return refuse_standing(client, pending, ticket, standing).map(Waited::Refused);
    }
    match ticket.take(pending.command(), session.policy_digest()) {
        Ok((grant, ready)) => Ok(Waited::Goes(grant.into_permit(), pending, ready)),
        Err(NotTaken::Stands(standing)) => refuse_standing(client, pending, ticket, standing).map(Waited::Refused),
        Err(NotTaken::Record(error)) => Err(error),
    }
}

fn refuse_standing(
    client: &Client,
    pending: Pending,
    ticket: &Ticket,
    standing: Standing,
) -> Result<String, RecordError> {
    let (reason, text) = words::why_not_approved("command", standing, ticket);
    withdraw(client, pending, reason, &text)
}

/// The command is never forwarded: the record is told why. Gives what its client is told.
fn withdraw(client: &Client, pending: Pending, reason: Reason, text: &str) -> Result<String, RecordError> {
    let command = pending.command();
    let mut log = client.session().log();
    let message = log.seal(text.as_bytes());
    log.withdraw(pending, &entries::denied(reason, message))?;
    Ok(refusal(text, command))
}

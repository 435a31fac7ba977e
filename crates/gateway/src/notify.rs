//! Tells a webhook that something waits for people, and what became of it; and that somebody broke the glass.
//!
//! A notification says who asks for what kind of thing and how to look at it. The statement stays here: it may hold what
//! no chat should, and nobody decides in a chat. What is not taken is tried again for about five minutes; nothing waits for
//! it. What is dropped or given up is in the gateway's log, and a gateway that stops forgets what was not taken: of an
//! approval that is void by then; of break-glass that was open the next start tells that it is over, and the list has all.
//!
//! Approvals and break-glass have a [`Notifier`] each: an agent whose commands are held can fill the queue of approvals, and
//! that must not keep anybody from being told of break-glass.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use fetch::Client;
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// Notifications that wait to be sent; more are dropped, and the log says so.
const QUEUE_MAX: usize = 1024;
/// How long one try may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// An answer is of no interest, up to this length.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// Tries of one notification: with the pauses between them about five minutes.
const TRIES_MAX: u32 = 9;
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Where notifications go, and in which form.
#[derive(Clone, Debug)]
pub struct Notify {
    /// `http://` or `https://`; a secret where its path is one.
    pub url: Zeroizing<String>,
    /// In which form.
    pub form: NotifyForm,
}

/// The forms of notifications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyForm {
    /// All of it, for programs.
    Json,
    /// What Slack's incoming webhooks take.
    Slack,
    /// An adaptive card, as the workflows of Microsoft Teams take it.
    Teams,
}

/// What happened.
pub(crate) enum Notice {
    /// To an approval.
    Approval(ApprovalNotice),
    /// To break-glass.
    BreakGlass(GlassNotice),
}

impl Notice {
    /// What it is about, for the log: what happened, and to which.
    fn about(&self) -> String {
        match self {
            Self::Approval(notice) => format!("approval {} {}", notice.id, notice.event),
            Self::BreakGlass(notice) => format!("break-glass {} {}", notice.id, notice.event),
        }
    }
}

/// What happened to an approval.
pub(crate) struct ApprovalNotice {
    pub(crate) event: &'static str,
    pub(crate) id: String,
    pub(crate) requester: String,
    pub(crate) on_behalf_of: Option<String>,
    pub(crate) connection: String,
    pub(crate) database: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) rules: Vec<String>,
    pub(crate) expires: String,
    /// Who decided, where somebody did.
    pub(crate) by: Option<String>,
}

/// What happened to break-glass.
pub(crate) struct GlassNotice {
    /// `opened`, `closed` or `reviewed`.
    pub(crate) event: &'static str,
    pub(crate) id: String,
    pub(crate) opener: String,
    pub(crate) connection: String,
    pub(crate) reason: String,
    pub(crate) until: String,
    /// Why it is over, or what the review found.
    pub(crate) how: Option<&'static str>,
    /// Who closed or reviewed it, where a person did.
    pub(crate) by: Option<String>,
    /// What the reviewer had to say.
    pub(crate) comment: Option<String>,
}

/// The way to the thread that sends; the thread ends with it.
pub(crate) struct Notifier(SyncSender<Notice>);

impl Notifier {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives none.
    pub(crate) fn start(name: &str, notify: Notify) -> io::Result<Self> {
        let (sender, notices) = sync_channel(QUEUE_MAX);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&notify, &notices))?;
        Ok(Self(sender))
    }

    /// Sends, soon.
    pub(crate) fn send(&self, notice: Notice) {
        if let Err(TrySendError::Full(notice) | TrySendError::Disconnected(notice)) = self.0.try_send(notice) {
            dropped(notice.about());
        }
    }
}

struct Due {
    at: Instant,
    tries: u32,
    about: String,
    body: Vec<u8>,
}

/// Too many wait: one of them is not sent.
fn dropped(about: String) {
    tracing::error!(about, "too many notifications wait to be sent: one is dropped");
}

fn run(notify: &Notify, notices: &Receiver<Notice>) {
    let client = Client::of_system(ANSWER_MAX);
    let mut due: VecDeque<Due> = VecDeque::new();
    loop {
        let next = due.iter().map(|due| due.at).min();
        let received = match next {
            None => notices.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => notices.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        match received {
            Ok(notice) => {
                let body = body(notify.form, &notice).to_string().into_bytes();
                due.push_back(Due { at: Instant::now(), tries: 0, about: notice.about(), body });
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while due.len() > QUEUE_MAX
            && let Some(oldest) = due.pop_front()
        {
            dropped(oldest.about);
        }
        let now = Instant::now();
        for _ in 0..due.len() {
            let Some(mut one) = due.pop_front() else { break };
            if one.at <= now {
                if deliver(&client, notify, &mut one) {
                    continue;
                }
                if one.tries >= TRIES_MAX {
                    tracing::error!(about = one.about, "a notification was not taken in five minutes, and is given up");
                    continue;
                }
                one.at = Instant::now() + PAUSE_FIRST.saturating_mul(1 << one.tries.min(10)).min(PAUSE_MAX);
            }
            due.push_back(one);
        }
    }
}

/// Whether it was taken. Nothing of the URL is said: its path may be a secret.
fn deliver(client: &Client, notify: &Notify, due: &mut Due) -> bool {
    due.tries += 1;
    let headers = [("content-type", "application/json".to_owned())];
    let status = client.post(&notify.url, &headers, &due.body, ANSWER_BYTES_MAX).map(|reply| reply.status);
    let taken = matches!(status, Ok(200..=299));
    if !taken {
        let tries = due.tries;
        match status {
            Ok(status) => tracing::warn!(status, tries, "the webhook of notifications did not take one"),
            Err(_) => tracing::warn!(tries, "the webhook of notifications cannot be reached"),
        }
    }
    taken
}

fn body(form: NotifyForm, notice: &Notice) -> Value {
    match form {
        NotifyForm::Json => for_programs(notice),
        NotifyForm::Slack => json!({"text": escaped_for_slack(&text(notice))}),
        NotifyForm::Teams => json!({
            "type": "message",
            "attachments": [{
                "contentType": "application/vnd.microsoft.card.adaptive",
                "content": {
                    "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                    "type": "AdaptiveCard",
                    "version": "1.4",
                    "body": [{"type": "TextBlock", "wrap": true, "text": escaped_for_cards(&text(notice))}],
                },
            }],
        }),
    }
}

/// All of one notification.
fn for_programs(notice: &Notice) -> Value {
    match notice {
        Notice::Approval(notice) => json!({
            "type": format!("onrecord.approval.{}", notice.event),
            "approval": notice.id,
            "requester": notice.requester,
            "on_behalf_of": notice.on_behalf_of,
            "connection": notice.connection,
            "database": notice.database,
            "message": notice.message,
            "rules": notice.rules,
            "expires": notice.expires,
            "by": notice.by,
        }),
        Notice::BreakGlass(notice) => json!({
            "type": format!("onrecord.break_glass.{}", notice.event),
            "break_glass": notice.id,
            "opener": notice.opener,
            "connection": notice.connection,
            "reason": notice.reason,
            "until": notice.until,
            "how": notice.how,
            "by": notice.by,
            "comment": notice.comment,
        }),
    }
}

/// One notification in words.
fn text(notice: &Notice) -> String {
    match notice {
        Notice::Approval(notice) => approval_text(notice),
        Notice::BreakGlass(notice) => glass_text(notice),
    }
}

fn glass_text(notice: &GlassNotice) -> String {
    let GlassNotice { event, id, opener, connection, reason, until, how, .. } = notice;
    let by = notice.by.as_ref().map_or_else(String::new, |by| format!(" by {by}"));
    match *event {
        "opened" => format!(
            "OnRecord: {opener} broke the glass on {connection}, until {until}: {reason}. \
             What has to be approved runs at once. `onrecord break-glass show {id}` tells more."
        ),
        "closed" => format!(
            "OnRecord: break-glass {id} of {opener} on {connection} is over ({}{by}). \
             Another person must review it: `onrecord break-glass review {id}`.",
            how.unwrap_or_default()
        ),
        _ => {
            let comment = notice.comment.clone().unwrap_or_default();
            let found = how.unwrap_or_default().replace('_', " ");
            format!("OnRecord: break-glass {id} of {opener} on {connection} was reviewed{by}: {found}. {comment}")
        }
    }
}

fn approval_text(notice: &ApprovalNotice) -> String {
    let ApprovalNotice { event, id, requester, connection, database, expires, .. } = notice;
    let principal = notice.on_behalf_of.as_ref().map_or_else(String::new, |whom| format!(" (for {whom})"));
    if *event != "requested" {
        let by = notice.by.as_ref().map_or_else(String::new, |by| format!(" by {by}"));
        return format!("OnRecord: approval {id} of {requester}{principal} on {connection} is {event}{by}.");
    }
    let database = database.as_ref().map_or_else(String::new, |name| format!(", database {name}"));
    let why = notice.message.clone().unwrap_or_else(|| notice.rules.join(", "));
    format!(
        "OnRecord: {requester}{principal} asks for approval on {connection}{database}: {why}. \
         Look at it with `onrecord approvals show {id}` until {expires}."
    )
}

/// Slack reads `<`, `>` and `&` as its own.
fn escaped_for_slack(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Cards read some of Markdown: a link in a rule's message or a name is not to become one.
fn escaped_for_cards(text: &str) -> String {
    text.replace('[', "\\[").replace(']', "\\]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(event: &'static str) -> Notice {
        Notice::Approval(ApprovalNotice {
            event,
            id: "01K9ZZ3Q0V8C2M4N6P8R0T2W4Y.7".into(),
            requester: "agent:copilot".into(),
            on_behalf_of: Some("human:bea".into()),
            connection: "app".into(),
            database: Some("<!channel> [x](http://evil.example)".into()),
            message: Some("look & see".into()),
            rules: vec!["ask".into()],
            expires: "2026-11-27T12:00:00.000000Z".into(),
            by: (event != "requested").then(|| "human:dora".into()),
        })
    }

    #[test]
    fn a_chat_gets_words_that_it_cannot_take_for_its_own() {
        let slack = body(NotifyForm::Slack, &notice("requested")).to_string();
        assert!(slack.contains("&lt;!channel&gt;") && slack.contains("look &amp; see"), "{slack}");
        assert!(slack.contains("onrecord approvals show 01K9ZZ3Q0V8C2M4N6P8R0T2W4Y.7"), "{slack}");
        let teams = body(NotifyForm::Teams, &notice("requested")).to_string();
        assert!(teams.contains(r"\\[x\\](http"), "{teams}");
        let denied = body(NotifyForm::Slack, &notice("denied")).to_string();
        assert!(denied.contains("is denied by human:dora"), "{denied}");
        let glass = |event, how, by: Option<&str>| {
            Notice::BreakGlass(GlassNotice {
                event,
                id: "01K9ZZ3Q0V8C2M4N6P8R0T2W4Y".into(),
                opener: "human:cy".into(),
                connection: "app".into(),
                reason: "<!here> [x](http://evil.example)".into(),
                until: "2026-11-27T12:00:00.000000Z".into(),
                how,
                by: by.map(Into::into),
                comment: by.map(|_| "<!here>".into()),
            })
        };
        let opened = body(NotifyForm::Slack, &glass("opened", None, None)).to_string();
        assert!(opened.contains("human:cy broke the glass on app") && opened.contains("&lt;!here&gt;"), "{opened}");
        assert!(body(NotifyForm::Teams, &glass("opened", None, None)).to_string().contains(r"\\[x\\](http"));
        let closed = body(NotifyForm::Slack, &glass("closed", Some("expired"), None)).to_string();
        assert!(closed.contains("is over (expired). Another person must review it"), "{closed}");
        let reviewed =
            body(NotifyForm::Slack, &glass("reviewed", Some("not_justified"), Some("human:dora"))).to_string();
        assert!(reviewed.contains("was reviewed by human:dora: not justified. &lt;!here&gt;"), "{reviewed}");
    }
}

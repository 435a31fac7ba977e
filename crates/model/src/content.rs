//! The sensitive content of entries: what is sealed, and can be withheld, redacted or erased.
//!
//! The one list of it: who opens content, withholds it, erases it or proves it goes by [`Body::contents`].

use crate::closed::closed;
use crate::{Body, CommandId, Field};

closed! {
    /// A kind of sensitive content.
    ContentKind {
        /// The server's messages.
        Message = "message",
        /// What went over the streams of programs, and the digests of files.
        Output = "output",
        /// The parameters of commands.
        Parameters = "parameters",
        /// The text of commands.
        Statement = "statement",
    }
}

impl Body {
    /// Its sensitive content: whose, of what kind, and where. Content that there is none of is absent ([`Field::Absent`]).
    pub fn contents(&self) -> impl Iterator<Item = (CommandId, ContentKind, &Field)> + Clone {
        let contents = match self {
            Body::Intent(intent) => [
                Some((intent.command, ContentKind::Statement, &intent.text)),
                Some((intent.command, ContentKind::Parameters, &intent.parameters)),
                None,
            ],
            Body::Outcome(outcome) => {
                let output = |field| (outcome.of, ContentKind::Output, field);
                [
                    Some((outcome.of, ContentKind::Message, &outcome.message)),
                    outcome.transcript.as_ref().map(|transcript| output(&transcript.content)),
                    outcome.file.as_ref().map(|file| output(&file.sha256)),
                ]
            }
            Body::Genesis(_)
            | Body::Start(_)
            | Body::Stop(_)
            | Body::Recovery(_)
            | Body::Heartbeat(_)
            | Body::SessionOpen(_)
            | Body::SessionClose(_)
            | Body::Refused(_)
            | Body::Cancel(_)
            | Body::Erase(_)
            | Body::Hold(_)
            | Body::Witnesses(_)
            | Body::Export(_)
            | Body::Configuration(_)
            | Body::IssuerKey(_)
            | Body::Token(_)
            | Body::Revocation(_)
            | Body::Shared(_)
            | Body::Outpost(_)
            | Body::Approval(_)
            | Body::Passkey(_)
            | Body::BreakGlass(_)
            | Body::Oversight(_) => [None; 3],
        };
        contents.into_iter().flatten()
    }
}

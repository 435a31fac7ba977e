//! What the commands share with which people decide over the gateway's HTTP API: where and as whom they sit, which one they
//! mean, and whether they are sure.
//!
//! Not for: what an operator asks of the gateway on its own host (that is `asking`).

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};

use clap::Args;
use policy::TEXT_CHARACTERS_MAX;

use crate::Failure;
use crate::agent::{Api, GatewayPlace, SourceArgs, ready};

/// Which gateway, and as whom.
#[derive(Debug, Clone, Args)]
pub(super) struct Desk {
    #[command(flatten)]
    place: GatewayPlace,
    #[command(flatten)]
    source: SourceArgs,
}

/// A gateway that can be asked, with a proof that holds now.
pub(super) struct Seat {
    pub(super) api: Api,
    pub(super) proof: zeroize::Zeroizing<String>,
}

impl Desk {
    /// Gets ready to ask.
    pub(super) fn sit(&self) -> Result<Seat, Failure> {
        let (api, proof) = ready(&self.place, self.source.clone().source())?;
        Ok(Seat { api, proof })
    }
}

/// The only one that was found for what was meant. `what` is what they are called, `hint` where all of them are.
pub(super) fn only<T: Copy + Display>(what: &str, hint: &str, meant: &str, found: &[T]) -> Result<T, Failure> {
    match found {
        [one] => Ok(*one),
        [] => Err(Failure::not_found(format_args!("there is no {what} {meant:?} that you may see")).hint(hint)),
        several => {
            let names: Vec<String> = several.iter().map(ToString::to_string).collect();
            Err(Failure::usage(format_args!("{meant:?} can mean several"))
                .hint(format_args!("write more of it: {}", names.join(", "))))
        }
    }
}

/// What people say of what they do, on which the record spends some room.
pub(super) fn words(text: &str) -> Result<String, String> {
    match text.chars().count() {
        _ if text.trim().is_empty() => Err("say something".to_owned()),
        ..=TEXT_CHARACTERS_MAX => Ok(text.to_owned()),
        more => Err(format!("it has {more} characters, and {TEXT_CHARACTERS_MAX} is the most")),
    }
}

/// Something that is put to a person: it is shown where questions are asked, and not where results go.
pub(super) struct Question {
    /// What has not happened, unless the answer is yes: `nothing was decided`.
    pub(super) nothing: &'static str,
    /// What goes on without an answer: `--yes decides without a question`.
    pub(super) hint: &'static str,
}

impl Question {
    /// Shows what it is about. What cannot be shown is not decided.
    pub(super) fn show(&self, lines: &[String]) -> Result<(), Failure> {
        let mut out = std::io::stderr().lock();
        let shown = lines.iter().try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush());
        shown.map_err(|error| self.unshown(&error))
    }

    /// Asks, and goes on only after a yes.
    pub(super) fn ask(&self, question: &str) -> Result<(), Failure> {
        let nothing = self.nothing;
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            let what = format_args!("{nothing}: there is no terminal to ask on");
            return Err(Failure::usage(what).hint(self.hint));
        }
        let mut out = std::io::stderr().lock();
        write!(out, "{question} [y/N] ").and_then(|()| out.flush()).map_err(|error| self.unshown(&error))?;
        let mut answer = String::new();
        std::io::stdin()
            .read_line(&mut answer)
            .map_err(|error| Failure::new(format_args!("{nothing}: the answer cannot be read: {error}")))?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(Failure::new(nothing)),
        }
    }

    fn unshown(&self, error: &std::io::Error) -> Failure {
        Failure::new(format_args!("{}: what it is about cannot be shown: {error}", self.nothing))
    }
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn what_people_say_is_neither_nothing_nor_a_book() {
        assert!(words(&"é".repeat(1000)).is_ok());
        assert!(words(&"é".repeat(1001)).is_err() && words(" \n").is_err() && words("").is_err());
    }
}

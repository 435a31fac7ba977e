//! What rules say about one command.

use std::fmt;

/// What a rule, or all of them together, want.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ruling {
    /// It may run.
    Allow,
    /// It must not.
    Deny,
    /// Somebody must approve it first.
    Hold,
}

impl Ruling {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Hold => "hold",
        }
    }

    /// The ruling with this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Allow, Self::Deny, Self::Hold].into_iter().find(|ruling| ruling.as_str() == word)
    }

    /// Which of two wins.
    fn weight(self) -> u8 {
        match self {
            Self::Allow => 0,
            Self::Hold => 1,
            Self::Deny => 2,
        }
    }
}

impl fmt::Display for Ruling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What one rule says about one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Its condition holds.
    Matched,
    /// It does not.
    NotMatched,
    /// It could not be evaluated, for this reason. The reason repeats nothing of the command.
    Failed(String),
}

/// What all rules of a set say about one command.
///
/// Only a set makes one: nobody can make up a decision to have a [`crate::Permit`] for it.
/// ```compile_fail
/// let forged = policy::Decision { ruling: policy::Ruling::Allow, rules: vec![], decisive: None, message: None, error: None };
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    ruling: Ruling,
    rules: Vec<String>,
    decisive: Option<String>,
    message: Option<String>,
    error: Option<String>,
}

/// A rule as far as a decision is made from it.
pub(crate) struct Voice<'a> {
    pub(crate) id: &'a str,
    pub(crate) then: Ruling,
    pub(crate) message: Option<&'a str>,
    pub(crate) finding: Finding,
}

impl Decision {
    /// Deny wins over hold, hold over allow, and a rule that failed denies. Where no rule matched, the default counts.
    pub(crate) fn of<'a>(voices: impl Iterator<Item = Voice<'a>>, default: Ruling) -> Self {
        let mut rules = Vec::new();
        let mut decisive: Option<(Ruling, &str, Option<&str>)> = None;
        let mut error = None;
        for voice in voices {
            match voice.finding {
                Finding::NotMatched => {}
                Finding::Failed(why) => {
                    error.get_or_insert_with(|| format!("rule {} {why}", voice.id));
                }
                Finding::Matched => {
                    rules.push(voice.id.to_owned());
                    if decisive.is_none_or(|(ruling, ..)| voice.then.weight() > ruling.weight()) {
                        decisive = Some((voice.then, voice.id, voice.message));
                    }
                }
            }
        }
        // A rule that failed denies; a rule that only holds or allows has then decided nothing.
        let decisive = decisive.filter(|(ruling, ..)| error.is_none() || *ruling == Ruling::Deny);
        let ruling = match decisive {
            _ if error.is_some() => Ruling::Deny,
            Some((ruling, ..)) => ruling,
            None => default,
        };
        Self {
            ruling,
            rules,
            decisive: decisive.map(|(_, id, _)| id.to_owned()),
            message: decisive.and_then(|(.., message)| message).map(str::to_owned),
            error,
        }
    }

    /// A denial because nothing could be evaluated.
    pub(crate) fn broken(why: &str) -> Self {
        Self { ruling: Ruling::Deny, rules: Vec::new(), decisive: None, message: None, error: Some(why.to_owned()) }
    }

    /// What is to be done.
    #[must_use]
    pub fn ruling(&self) -> Ruling {
        self.ruling
    }

    /// The ids of all rules that matched, in the order of the files.
    #[must_use]
    pub fn rules(&self) -> &[String] {
        &self.rules
    }

    /// The first of the matched rules that wanted what is to be done. None when the default decided, or an error.
    #[must_use]
    pub fn decisive(&self) -> Option<&str> {
        self.decisive.as_deref()
    }

    /// What the decisive rule has to say to whoever sent the command.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Which rule could not be evaluated, and why, without anything of the command.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(voices: &[(&'static str, Ruling, Finding)], default: Ruling) -> Decision {
        let voice = |(id, then, finding): &(&'static str, Ruling, Finding)| Voice {
            id,
            then: *then,
            message: Some(id),
            finding: finding.clone(),
        };
        Decision::of(voices.iter().map(voice), default)
    }

    #[test]
    fn deny_wins_over_hold_and_hold_over_allow() {
        use Finding::{Matched, NotMatched};
        use Ruling::{Allow, Deny, Hold};
        let all = [("a", Allow, Matched), ("h", Hold, Matched), ("d", Deny, Matched), ("e", Deny, Matched)];
        let decision = decide(&all, Allow);
        assert_eq!(decision.ruling(), Deny);
        assert_eq!(decision.rules(), ["a", "h", "d", "e"]);
        assert_eq!((decision.decisive(), decision.message()), (Some("d"), Some("d")));
        let decision = decide(&all[..2], Deny);
        assert_eq!((decision.ruling(), decision.decisive()), (Hold, Some("h")));
        let decision = decide(&all[..1], Deny);
        assert_eq!((decision.ruling(), decision.decisive()), (Allow, Some("a")));
        for default in [Allow, Deny] {
            let decision = decide(&[("a", Deny, NotMatched)], default);
            assert_eq!((decision.ruling(), decision.decisive()), (default, None));
            assert_eq!(decision.rules(), <[&str; 0]>::default());
        }
    }

    #[test]
    fn a_rule_that_failed_denies_whatever_the_others_say() {
        use Finding::{Failed, Matched};
        use Ruling::{Allow, Deny, Hold};
        let failed = || Failed("fails".to_owned());
        let decision = decide(&[("a", Allow, Matched), ("b", Allow, failed()), ("c", Hold, failed())], Allow);
        assert_eq!((decision.ruling(), decision.decisive()), (Deny, None));
        assert_eq!(decision.rules(), ["a"]);
        assert_eq!(decision.error(), Some("rule b fails"));
        let decision = decide(&[("a", Allow, failed()), ("d", Deny, Matched)], Allow);
        assert_eq!((decision.ruling(), decision.decisive()), (Deny, Some("d")));
        assert_eq!(decision.error(), Some("rule a fails"));
    }
}

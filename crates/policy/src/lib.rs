//! Rules to verdicts.
//!
//! What it is for: deciding whether an identity may use a connection and whether a command may run, by the rules of the
//! connection's policy files ([`PolicySet`]), and minting the [`Permit`] that says so. What it is not for: asking anyone,
//! waiting, reading clocks or files; the time and all facts are arguments.
//!
//! Invariants: a [`Permit`] exists only because a rule allowed that command, because people approved it
//! ([`approvals`]), because its sender broke the glass ([`break_glass`]), or because the connection's rules are only
//! observed. Its field is private, it cannot be cloned, and the gateway's upstream takes one for every command it forwards.
//! What cannot be evaluated is denied, and what evaluation costs has a bound that is checked when the rules are loaded.

pub mod approvals;
pub mod break_glass;
pub mod cases;
mod check;
mod decision;
mod expression;
mod file;
#[doc(hidden)]
pub mod fuzz;
mod grants;
mod input;
mod labels;
mod problem;
mod set;
mod value;
mod vocabulary;
mod yaml;

pub use decision::{Decision, Finding, Ruling};
pub use grants::{Admission, Denial, Grants, Listed, Mode, Permit, Request, Verdict};
pub use input::{Input, Moment, SessionState, Subject, SubjectParts, Target, TargetParts};
pub use problem::PolicyProblem;
pub use set::{PolicyFile, PolicySet, RelationLabels, Rule, TEXT_BYTES_MAX, Variation};

/// Characters of what people say of what they do: a reason, a comment.
pub const TEXT_CHARACTERS_MAX: usize = 1000;

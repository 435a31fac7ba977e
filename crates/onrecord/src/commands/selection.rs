//! Which commands and sessions are asked for.

use clap::Args;
use model::{BreakGlassId, Verdict};
use store::CommandStatus;

use super::words;

/// Which commands to show; everything that is given must hold.
#[derive(Debug, Clone, Default, Args)]
pub struct Selection {
    /// Of this identity, such as agent:copilot-agent or copilot-agent
    #[arg(long, value_name = "IDENTITY")]
    pub identity: Option<String>,
    /// Over this connection
    #[arg(long, value_name = "NAME")]
    pub connection: Option<String>,
    /// Of this session: its id, or the end of it
    #[arg(long, value_name = "ID")]
    pub session: Option<String>,
    /// That ended so: ok, error, denied, cancelled, skipped, unknown or pending
    #[arg(long, value_parser = status)]
    pub status: Option<CommandStatus>,
    /// That were decided so: allow, deny or hold
    #[arg(long, value_parser = verdict)]
    pub verdict: Option<Verdict>,
    /// That were sent while this break-glass was open: its id, in full
    #[arg(long, value_name = "ID")]
    pub break_glass: Option<BreakGlassId>,
    /// Not before: 90s, 30m, 1h, 2d ago, a date or a time
    #[arg(long = "since", value_name = "WHEN", value_parser = words::moment)]
    pub since_us: Option<i64>,
    /// Before: as --since
    #[arg(long = "until", value_name = "WHEN", value_parser = words::moment)]
    pub until_us: Option<i64>,
    /// With this in their text, in capitals or not
    #[arg(long, value_name = "TEXT")]
    pub contains: Option<String>,
    /// With this claim, such as traceparent=4bf92f35 or application_name=migrate; nobody checked what is claimed
    #[arg(long, value_name = "NAME=TEXT", value_parser = claim)]
    pub claim: Option<(String, String)>,
}

/// Which sessions to show; everything that is given must hold.
#[derive(Debug, Clone, Default, Args)]
pub struct SessionSelection {
    /// Of this identity, such as agent:copilot-agent or copilot-agent
    #[arg(long, value_name = "IDENTITY")]
    identity: Option<String>,
    /// Over this connection
    #[arg(long, value_name = "NAME")]
    connection: Option<String>,
    /// That began not before: 90s, 30m, 1h, 2d ago, a date or a time
    #[arg(long = "since", value_name = "WHEN", value_parser = words::moment)]
    since_us: Option<i64>,
    /// That began before: as --since
    #[arg(long = "until", value_name = "WHEN", value_parser = words::moment)]
    until_us: Option<i64>,
}

impl From<SessionSelection> for Selection {
    fn from(sessions: SessionSelection) -> Self {
        let SessionSelection { identity, connection, since_us, until_us } = sessions;
        Self { identity, connection, since_us, until_us, ..Self::default() }
    }
}

fn claim(text: &str) -> Result<(String, String), &'static str> {
    let named = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, value) = named.ok_or("write NAME=TEXT, such as traceparent=4bf92f35")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn status(text: &str) -> Result<CommandStatus, &'static str> {
    CommandStatus::parse(text).ok_or("write ok, error, denied, cancelled, skipped, unknown or pending")
}

fn verdict(text: &str) -> Result<Verdict, &'static str> {
    Verdict::parse(text).ok_or("write allow, deny or hold")
}

//! Which commands and sessions are asked for.

use clap::Args;

use super::row::Row;
use super::words;

/// Which commands to show; everything that is given must hold.
#[derive(Debug, Clone, Default, Args)]
pub struct Selection {
    /// Of this identity, such as agent:copilot-agent
    #[arg(long, value_name = "IDENTITY")]
    pub identity: Option<String>,
    /// Over this connection
    #[arg(long, value_name = "NAME")]
    pub connection: Option<String>,
    /// Of this session: its id, or the end of it
    #[arg(long, value_name = "ID")]
    pub session: Option<String>,
    /// That ended so
    #[arg(long, value_name = "STATUS", value_parser = STATUSES)]
    pub status: Option<String>,
    /// Not before: 90s, 30m, 1h, 2d ago, a date or a time
    #[arg(long = "since", value_name = "WHEN", value_parser = words::moment)]
    pub since_us: Option<i64>,
    /// Before: as --since
    #[arg(long = "until", value_name = "WHEN", value_parser = words::moment)]
    pub until_us: Option<i64>,
    /// With this in their text, in capitals or not
    #[arg(long, value_name = "TEXT")]
    pub contains: Option<String>,
}

/// What `--status` takes.
const STATUSES: [&str; 7] = ["ok", "error", "denied", "cancelled", "skipped", "unknown", "pending"];

impl Selection {
    /// Whether the command is asked for.
    pub(super) fn takes(&self, row: &Row) -> bool {
        let is = |asked: &Option<String>, value: &str| asked.as_ref().is_none_or(|asked| asked == value);
        is(&self.identity, &row.identity)
            && is(&self.connection, &row.connection)
            && is(&self.status, row.status)
            && self.takes_time(row.time)
            && self.takes_session(&row.session)
            && self.contains.as_ref().is_none_or(|asked| contains(row, asked))
    }

    /// Whether a session is asked for, by what commands and sessions have in common.
    pub(super) fn takes_session(&self, session: &str) -> bool {
        self.session.as_ref().is_none_or(|asked| names(asked, session))
    }

    /// Whether a time is asked for.
    pub(super) fn takes_time(&self, wall_us: i64) -> bool {
        self.since_us.is_none_or(|since| wall_us >= since)
            && self.until_us.is_none_or(|until| wall_us < until)
    }
}

/// Whether `asked` names the session: its id, or at least the last four characters of it.
pub(super) fn names(asked: &str, session: &str) -> bool {
    let tail = session.len().checked_sub(asked.len()).and_then(|at| session.get(at..));
    asked.len() >= 4 && tail.is_some_and(|tail| tail.eq_ignore_ascii_case(asked))
}

fn contains(row: &Row, asked: &str) -> bool {
    row.text.as_ref().is_some_and(|text| text.to_lowercase().contains(&asked.to_lowercase()))
}

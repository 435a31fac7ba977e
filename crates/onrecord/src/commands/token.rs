//! `onrecord token`: a short-lived token for one connection, to be given as a password.

use clap::Args;
use serde_json::Value;

use super::Context;
use crate::Failure;
use crate::agent::{self, Api, GatewayPlace, SourceArgs, ready};
use crate::output::Format;

const EXAMPLES: &str = "\
Examples:
  PGPASSWORD=$(onrecord token --connection app) psql \"host=gateway.internal port=6432 user=token dbname=app sslmode=verify-full\"
  onrecord run --connection app -- psql -c 'select 1'     does the same, and keeps the token out of the environment";

/// Arguments of `token`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Token {
    #[command(flatten)]
    wanted: Wanted,
}

/// Which token is wanted, from whom, and for what proof.
#[derive(Debug, Clone, Args)]
pub(super) struct Wanted {
    /// The connection that the token opens, and no other
    #[arg(long, value_name = "NAME")]
    pub(super) connection: String,
    /// How long the token holds, such as 90s, 15m or 1h [default: 15m, or what the gateway allows]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    ttl: Option<u64>,
    #[command(flatten)]
    place: GatewayPlace,
    #[command(flatten)]
    source: SourceArgs,
}

impl Wanted {
    /// Gets one, and says from which gateway.
    pub(super) fn get(&self) -> Result<(Api, agent::Token), Failure> {
        let (api, proof) = ready(&self.place, self.source.clone().source())?;
        let token = api.exchange(&proof, &self.connection, self.ttl)?;
        Ok((api, token))
    }
}

impl Token {
    /// Does it. Only the token is printed, so that a script can take it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        let (_, token) = self.wanted.get()?;
        let console = &mut context.console;
        if console.format() == Format::Table {
            return Ok(console.line(&token.text)?);
        }
        let mut all = token.about;
        if let Some(fields) = all.as_object_mut() {
            fields.insert("token".to_owned(), Value::String(token.text.to_string()));
        }
        Ok(console.json(&all)?)
    }
}

/// Seconds, from a number with a unit.
pub(super) fn duration(text: &str) -> Result<u64, String> {
    let wrong = || "write a time such as 90s, 15m or 1h".to_owned();
    let unit = match text.as_bytes().last() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 3600,
        _ => return Err(wrong()),
    };
    let number: u32 = text.get(..text.len() - 1).and_then(|number| number.parse().ok()).ok_or_else(wrong)?;
    if number == 0 { Err(wrong()) } else { Ok(u64::from(number) * unit) }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!((duration("90s"), duration("15m"), duration("1h")), (Ok(90), Ok(900), Ok(3600)));
        for wrong in ["", "s", "15", "0m", "-1m", "1d", "1.5h", "é"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}

//! Has something done by whoever may write to the record: the running gateway, over its control socket, or else this
//! process, which opens the record itself.

use std::io;
use std::path::Path;

use model::CommandId;
use serde_json::Value;
use store::Pace;

use super::Context;
use crate::config::Config;
use crate::control::{self, Asked, Code, Refusal, Request, Watching, actor, ask as ask_gateway};
use crate::{Failure, wiring};

/// Has it done.
pub(super) fn ask(context: &Context, request: &Request) -> Result<Value, Failure> {
    let config = context.load()?;
    let data = &config.gateway.data;
    match ask_gateway(data, request).map_err(|error| cannot_ask(data, &error))? {
        Asked::Answered(answer) => answer.map_err(refused),
        Asked::Nobody => ourselves(&config, request),
    }
}

/// Has something done that is about what runs now: only the gateway can.
pub(super) fn ask_live(context: &Context, request: &Request) -> Result<Value, Failure> {
    let data = context.load()?.gateway.data;
    match ask_gateway(&data, request).map_err(|error| cannot_ask(&data, &error))? {
        Asked::Answered(answer) => answer.map_err(refused),
        Asked::Nobody => Err(nobody_runs(&data)),
    }
}

/// What a running program shows, from now on.
pub(super) fn watch(context: &Context, command: CommandId) -> Result<Watching, Failure> {
    let data = context.load()?.gateway.data;
    let asked = control::watch(&data, command.to_string()).map_err(|error| cannot_ask(&data, &error))?;
    asked.ok_or_else(|| nobody_runs(&data))?.map_err(refused)
}

fn cannot_ask(data: &Path, error: &io::Error) -> Failure {
    Failure::new(format_args!("cannot ask the gateway that has {} open: {error}", data.display()))
        .hint("run this as the user that the gateway runs as, or as root, or stop the gateway first")
}

fn nobody_runs(data: &Path) -> Failure {
    Failure::not_found(format_args!("no gateway has {} open, so nothing is live", data.display()))
}

fn ourselves(config: &Config, request: &Request) -> Result<Value, Failure> {
    let by = actor(rustix::process::geteuid().as_raw());
    wiring::with_record(config, |recorder| {
        let executor = wiring::executor(config, recorder)?;
        executor.execute(request, &by, &mut || Pace::Go).map_err(refused)
    })
}

fn refused(refusal: Refusal) -> Failure {
    match refusal.code {
        Code::NotFound => Failure::not_found(refusal.message),
        Code::Invalid => Failure::usage(refusal.message),
        Code::Malformed => Failure::new(refusal.message)
            .hint("the gateway that runs may be of another version than this program: restart it"),
        Code::Open | Code::Held | Code::Already | Code::Unfinished | Code::Forbidden | Code::Busy | Code::Failed => {
            Failure::new(refusal.message)
        }
    }
}

/// A text of an answer.
pub(super) fn text<'a>(answer: &'a Value, key: &str) -> &'a str {
    answer.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A time of an answer, for people: to the second, UTC.
pub(super) fn when(time: &str) -> String {
    time.get(..19).unwrap_or_default().replace('T', " ")
}

/// A number of an answer.
pub(super) fn number(answer: &Value, key: &str) -> u64 {
    answer.get(key).and_then(Value::as_u64).unwrap_or(0)
}

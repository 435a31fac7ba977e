//! `onrecord-outpost`: the command line of an outpost.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::*;
use link::{CONNECTIONS_MAX, JoinToken};
use outpost::{CONNECTIONS_DEFAULT, Carrier, Options, run, say};

const HELP: &str = "\
Dials out to an OnRecord gateway, and lets it reach the addresses that are named here, and nothing else.

Usage: onrecord-outpost --state DIR --allow HOST:PORT [--allow HOST:PORT]...

Options:
  --state DIR         Directory of its own, made if there is none: key, certificate, the gateway's address
  --allow HOST:PORT   An address that the gateway may have dialled, letter by letter; may be given again
  --join-file FILE    File with the join token, for the first start; or the environment variable ONRECORD_JOIN
  --join TOKEN        The join token itself; other users of this machine can see it while this runs
  --connections N     Parallel connections to the gateway, 2 to 4 [default: 2]
  --proxy URL         HTTP proxy that is asked to CONNECT, http://HOST:PORT [default: the variable HTTPS_PROXY]
  --websocket         Reach the gateway inside a WebSocket, where a proxy lets only the web through
  --version, --help";

fn main() -> ExitCode {
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error} (--help says more)"));
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&error.to_string());
            return ExitCode::FAILURE;
        }
    };
    let ran: Result<(), Box<dyn std::error::Error>> =
        runtime.block_on(async { Ok(run(options, outpost::told_to_stop()?).await?) });
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// What the command line says; nothing when it only wanted to know something.
fn options() -> Result<Option<Options>, lexopt::Error> {
    let mut arguments = lexopt::Parser::from_env();
    let (mut state, mut join, mut allowed, mut connections) = (None, None, Vec::new(), CONNECTIONS_DEFAULT);
    let (mut proxy, mut carrier) = (None, Carrier::Tls);
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("state") => state = Some(PathBuf::from(arguments.value()?)),
            Long("allow") => allowed.push(arguments.value()?.parse()?),
            Long("join") => join = Some(arguments.value()?.string()?),
            Long("join-file") => {
                let file = PathBuf::from(arguments.value()?);
                match std::fs::read_to_string(&file) {
                    Ok(text) => join = Some(text),
                    // Once it has joined, the file is not needed, and may be gone.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(format!("cannot read {}: {error}", file.display()).into()),
                }
            }
            Long("connections") => connections = arguments.value()?.parse()?,
            Long("proxy") => proxy = Some(arguments.value()?.parse()?),
            Long("websocket") => carrier = Carrier::WebSocket,
            Long("version") => return Ok(told(concat!("onrecord-outpost ", env!("CARGO_PKG_VERSION")))),
            Short('h') | Long("help") => return Ok(told(HELP)),
            other => return Err(other.unexpected()),
        }
    }
    if !(2..=CONNECTIONS_MAX).contains(&connections) {
        return Err("--connections is 2 to 4".into());
    }
    let join = join.or_else(|| std::env::var("ONRECORD_JOIN").ok()).filter(|text| !text.trim().is_empty());
    let join = join.map(|text| text.parse::<JoinToken>()).transpose().map_err(|error| error.to_string())?;
    let from_environment = || std::env::var("HTTPS_PROXY").or_else(|_| std::env::var("https_proxy")).ok();
    if proxy.is_none()
        && let Some(text) = from_environment().filter(|text| !text.is_empty())
    {
        proxy = Some(text.parse().map_err(|error| format!("HTTPS_PROXY: {error}"))?);
    }
    let state = state.ok_or("--state is missing")?;
    Ok(Some(Options { state, join, allowed, connections, proxy, carrier }))
}

fn told(text: &str) -> Option<Options> {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
    None
}

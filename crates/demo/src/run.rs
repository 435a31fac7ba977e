//! The demo itself, in the order in which it happens.

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use onrecord::Exit;
use onrecord::commands::Selection;
use onrecord::commands::commands::{count, print_rows};
use onrecord::commands::{evidence, now_us, verify};
use onrecord::config::Config;
use onrecord::wiring::{self, Running};
use serde_json::json;
use store::{CommandStatus, Reader};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::agents::{self, Agent, CLAUDE, COPILOT, SETUP};
use crate::place::{Place, shown};
use crate::postgres::Server;
use crate::screen::Screen;
use crate::setup::{self, Resource};

/// A checkpoint is signed at most this long after its last entry; verification then covers everything.
const SIGNED_WITHIN: Duration = Duration::from_millis(1500);

/// Runs the demo. With `script`, ends by itself.
pub(crate) fn run(place: &Place, upstream: Option<&str>, script: bool, screen: &mut Screen) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // From here on Ctrl-C is a request, not an end: what was started is stopped in order.
    let interrupted = interruptions()?;
    let _held = place.hold()?;
    screen.title(&place.shown())?;

    let (server, resource) = resource(place, upstream, &runtime, screen)?;
    set_aside_altered(place, screen)?;
    let (running, keys) = gateway(place, &resource, screen)?;
    let done = show(place, &running, &keys, &runtime, script, &interrupted, screen);
    // In the order of who depends on whom: the gateway, its record, the server.
    let stopped = running.stop();
    if let Some(server) = server {
        server.stop();
    }
    let verdict = done?;
    stopped?;
    if !script {
        screen.close("Stopped. Everything is still on the record; --reset removes it.")?;
    }
    if verdict != Exit::Ok {
        bail!("the record does not verify");
    }
    Ok(())
}

fn resource(
    place: &Place,
    upstream: Option<&str>,
    runtime: &Runtime,
    screen: &mut Screen,
) -> Result<(Option<Server>, Resource)> {
    if let Some(url) = upstream {
        let resource = Resource::parse(url)?;
        let text = format!("yours, at {}", resource.address);
        screen.step("PostgreSQL", &text, None, json!({"address": resource.address}))?;
        return Ok((None, resource));
    }
    let started = Instant::now();
    let password = setup::resource_password(place)?;
    let server = Server::start(place, &password, &mut |text| {
        let _ = screen.note(text);
    })?;
    runtime.block_on(setup::make_database(server.port, &password))?;
    let text = format!("{} on 127.0.0.1:{}, database shop", server.version, server.port);
    let event = json!({"version": server.version, "port": server.port});
    screen.step("PostgreSQL", &text, Some(started.elapsed()), event)?;
    let resource = Resource::of(&server, &password);
    Ok((Some(server), resource))
}

fn configuration(place: &Place, resource: &Resource, screen: &mut Screen) -> Result<(Config, Vec<(Agent, String)>)> {
    let mut keys = Vec::new();
    for agent in Agent::ALL {
        keys.push((agent, setup::key(place, agent)?));
    }
    let listen = setup::listen_address();
    if let Some(usual) = setup::is_unusual(listen) {
        screen.note(&format!("port {usual} is in use; another one is taken"))?;
    }
    let config = setup::configure(place, resource, listen, &keys)?;
    Ok((config, keys))
}

/// After `demo tamper` the gateway would rightly refuse to go on with the record, so a new one begins.
fn set_aside_altered(place: &Place, screen: &mut Screen) -> Result<()> {
    let record = place.record();
    if !record.exists() {
        return Ok(());
    }
    if matches!(verify::briefly(&record), Ok((Exit::Ok, _))) {
        return Ok(());
    }
    let aside = place.root().join(format!("record.altered-{}", now_us() / 1_000_000));
    std::fs::rename(&record, &aside).with_context(|| format!("cannot move {} aside", record.display()))?;
    screen.note(&format!("the earlier record does not verify; it is set aside in {}", shown(&aside)))
}

fn gateway(place: &Place, resource: &Resource, screen: &mut Screen) -> Result<(Running, Vec<(Agent, String)>)> {
    let (mut config, mut keys) = configuration(place, resource, screen)?;
    if !config.gateway.data.exists() {
        wiring::create_record(&config)?;
    }
    let running = loop {
        match wiring::start(&config) {
            Ok(running) => break running,
            // Somebody took the port since it was found free.
            Err(_) if config.listen.postgres.iter().any(|address| !setup::is_free(*address)) => {
                (config, keys) = configuration(place, resource, screen)?;
            }
            Err(failure) => return Err(failure.into()),
        }
    };
    screen.step("record", &shown(&config.gateway.data), None, json!({"data": config.gateway.data}))?;
    let addresses: Vec<String> = running.addresses().postgres.iter().map(ToString::to_string).collect();
    let text = format!("postgres on {}", addresses.join(", "));
    screen.step("gateway", &text, None, json!({"postgres": addresses}))?;
    let people: Vec<String> = [CLAUDE, COPILOT]
        .iter()
        .map(|agent| match agent.on_behalf_of {
            Some(principal) => format!("{} for {principal}", agent.name()),
            None => agent.name(),
        })
        .collect();
    screen.step("identities", &people.join(", "), None, json!({"identities": people}))?;
    Ok((running, keys))
}

/// The agents at work, what the record says of it, and how to go on.
fn show(
    place: &Place,
    running: &Running,
    keys: &[(Agent, String)],
    runtime: &Runtime,
    script: bool,
    interrupted: &Receiver<()>,
    screen: &mut Screen,
) -> Result<Exit> {
    let gateway = *running.addresses().postgres.first().context("the gateway has no address")?;
    let key =
        |of: Agent| keys.iter().find(|(agent, _)| agent.user == of.user).map(|(_, key)| key.as_str()).unwrap_or("");
    runtime.block_on(agents::set_up(key(SETUP), gateway))?;
    screen.heading("Two agents at work")?;
    let began = now_us();
    runtime.block_on(agents::work(key(CLAUDE), key(COPILOT), gateway))?;
    let worked = Instant::now();
    await_outcomes(place, began)?;
    let selection = Selection { since_us: Some(began), ..Selection::default() };
    print_rows(&mut screen.console, &place.record(), &selection, 2)?;

    screen.heading("The record, verified")?;
    std::thread::sleep(SIGNED_WITHIN.saturating_sub(worked.elapsed()));
    let verdict = verify::print(&mut screen.console, &place.record(), 2)?;
    if verdict == Exit::Ok {
        hand_out(place, running, &selection, screen)?;
    }
    if !script {
        next(place, gateway, screen)?;
        let _ = interrupted.recv();
    }
    Ok(verdict)
}

/// What the agents did, as one file that proves itself, and the page that verifies it.
fn hand_out(place: &Place, running: &Running, selection: &Selection, screen: &mut Screen) -> Result<()> {
    let (bundle, page) = (place.evidence(), place.page());
    if bundle.exists() {
        std::fs::remove_file(&bundle).with_context(|| format!("cannot replace {}", bundle.display()))?;
    }
    let data = place.record();
    let reader = Reader::open(&data)?;
    let request =
        evidence::Request { data: &data, reader: &reader, selection, withhold: &[], out: &bundle, policy: None };
    let exported = evidence::export(&request, &mut |entry| running.note_export(entry))?;
    std::fs::write(&page, evidence::page()).with_context(|| format!("cannot write {}", page.display()))?;
    screen.heading("As one file for an auditor\n")?;
    let text = format!("{}: {} commands and their proof", shown(&bundle), exported.commands);
    let event = json!({"file": bundle, "page": page, "commands": exported.commands});
    screen.step("evidence", &text, None, event)
}

/// Waits until every command of this run has its outcome, which is within milliseconds.
fn await_outcomes(place: &Place, began: i64) -> Result<()> {
    let deadline = Instant::now() + SIGNED_WITHIN;
    let selection = Selection { since_us: Some(began), status: Some(CommandStatus::Pending), ..Selection::default() };
    while count(&place.record(), &selection)? > 0 {
        if Instant::now() > deadline {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn next(place: &Place, gateway: std::net::SocketAddr, screen: &mut Screen) -> Result<()> {
    screen.heading("Now you (in another terminal, in this directory)\n")?;
    if has_psql() {
        let line = format!(
            "PGPASSFILE={} psql -h {} -p {} -U {} {}",
            shown(&place.pgpass(CLAUDE.user)),
            gateway.ip(),
            gateway.port(),
            CLAUDE.user,
            agents::CONNECTION
        );
        screen.try_this("be claude-code: try  select * from onrecord_demo.products;", &line)?;
    }
    let onrecord = again("onrecord");
    let config = format!("{onrecord} --config {}", shown(&place.config()));
    screen.try_this("what everybody did, as it happens", &format!("{config} commands --follow"))?;
    screen.try_this("is anything altered or missing?", &format!("{config} verify"))?;
    let verify = format!("{onrecord} verify {} --vkey {}", shown(&place.evidence()), shown(&place.vkey()));
    screen.try_this("be the auditor, with nothing but the file and the public key", &verify)?;
    screen.try_this("the same in a browser: open this and choose the file", &shown(&place.page()))?;
    screen.try_this("change one byte of the record on disk, and see it caught", &again("tamper"))?;
    screen.close("Ctrl-C stops everything that was started.")
}

/// How to run this program once more, as it was built: to do this, or `onrecord` with what follows. That command is in it,
/// and need not be built by itself.
pub(crate) fn again(what: &str) -> String {
    let profile = if cfg!(debug_assertions) { "" } else { "--release " };
    format!("cargo run -q {profile}-p demo -- {what}").trim_end_matches([' ', '-']).to_owned()
}

fn has_psql() -> bool {
    std::process::Command::new("psql").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// SIGINT and SIGTERM as messages.
fn interruptions() -> Result<Receiver<()>> {
    let (sender, receiver) = channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if sender.send(()).is_err() {
                    return;
                }
            }
        });
    });
    Ok(receiver)
}

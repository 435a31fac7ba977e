//! `cargo xtask test`: the steps, their order and their times.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::{install, regress, shell, wasm};

/// Runs the steps that the arguments leave, and prints what each took.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let chosen = choose(args)?;
    let mut times: Vec<(Step, Duration)> = Vec::new();
    for step in chosen.steps {
        println!("\n==> {}", step.name());
        let start = Instant::now();
        let result = step.run(chosen.pace);
        times.push((step, start.elapsed()));
        if let Err(error) = result {
            print_times(&times);
            return Err(error.context(format!("step `{}` failed", step.name())));
        }
    }
    print_times(&times);
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Install,
    Fmt,
    Clippy,
    Deny,
    Wasm,
    Test,
    Regress,
}

/// How much of each step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    Full,
    Quick,
}

impl Step {
    const ALL: [Step; 7] = [Step::Install, Step::Fmt, Step::Clippy, Step::Deny, Step::Wasm, Step::Test, Step::Regress];

    fn name(self) -> &'static str {
        match self {
            Step::Install => "install",
            Step::Fmt => "fmt",
            Step::Clippy => "clippy",
            Step::Deny => "deny",
            Step::Wasm => "wasm",
            Step::Test => "test",
            Step::Regress => "regress",
        }
    }

    fn run(self, pace: Pace) -> Result<()> {
        match self {
            Step::Install => install::everything(),
            Step::Fmt => shell::run(&mut shell::cargo(["fmt", "--all", "--check"])),
            Step::Clippy => {
                let args = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
                shell::run(&mut shell::cargo(args))
            }
            Step::Deny => deny(),
            Step::Wasm => wasm::run(wasm::Then::Compare),
            Step::Test => test(pace),
            Step::Regress => {
                regress::prepare()?;
                // The whole workspace, as in the step before, so that nothing is built again for other features.
                let test = ["test", "--workspace", "--test", "e2e", "--"];
                shell::run(shell::cargo(test).args(["--ignored", "--nocapture", "regress::"]))
            }
        }
    }
}

fn test(pace: Pace) -> Result<()> {
    match pace {
        Pace::Full => shell::run(&mut shell::cargo(["test", "--workspace", "--no-fail-fast"])),
        Pace::Quick => {
            // The integration tests of these two start servers.
            let with_servers = ["onrecord", "testkit"];
            let mut rest = shell::cargo(["test", "--workspace"]);
            with_servers.iter().for_each(|name| _ = rest.args(["--exclude", name]));
            shell::run(&mut rest)?;
            let mut units = shell::cargo(["test", "--lib", "--bins"]);
            with_servers.iter().for_each(|name| _ = units.args(["--package", name]));
            shell::run(&mut units)
        }
    }
}

/// Licences, sources and duplicates by `deny.toml`; advisories where their database can be had.
fn deny() -> Result<()> {
    let deny = match shell::find("cargo-deny") {
        Some(found) => found,
        None => install_deny()?,
    };
    let check = |what: &[&str]| {
        let mut command = Command::new(&deny);
        command.arg("check").args(what).current_dir(shell::root());
        command
    };
    shell::run(&mut check(&["bans", "licenses", "sources"]))?;
    if let Err(error) = shell::output(check(&["advisories"]).arg("--hide-inclusion-graph")) {
        let text = error.to_string();
        if text.contains("failed to fetch advisory database") {
            println!("    advisories NOT checked: the advisory database cannot be fetched here");
            return Ok(());
        }
        bail!("{text}");
    }
    Ok(())
}

fn install_deny() -> Result<std::path::PathBuf> {
    let root = shell::target()?.join("tools");
    let deny = root.join("bin/cargo-deny");
    if !deny.is_file() {
        // Not optimised: it runs for two seconds, and building it must not take minutes more.
        let mut cargo = shell::cargo(["install", "cargo-deny", "--locked", "--debug", "--root"]);
        shell::run(cargo.arg(&root).args(["--version", DENY_VERSION]))?;
    }
    Ok(deny)
}

struct Chosen {
    steps: Vec<Step>,
    pace: Pace,
}

fn choose(args: &[String]) -> Result<Chosen> {
    let mut steps = Step::ALL.to_vec();
    let mut only = Vec::new();
    let mut pace = Pace::Full;
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (arg, None),
        };
        match name {
            "--quick" => pace = Pace::Quick,
            "--without" | "--only" => {
                let value = value.or_else(|| args.next()).context(format!("{name} which step?"))?;
                let step = find(value)?;
                if name == "--only" {
                    only.push(step);
                } else {
                    steps.retain(|s| *s != step);
                }
            }
            _ => match name.strip_prefix("--without-").map(find) {
                Some(step) => {
                    let step = step?;
                    steps.retain(|s| *s != step);
                }
                None => bail!("`cargo xtask test` knows no `{arg}`; see `cargo xtask help`"),
            },
        }
    }
    if pace == Pace::Quick {
        steps.retain(|s| matches!(s, Step::Fmt | Step::Clippy | Step::Test));
    }
    if !only.is_empty() {
        steps.retain(|s| only.contains(s));
    }
    Ok(Chosen { steps, pace })
}

fn find(name: &str) -> Result<Step> {
    let names = || Step::ALL.map(Step::name).join(", ");
    let found = Step::ALL.into_iter().find(|s| s.name() == name);
    found.with_context(|| format!("no step `{name}`; there are: {}", names()))
}

fn print_times(times: &[(Step, Duration)]) {
    println!("\n==> times");
    for (step, time) in times {
        println!("    {:8} {:7.1} s", step.name(), time.as_secs_f64());
    }
    let all: Duration = times.iter().map(|(_, time)| *time).sum();
    println!("    {:8} {:7.1} s", "all", all.as_secs_f64());
}

/// Pinned, so that a new release cannot break a build that nobody touched.
const DENY_VERSION: &str = "0.20.2";

//! Installs PostgreSQL's programs where that is one safe step, and says the step where it is not.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Programs;

/// Tells Debian's packages not to make and start a server of the system's own.
const NO_CLUSTER: &str = "/etc/postgresql-common/createcluster.d/onrecord-demo.conf";

/// As root on Debian and its kin, installs the package; elsewhere says what to run.
pub(super) fn install(say: &mut dyn FnMut(&str)) -> Result<Programs> {
    let apt = find_on_path("apt-get");
    if !rustix::process::geteuid().is_root() || !apt {
        bail!(
            "PostgreSQL is not installed, and the demo needs its programs `initdb` and `postgres`.\n  \
             Install them with: {}\n  \
             or show it a server of yours: --upstream postgres://USER:PASSWORD@HOST/DATABASE",
            advice(apt)
        );
    }
    say(
        "PostgreSQL is not installed: installing the package postgresql with apt-get (no server of the system's own is made or started)",
    );
    let conf = Path::new(NO_CLUSTER);
    if !conf.exists() {
        if let Some(parent) = conf.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(
            conf,
            "# Written by the OnRecord demo, which only needs the programs.\ncreate_main_cluster = false\n",
        )
        .with_context(|| format!("cannot write {NO_CLUSTER}"))?;
    }
    let mut log = String::new();
    if !apt_get(&["install", "-y", "--no-install-recommends", "postgresql"], &mut log)? {
        say("the package lists are old: apt-get update");
        apt_get(&["update"], &mut log)?;
        if !apt_get(&["install", "-y", "--no-install-recommends", "postgresql"], &mut log)? {
            let end: Vec<&str> = log.lines().rev().take(8).collect();
            let end: Vec<&str> = end.into_iter().rev().collect();
            bail!("apt-get did not install postgresql; it says:\n  {}", end.join("\n  "));
        }
    }
    Programs::find().context("postgresql is installed, and its programs are not in /usr/lib/postgresql/*/bin")
}

fn apt_get(arguments: &[&str], log: &mut String) -> Result<bool> {
    let output = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .context("cannot run apt-get")?;
    log.push_str(&String::from_utf8_lossy(&output.stdout));
    log.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok(output.status.success())
}

fn advice(apt: bool) -> &'static str {
    if apt {
        "sudo apt-get install postgresql"
    } else if find_on_path("dnf") {
        "sudo dnf install postgresql-server"
    } else if find_on_path("apk") {
        "sudo apk add postgresql"
    } else if find_on_path("pacman") {
        "sudo pacman -S postgresql"
    } else if find_on_path("zypper") {
        "sudo zypper install postgresql-server"
    } else if find_on_path("brew") {
        "brew install postgresql"
    } else {
        "your system's package manager (the package is called postgresql or postgresql-server)"
    }
}

fn find_on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).is_file()))
}

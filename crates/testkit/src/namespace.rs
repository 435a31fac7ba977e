//! A network namespace of the test's own, from which the outside can be reached and into which nothing leads.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::process;

/// A network namespace with a pair of interfaces: one end in it, one outside.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    outside: String,
    inside: String,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Namespace {
    /// Makes one, with `iproute2`, as root; `None` for other users, who cannot.
    pub fn new() -> Option<Namespace> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let (id, number) = (std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let name = format!("orx{id}x{number}");
        // A /30 of its own for each process and number.
        let block = (id.wrapping_mul(7).wrapping_add(number)) % 16_000;
        let (third, fourth) = (block / 64, block % 64 * 4);
        let address = |host: u32| format!("10.233.{third}.{}", fourth + host);
        let (outside, inside) = (address(1), address(2));
        let namespace = Namespace { name: name.clone(), outside: outside.clone(), inside: inside.clone() };
        let (here, there) = (format!("ox{id}a{number}"), format!("ox{id}b{number}"));
        let net = format!("netns add {name}");
        ip(&net);
        ip(&format!("link add {here} type veth peer name {there}"));
        ip(&format!("link set {there} netns {name}"));
        ip(&format!("addr add {outside}/30 dev {here}"));
        ip(&format!("link set {here} up"));
        ip(&format!("-n {name} addr add {inside}/30 dev {there}"));
        ip(&format!("-n {name} link set {there} up"));
        ip(&format!("-n {name} link set lo up"));
        Some(namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address outside that can be reached from within.
    pub fn outside(&self) -> &str {
        &self.outside
    }

    /// The address of its own end.
    pub fn inside(&self) -> &str {
        &self.inside
    }

    /// What listens in it, as `ss` says it.
    pub fn listeners(&self) -> Vec<String> {
        let mut ss = Namespace::command(&self.name, "ss");
        let said = process::run(ss.args(["-Hltn"]), "").expect_success("ss");
        said.lines().filter_map(|line| line.split_whitespace().nth(3)).map(str::to_owned).collect()
    }

    /// A program in a namespace.
    pub fn command(namespace: &str, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(program.as_ref());
        command
    }

    /// A program in a namespace, as another user, ended with the thread that starts it.
    pub fn command_as(namespace: &str, program: impl AsRef<Path>, user: Option<(u32, u32)>, signal: &str) -> Command {
        let mut command = Namespace::command(namespace, "setpriv");
        if let Some((uid, gid)) = user {
            command.args(["--reuid", &uid.to_string(), "--regid", &gid.to_string(), "--clear-groups"]);
        }
        command.args(["--pdeathsig", signal, "--"]).arg(program.as_ref());
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Its end of the pair goes with it, and with that the other.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

#[track_caller]
fn ip(arguments: &str) {
    process::run(Command::new("ip").args(arguments.split(' ')), "").expect_success(arguments);
}

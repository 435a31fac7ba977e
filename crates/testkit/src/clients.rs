//! Unmodified clients, each doing the same catalogue in its own way: simple queries, several
//! statements in one, parameters, a statement prepared once and executed thrice, errors, errors in
//! a transaction, a pipeline that breaks in the middle, COPY both ways, LISTEN and NOTIFY, a big
//! row, cancel.
//!
//! Each script in `clients/` prints one JSON object per command that it made its driver send, with
//! what came of it as the driver reported it; what a driver sends on its own account is told too.

mod tokio_postgres;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::agree::Told;
use crate::postgres::{binary, target_dir};
use crate::process::{find_program, run};
use crate::{Postgres, Target, Tls};

/// One client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Python, asyncpg.
    Asyncpg,
    /// JavaScript, pg.
    NodePostgres,
    /// PostgreSQL's benchmark, in its extended and prepared modes and with a pipeline.
    Pgbench,
    /// Java, Debian's pgjdbc.
    Pgjdbc,
    /// The terminal, libpq 15.
    Psql,
    /// Python, psycopg 3 on its own libpq 18.
    Psycopg,
    /// Rust, tokio-postgres.
    TokioPostgres,
}

impl Client {
    /// Goes through the catalogue against `target`. `server` is the PostgreSQL behind it, which
    /// scripts look at directly where they must know that a statement is running.
    #[track_caller]
    pub fn run(self, target: &Target, server: &Postgres) -> Vec<Told> {
        self.run_with(target, server, &[])
    }

    /// As [`Client::run`], with further environment variables.
    #[track_caller]
    pub fn run_with(self, target: &Target, server: &Postgres, env: &[(&str, &str)]) -> Vec<Told> {
        if self == Client::TokioPostgres {
            return tokio_postgres::run(target, server);
        }
        let mut command = self.command();
        target.libpq(&mut command);
        command.env("RUNNING", running_script());
        command.env("DIRECT_PORT", server.port().to_string());
        command.env("DIRECT_PASSWORD", server.target().password);
        command.env("PSQL", binary("psql")).env("PGBENCH", binary("pgbench"));
        if let Tls::VerifyFull(ca) = &target.tls {
            command.env("TLS_CA", ca);
        }
        command.envs(env.iter().copied());
        let finished = run(&mut command, "");
        Told::parse(&finished.expect_success(&format!("{self:?}")))
    }

    fn command(self) -> Command {
        let script = |name: &str| scripts().join(name);
        let tool = |path: PathBuf| {
            let hint = "`cargo xtask test` installs the clients";
            assert!(path.exists(), "{self:?}: {} is missing; {hint}", path.display());
            path
        };
        match self {
            Client::Asyncpg => with(tool(python()), script("catalogue_asyncpg.py")),
            Client::Psycopg => with(tool(python()), script("catalogue_psycopg.py")),
            Client::NodePostgres => {
                let modules = tool(installed().join("node/node_modules/pg"));
                let mut node = with(program("node"), script("node-postgres/catalogue.js"));
                node.env("NODE_PATH", modules.parent().expect("node_modules"));
                node
            }
            Client::Pgjdbc => {
                let mut java = Command::new(program("java"));
                // Quick to start; the work is waiting for the network.
                java.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"]);
                java.arg("-cp").arg(tool(PathBuf::from("/usr/share/java/postgresql.jar")));
                java.arg(script("Catalogue.java"));
                java
            }
            Client::Pgbench => with(PathBuf::from("sh"), script("catalogue_pgbench.sh")),
            Client::Psql => with(PathBuf::from("sh"), script("catalogue_psql.sh")),
            Client::TokioPostgres => unreachable!("runs in this process"),
        }
    }
}

/// Waits until the server is running a statement that contains `part`, seen from the side.
pub fn await_running(server: &Postgres, part: &str) {
    let mut command = Command::new("sh");
    command.arg(running_script()).arg(part);
    command.env("DIRECT_PORT", server.port().to_string());
    command.env("DIRECT_PASSWORD", server.target().password).env("PSQL", binary("psql"));
    run(&mut command, "").expect_success("running.sh");
}

/// The Python with psycopg and asyncpg.
pub fn python() -> PathBuf {
    installed().join("venv/bin/python")
}

/// Where `cargo xtask test` puts what it installs.
pub fn installed() -> PathBuf {
    target_dir().join("clients")
}

/// The directory of the scripts.
pub fn scripts() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/clients"))
}

fn running_script() -> PathBuf {
    scripts().join("running.sh")
}

pub(crate) fn program(name: &str) -> PathBuf {
    find_program(name).unwrap_or_else(|| panic!("`{name}` is not installed; `cargo xtask test` says how"))
}

fn with(program: PathBuf, script: PathBuf) -> Command {
    let mut command = Command::new(program);
    command.arg(script);
    command
}

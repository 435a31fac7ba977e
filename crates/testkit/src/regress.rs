//! PostgreSQL's own regression suite, run against any target. `cargo xtask test` makes it ready
//! below `target/regress/suite`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use crate::Target;
use crate::postgres::{binary, server_user, target_dir};
use crate::process::{run, run_for};

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Tests that ran.
    pub ran: usize,
    /// Tests whose output was not the expected one.
    pub failed: BTreeSet<String>,
    /// The last lines of the suite's own output.
    pub report: String,
    /// Where outputs differ from what was expected.
    pub differences: String,
}

/// Runs the whole suite. The target's user must be a superuser, and databases `postgres` and
/// `regression` must be reachable by just these names: the suite makes and uses them.
pub fn run_suite(target: &Target) -> Outcome {
    let suite = target_dir().join("regress/suite");
    assert!(suite.join("version").is_file(), "`cargo xtask test --only regress` fetches the suite");
    // A copy for each run: the suite writes into its own directories, as the server's user, and
    // the server reads its files and loads its libraries.
    let dir = tempfile::Builder::new().prefix("onrecord-regress-").tempdir().unwrap();
    let mut cp = Command::new("cp");
    cp.arg("-R").arg("-t").arg(dir.path()).arg(suite.join("regress")).arg(suite.join("lib"));
    run(cp.arg(suite.join("pg_regress")), "").expect_success("cp");
    fs::create_dir(dir.path().join("out")).unwrap();
    let mut command = Command::new(dir.path().join("pg_regress"));
    if let Some((uid, gid)) = server_user() {
        let mut chown = Command::new("chown");
        run(chown.args(["-R", &format!("{uid}:{gid}")]).arg(dir.path()), "").expect_success("chown");
        command.uid(uid).gid(gid);
    }
    target.libpq(&mut command);
    let option = |name: &str, value: &str| format!("--{name}={value}");
    let path = |part: &str| dir.path().join(part).display().to_string();
    let bin = binary("psql").parent().expect("a directory").display().to_string();
    command.args([
        option("host", &target.host),
        option("port", &target.port.to_string()),
        option("user", &target.user),
        option("bindir", &bin),
        option("dlpath", &path("lib")),
        option("inputdir", &path("regress")),
        option("outputdir", &path("out")),
        option("max-concurrent-tests", "20"),
        option("schedule", &path("regress/parallel_schedule")),
    ]);
    let finished = run_for(command.current_dir(dir.path()), "", Duration::from_secs(1800));
    let differences = fs::read(dir.path().join("out/regression.diffs")).unwrap_or_default();
    read(&finished.stdout, String::from_utf8_lossy(&differences).into_owned())
}

/// Reads lines such as `test boolean ... ok   46 ms` and `     name  ... FAILED  208 ms`.
fn read(output: &str, differences: String) -> Outcome {
    let mut ran = 0;
    let mut failed = BTreeSet::new();
    for line in output.lines() {
        let Some((name, result)) = line.split_once(" ... ") else {
            continue;
        };
        let name = name.trim_start_matches("test ").trim();
        let failure = result.trim_start().starts_with("FAILED") || result.trim_start().starts_with("failed");
        ran += 1;
        if failure {
            failed.insert(name.to_owned());
        }
    }
    let last: Vec<&str> = output.lines().rev().take(12).collect();
    let report = last.into_iter().rev().collect::<Vec<_>>().join("\n");
    Outcome { ran, failed, report, differences }
}

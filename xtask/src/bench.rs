//! `cargo xtask bench`: builds what is measured as it is released, then becomes the measuring
//! program, so that a signal meant for the run reaches it and not us.

use std::{
    env,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

/// Builds and runs; returns only when that fails.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no workspace around it")?;
    let built = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "--quiet", "-p", "bench", "-p", "onrecord", "-p", "outpost"])
        .current_dir(workspace)
        .status()?;
    ensure!(built.success(), "the release build failed");
    let target = env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace.join("target"), |directory| workspace.join(PathBuf::from(directory)));
    let error = Command::new(target.join("release").join("bench")).args(arguments).exec();
    Err(error).context("the measuring program does not start")
}

//! `cargo xtask wasm`: the evidence verifier for browsers, as the `onrecord` binary carries it.
//!
//! The artifact is committed, because users build with a stable toolchain that has no WASM target. Whoever doubts it builds
//! it again: the same sources and Debian's toolchain give the same bytes, wherever the sources lie. For that the sources
//! are laid out as a workspace of their own, in which no path is the machine's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// The compiler that the committed artifact is of: Debian's `rustc-web`.
const RUSTC: &str = "/usr/bin/rustc";
const CARGO: &str = "/usr/bin/cargo";
const VERSION: &str = "1.96.0";
const ARTIFACT: &str = "crates/onrecord/src/commands/evidence/verify.wasm";
/// The crates that go into it.
const CRATES: [&str; 3] = ["model", "ledger", "evidence"];
/// An artifact that is larger than this carries something that it should not, in bytes.
const ARTIFACT_BYTES_MAX: usize = 800_000;

/// What to do with what was built.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// Replace the committed artifact.
    Write,
    /// Hold the committed artifact against it.
    Compare,
}

/// Whether Debian's toolchain for it is there.
pub(crate) fn toolchain() -> bool {
    let is = |program: &str, word: &str| {
        shell::output(Command::new(program).arg("--version"))
            .is_ok_and(|said| said.starts_with(&format!("{word} {VERSION} ")))
    };
    is(RUSTC, "rustc") && is(CARGO, "cargo") && standard_library().is_ok()
}

/// Builds it.
pub(crate) fn run(then: Then) -> Result<()> {
    if !toolchain() {
        bail!(
            "the verifier for browsers is built with Debian's toolchain {VERSION}: packages rustc-web, cargo-web, \
             rust-web-src and lld-19. With another version its bytes are others: change the version in xtask/src/wasm.rs, \
             build it anew, and commit both"
        );
    }
    let built = build()?;
    let artifact = shell::root().join(ARTIFACT);
    match then {
        Then::Write => {
            fs::write(&artifact, &built).context(ARTIFACT)?;
            println!("    {ARTIFACT}: {} bytes", built.len());
            Ok(())
        }
        Then::Compare if fs::read(&artifact).context(ARTIFACT)? == built => {
            println!("    {ARTIFACT} is what the sources say");
            Ok(())
        }
        Then::Compare => {
            bail!("{ARTIFACT} is not what the sources say: `cargo xtask wasm` builds it anew; then commit it")
        }
    }
}

fn build() -> Result<Vec<u8>> {
    let home = shell::target()?.join("wasm");
    let stage = home.join("stage");
    lay_out(&stage)?;
    let mut cargo = Command::new(CARGO);
    cargo.current_dir(&stage).env("CARGO_TARGET_DIR", home.join("target"));
    for name in ["RUSTFLAGS", "RUSTC_WRAPPER", "CARGO_BUILD_RUSTFLAGS", "RUSTUP_TOOLCHAIN", "RUSTDOCFLAGS"] {
        cargo.env_remove(name);
    }
    // The standard library is built too: Debian has it for another WASM target only.
    cargo.env("RUSTC", RUSTC).env("RUSTC_BOOTSTRAP", "1").env("CARGO_ENCODED_RUSTFLAGS", flags(&stage)?.join("\x1f"));
    cargo.args(["build", "--quiet", "--release", "-p", "onrecord-wasm", "--target", "wasm32-unknown-unknown"]);
    shell::run(cargo.arg("-Zbuild-std=std,panic_abort"))?;
    let file = home.join("target/wasm32-unknown-unknown/release/onrecord_wasm.wasm");
    let built = fs::read(&file).with_context(|| file.display().to_string())?;
    for path in [shell::root(), &stage, &cargo_home()?] {
        let path = path.display().to_string();
        if built.windows(path.len()).any(|window| window == path.as_bytes()) {
            bail!("the artifact names {path}, a path of this machine");
        }
    }
    if built.len() > ARTIFACT_BYTES_MAX {
        bail!("the artifact has {} bytes, and should have at most {ARTIFACT_BYTES_MAX}", built.len());
    }
    Ok(built)
}

fn flags(stage: &Path) -> Result<Vec<String>> {
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    Ok(vec![
        "-Clinker=wasm-ld-19".to_owned(),
        "-Zlocation-detail=none".to_owned(),
        remap(stage, "/onrecord"),
        remap(&cargo_home()?, "/cargo"),
        remap(&standard_library()?, "/rust"),
    ])
}

/// Makes `stage` a workspace of just what is needed: cargo names what it builds by paths within the workspace.
fn lay_out(stage: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(stage);
    let root = shell::root();
    for name in CRATES {
        let (from, to) = (root.join("crates").join(name), stage.join("crates").join(name));
        copy_dir(&from.join("src"), &to.join("src"))?;
        let manifest = fs::read_to_string(from.join("Cargo.toml"))?;
        // What only tests need would be locked, and fetched.
        let shipped = manifest.split("\n[dev-dependencies]").next().unwrap_or_default();
        fs::write(to.join("Cargo.toml"), shipped)?;
    }
    copy_dir(&root.join("wasm/src"), &stage.join("wasm/src"))?;
    let shim = fs::read_to_string(root.join("wasm/Cargo.toml")).context("wasm/Cargo.toml")?;
    let (shim, profile) = shim.split_once("[profile.release]").context("wasm/Cargo.toml has a profile")?;
    fs::write(stage.join("wasm/Cargo.toml"), shim.replace("[workspace]\n", ""))?;
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    // Nothing of it needs what stands in for the generators of other crates.
    let dependencies = between(&manifest, "[workspace.package]", "[patch.")?;
    let shared = format!("{dependencies}{}", between(&manifest, "[workspace.lints.rust]", "[profile.")?);
    let workspace = format!(
        "[workspace]\nresolver = \"3\"\nmembers = [\"crates/*\", \"wasm\"]\n\n{shared}\n[profile.release]{profile}"
    );
    fs::write(stage.join("Cargo.toml"), workspace)?;
    // The same versions as the product's.
    fs::copy(root.join("Cargo.lock"), stage.join("Cargo.lock")).map(drop).context("Cargo.lock")
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> Result<&'a str> {
    let start = text.find(from).with_context(|| format!("Cargo.toml has {from}"))?;
    let rest = text.get(start..).unwrap_or_default();
    Ok(rest.split(to).next().unwrap_or(rest))
}

fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn cargo_home() -> Result<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"));
    std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home).context("no home directory")
}

/// The sources of the standard library, as the package installs them.
fn standard_library() -> Result<PathBuf> {
    let sysroot = shell::output(Command::new(RUSTC).args(["--print", "sysroot"]))?;
    let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
    if !library.join("std").is_dir() {
        bail!("the sources of the standard library are missing: package rust-web-src");
    }
    library.canonicalize().context("the standard library's sources")
}

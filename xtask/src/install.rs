//! What the tests need beyond Rust: a real PostgreSQL, the runtimes of the clients, and the clients
//! themselves, each pinned and put below `target/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{shell, wasm};

/// Installs what is missing, or says exactly what is.
pub(crate) fn everything() -> Result<()> {
    packages()?;
    let clients = shell::target()?.join("clients");
    fs::create_dir_all(&clients)?;
    python(&clients)?;
    node(&clients, "node", "node-postgres")?;
    node(&clients, "browser", "browser")?;
    node(&clients, "issuers", "issuers")
}

/// One thing that must be on the machine, and the Debian package that brings it.
struct Need {
    what: &'static str,
    package: &'static str,
    present: fn() -> bool,
}

const NEEDS: [Need; 26] = [
    Need { what: "PostgreSQL server", package: "postgresql", present: || postgres("initdb") },
    Need { what: "psql", package: "postgresql-client", present: || postgres("psql") },
    Need { what: "pgbench", package: "postgresql-contrib", present: || postgres("pgbench") },
    Need { what: "java", package: "default-jdk-headless", present: || on_path("javac") },
    Need { what: "pgjdbc", package: "libpostgresql-jdbc-java", present: pgjdbc },
    Need { what: "node", package: "nodejs", present: || on_path("node") },
    Need { what: "npm", package: "npm", present: || on_path("npm") },
    Need { what: "python3 with venv", package: "python3-venv", present: venv },
    Need { what: "network namespaces", package: "iproute2", present: || on_path("ip") },
    Need { what: "strace", package: "strace", present: || on_path("strace") },
    Need { what: "go", package: "golang-go", present: || on_path("go") },
    Need { what: "Go's checksum database", package: "golang-golang-x-mod-dev", present: go_sumdb },
    Need { what: "a browser", package: "chromium", present: || on_path("chromium") },
    Need { what: "Debian's Rust", package: "rustc-web", present: wasm::toolchain },
    Need { what: "Debian's cargo", package: "cargo-web", present: wasm::toolchain },
    Need { what: "Rust's sources", package: "rust-web-src", present: wasm::toolchain },
    Need { what: "a linker for WASM", package: "lld-19", present: || on_path("wasm-ld-19") },
    Need {
        what: "SSH clients",
        package: "openssh-client",
        present: || ["ssh", "sftp", "scp"].into_iter().all(on_path),
    },
    Need { what: "SSH server", package: "openssh-server", present: || Path::new("/usr/sbin/sshd").is_file() },
    Need {
        what: "SFTP server",
        package: "openssh-sftp-server",
        present: || Path::new("/usr/lib/openssh/sftp-server").is_file(),
    },
    Need { what: "rsync", package: "rsync", present: || on_path("rsync") },
    Need { what: "git", package: "git", present: || on_path("git") },
    Need { what: "zsh", package: "zsh", present: || on_path("zsh") },
    Need { what: "fish", package: "fish", present: || on_path("fish") },
    Need { what: "passwords for ssh", package: "sshpass", present: || on_path("sshpass") },
    Need { what: "a C compiler", package: "gcc", present: || on_path("cc") || on_path("gcc") },
];

/// The Go packages that read the log as strangers do.
fn go_sumdb() -> bool {
    Path::new("/usr/share/gocode/src/golang.org/x/mod/sumdb/tlog").is_dir()
}

fn packages() -> Result<()> {
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !(need.present)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    let whats: Vec<&str> = missing.iter().map(|need| need.what).collect();
    let by_hand = format!("apt-get install {}", packages.join(" "));
    if !shell::is_root() || shell::find("apt-get").is_none() {
        bail!("missing: {}\non Debian: sudo {by_hand}", whats.join(", "));
    }
    println!("    missing: {}", whats.join(", "));
    // The packages bring the programs only: no server of the system's is made or started.
    let drop_in = Path::new("/etc/postgresql-common/createcluster.d");
    if packages.contains(&"postgresql") {
        fs::create_dir_all(drop_in).context("createcluster.d")?;
        fs::write(drop_in.join("onrecord.conf"), "create_main_cluster = false\n")?;
    }
    if packages.contains(&"openssh-server") {
        fs::create_dir_all("/etc/ssh").context("/etc/ssh")?;
        fs::write("/etc/ssh/sshd_not_to_be_run", "").context("sshd_not_to_be_run")?;
    }
    shell::run(apt().arg("update").arg("-qq"))?;
    let mut install = apt();
    install.args(["install", "-y", "-qq", "--no-install-recommends"]).args(&packages);
    shell::run(&mut install)?;
    match NEEDS.iter().find(|need| !(need.present)()) {
        None => Ok(()),
        Some(need) => bail!("{} is still missing after: {by_hand}", need.what),
    }
}

fn apt() -> Command {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=300"]);
    apt
}

fn python(clients: &Path) -> Result<()> {
    let requirements = scripts().join("requirements.txt");
    let venv = clients.join("venv");
    installed(&venv, &requirements, || {
        shell::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
        let mut pip = Command::new(venv.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
        shell::run(pip.arg(&requirements))
    })
}

fn node(clients: &Path, home: &str, script: &str) -> Result<()> {
    let pins = scripts().join(script);
    let lock = pins.join("package-lock.json");
    let home = clients.join(home);
    installed(&home, &lock, || {
        fs::create_dir_all(&home)?;
        fs::copy(&lock, home.join("package-lock.json"))?;
        fs::copy(pins.join("package.json"), home.join("package.json"))?;
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(&home);
        shell::run(&mut npm)
    })
}

/// Runs `install` unless `home` was made from this very `pin`.
fn installed(home: &Path, pin: &Path, install: impl FnOnce() -> Result<()>) -> Result<()> {
    let pinned = fs::read(pin).with_context(|| pin.display().to_string())?;
    let stamp = home.join(".installed-from");
    if fs::read(&stamp).is_ok_and(|from| from == pinned) {
        return Ok(());
    }
    install()?;
    fs::write(&stamp, pinned).context("the stamp of an installation")
}

fn scripts() -> PathBuf {
    shell::root().join("crates/testkit/clients")
}

fn on_path(program: &str) -> bool {
    shell::find(program).is_some()
}

fn pgjdbc() -> bool {
    Path::new("/usr/share/java/postgresql.jar").is_file()
}

fn venv() -> bool {
    shell::output(Command::new("python3").args(["-c", "import venv, ensurepip"])).is_ok()
}

fn postgres(program: &str) -> bool {
    postgres_bin().is_some_and(|bin| bin.join(program).is_file())
}

/// The directory of the newest PostgreSQL's programs, Debian's place before PATH.
pub(crate) fn postgres_bin() -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, e.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").is_file())
        .collect();
    versions.sort();
    let debian = versions.pop().map(|(_, bin)| bin);
    debian.or_else(|| Some(shell::find("initdb")?.parent()?.to_owned()))
}

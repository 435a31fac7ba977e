//! PostgreSQL's own regression suite, made ready below `target/regress`: the sources of the very
//! version that is installed, and the C functions that its tests load. Debian packages neither, so
//! they come from its source archive; the machine's own package sources are left as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{install, shell};

/// Makes `target/regress/suite` hold `regress/` (the tests), `lib/` (what they load) and
/// `pg_regress`.
pub(crate) fn prepare() -> Result<()> {
    let bin = install::postgres_bin().context("no PostgreSQL; run it with the `install` step")?;
    let version = shell::output(Command::new(bin.join("postgres")).arg("--version"))?;
    let home = shell::target()?.join("regress");
    let suite = home.join("suite");
    if fs::read_to_string(suite.join("version")).is_ok_and(|made| made == version) {
        return Ok(());
    }
    let made = fetch(&home, &bin).and_then(|fetched| build(&fetched, &bin, &suite));
    made.context(
        "PostgreSQL's regression suite cannot be made ready; \
         `cargo xtask test --without regress` leaves it out",
    )?;
    fs::write(suite.join("version"), version).context("the suite's stamp")
}

struct Fetched {
    source: PathBuf,
    headers: PathBuf,
}

/// The source archive and the server's headers of the installed version, else of the newest.
fn fetch(home: &Path, bin: &Path) -> Result<Fetched> {
    let _ = fs::remove_dir_all(home);
    let lists = home.join("apt/lists/partial");
    fs::create_dir_all(&lists).context("target/regress")?;
    let package = package(bin)?;
    write_sources(&home.join("apt/sources.list.d"))?;
    let apt = |program: &str| {
        let mut apt = Command::new(program);
        let option = |name: &str, value: &Path| format!("{name}={}", value.display());
        apt.args(["-o", "Dir::Etc::sourcelist=/dev/null"]);
        apt.args(["-o", &option("Dir::Etc::sourceparts", &home.join("apt/sources.list.d"))]);
        apt.args(["-o", "APT::Sandbox::User=root"]);
        apt.args(["-o", &option("Dir::State::lists", &home.join("apt/lists"))]);
        apt.args(["-o", &option("Dir::Cache::archives", &home.join("apt"))]);
        apt.args(["-o", "Debug::NoLocking=1"]);
        apt.args(["-o", &option("Dir::Cache::pkgcache", Path::new(""))]);
        apt.args(["-o", &option("Dir::Cache::srcpkgcache", Path::new(""))]);
        apt.current_dir(home);
        apt
    };
    shell::run(apt("apt-get").args(["update", "-qq"]))?;
    let installed = shell::output(Command::new("dpkg-query").args(["-W", "-f", "${Version}", &package]))?;
    let exact = |name: &str| format!("{name}={installed}");
    let source = |name: &str| {
        let mut get = apt("apt-get");
        get.args(["source", "-qq", "--download-only", name]);
        shell::run(&mut get)
    };
    source(&exact(&package)).or_else(|_| source(&package))?;
    let dev = package.replacen("postgresql-", "postgresql-server-dev-", 1);
    let download = |name: &str| shell::run(apt("apt-get").args(["download", "-qq", name]));
    download(&exact(&dev)).or_else(|_| download(&dev))?;

    let unpacked = home.join("source");
    fs::create_dir_all(&unpacked)?;
    let archive = only(home, ".orig.tar.bz2")?;
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(archive).args(["--strip-components=1", "-C"]).arg(&unpacked);
    shell::run(tar.args(["--wildcards", "*/src/test/regress", "*/contrib/spi"]))?;
    let headers = home.join("headers");
    shell::run(Command::new("dpkg-deb").arg("-x").arg(only(home, ".deb")?).arg(&headers))?;
    Ok(Fetched { source: unpacked, headers })
}

/// Debian's name for the installed server: `postgresql-15`.
fn package(bin: &Path) -> Result<String> {
    let version = bin.parent().and_then(Path::file_name).and_then(|v| v.to_str());
    match version {
        Some(version) if version.parse::<u32>().is_ok() => Ok(format!("postgresql-{version}")),
        _ => bail!("{} is not Debian's PostgreSQL", bin.display()),
    }
}

/// The machine's own archives of the distribution, with their sources added, in a place of our own.
fn write_sources(parts: &Path) -> Result<()> {
    fs::create_dir_all(parts)?;
    let listed = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    let files = listed.map(|e| e.path()).chain([PathBuf::from("/etc/apt/sources.list")]);
    let mut archives = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let with_sources = match file.extension().and_then(|e| e.to_str()) {
            Some("sources") => stanzas_with_sources(&text),
            Some("list") => lines_with_sources(&text),
            _ => continue,
        };
        if let Some(name) = file.file_name().filter(|_| !with_sources.is_empty()) {
            fs::write(parts.join(name), with_sources)?;
            archives += 1;
        }
    }
    if archives == 0 {
        bail!("no archive of Debian's in this machine's package sources");
    }
    Ok(())
}

/// deb822: `Types: deb`.
fn stanzas_with_sources(text: &str) -> String {
    let ours = text.split("\n\n").filter(|stanza| stanza.lines().any(|l| l.starts_with("URIs:") && is_distribution(l)));
    let line = |l: &str| match l.starts_with("Types:") {
        true => "Types: deb deb-src\n".to_owned(),
        false => format!("{l}\n"),
    };
    ours.map(|stanza| stanza.lines().map(line).collect::<String>() + "\n").collect()
}

/// One line per archive: `deb [options] URI suite component`.
fn lines_with_sources(text: &str) -> String {
    let ours = text.lines().filter(|l| l.starts_with("deb ") && is_distribution(l));
    ours.map(|l| format!("{l}\n{}\n", l.replacen("deb ", "deb-src ", 1))).collect()
}

fn is_distribution(line: &str) -> bool {
    line.contains("debian") || line.contains("ubuntu")
}

/// Compiles what the tests load and puts everything in one place.
fn build(fetched: &Fetched, bin: &Path, suite: &Path) -> Result<()> {
    let major = bin.parent().and_then(Path::file_name).context("a version")?;
    let includes = fetched.headers.join("usr/include/postgresql").join(major).join("server");
    let lib = suite.join("lib");
    fs::create_dir_all(&lib)?;
    let spi = fetched.source.join("contrib/spi");
    let regress = fetched.source.join("src/test/regress");
    for (name, source) in
        [("regress", regress.join("regress.c")), ("refint", spi.join("refint.c")), ("autoinc", spi.join("autoinc.c"))]
    {
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-fPIC", "-shared", "-w", "-DREFINT_VERBOSE", "-I"]).arg(&includes);
        cc.arg("-I").arg(fetched.headers.join("usr/include/postgresql"));
        cc.arg("-o").arg(lib.join(format!("{name}.so"))).arg(source);
        shell::run(&mut cc)?;
    }
    let tool = bin.with_file_name("lib/pgxs/src/test/regress/pg_regress");
    fs::copy(&tool, suite.join("pg_regress")).with_context(|| tool.display().to_string())?;
    fs::rename(regress, suite.join("regress")).context("the suite's tests")
}

fn only(dir: &Path, suffix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(dir)?.flatten().map(|e| e.path());
    let mut found = entries.filter(|p| p.to_string_lossy().ends_with(suffix));
    found.next().with_context(|| format!("no *{suffix} was downloaded"))
}

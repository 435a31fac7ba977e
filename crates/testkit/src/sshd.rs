//! A real `sshd` of the test's own: on a free loopback port, with keys of its own, as the user that runs the test.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::process::{self, Process, poll, tethered};

/// A running OpenSSH server, which lets in one key: [`Sshd::client_key`].
#[derive(Debug)]
pub struct Sshd {
    // First, so that the process ends before its directory goes.
    process: Process,
    dir: tempfile::TempDir,
    port: u16,
    user: String,
}

impl Sshd {
    /// Starts one.
    #[track_caller]
    pub fn start() -> Sshd {
        Sshd::start_with("")
    }

    /// As [`Sshd::start`]; its users have `shell`, and [`Sshd::home`] as their home.
    #[track_caller]
    pub fn start_shell(shell: &str) -> Sshd {
        Sshd::start_with(&format!("SetEnv HOME={{dir}} SHELL={shell}"))
    }

    /// As [`Sshd::start`], with more lines of `sshd_config`; `{dir}` in them is [`Sshd::home`].
    #[track_caller]
    pub fn start_with(more: &str) -> Sshd {
        let dir = tempfile::Builder::new().prefix("onrecord-sshd-").tempdir().unwrap();
        keygen(&dir.path().join("host_key"));
        keygen(&dir.path().join("client_key"));
        fs::copy(dir.path().join("client_key.pub"), dir.path().join("authorized_keys")).unwrap();
        if rustix::process::geteuid().is_root() {
            // Where sshd's unprivileged half lives.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let user = process::run(Command::new("id").arg("-un"), "").expect_success("id -un").trim().to_owned();
        let mut attempt = 0;
        loop {
            attempt += 1;
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let config = format!(
                "Port {port}\nListenAddress 127.0.0.1\nHostKey {dir}/host_key\nPidFile none\n\
                 AuthorizedKeysFile {dir}/authorized_keys\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
                 PermitRootLogin yes\nAcceptEnv LANG LC_* ONRECORD_TEST\nMaxStartups 200\nMaxSessions 200\n\
                 LogLevel VERBOSE\nSubsystem sftp internal-sftp\n{more}\n",
                dir = dir.path().display(),
                more = more.replace("{dir}", &dir.path().display().to_string()),
            );
            let file = dir.path().join("sshd_config");
            fs::write(&file, config).unwrap();
            let log = File::create(dir.path().join("log")).unwrap();
            let mut command = tethered(Path::new("/usr/sbin/sshd"), "TERM");
            command.arg("-D").arg("-e").arg("-f").arg(&file).stderr(log.try_clone().unwrap()).stdout(log);
            let mut process = Process::start("sshd", &mut command, Signal::TERM);
            let ready = poll("sshd", || {
                let said = fs::read_to_string(dir.path().join("log")).unwrap_or_default();
                match process.ended() {
                    Some(_) => Some(Err(said)),
                    None => said.contains("Server listening").then_some(Ok(())),
                }
            });
            match ready {
                Ok(()) => return Sshd { process, dir, port, user },
                // Somebody else may have taken the port between our look and the server's.
                Err(said) => assert!(attempt < 5, "sshd does not start:\n{said}"),
            }
        }
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The user that it lets in: the one that runs the test.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The private key that lets one in.
    pub fn client_key(&self) -> PathBuf {
        self.dir.path().join("client_key")
    }

    /// The public key by which it proves itself, as `KIND BASE64`.
    pub fn host_key(&self) -> String {
        public(&self.dir.path().join("host_key"))
    }

    /// A directory of its own for files.
    pub fn home(&self) -> &Path {
        self.dir.path()
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Ends every session of it, as a power cut would, and goes on.
    pub fn drop_sessions(&self) {
        let children = process::run(Command::new("pgrep").arg("-P").arg(self.process.id().to_string()), "");
        for child in children.stdout.lines().filter_map(|line| line.trim().parse().ok()) {
            if let Some(pid) = rustix::process::Pid::from_raw(child) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
    }

    /// Stops it, and every session with it.
    pub fn stop(&mut self) {
        self.drop_sessions();
        self.process.signal(Signal::TERM);
        self.process.wait();
    }
}

/// Makes an Ed25519 key.
#[track_caller]
pub fn keygen(file: &Path) {
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(file);
    process::run(&mut keygen, "").expect_success("ssh-keygen");
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

/// The public half of a key file, as `KIND BASE64`.
#[track_caller]
pub fn public(file: &Path) -> String {
    let text = fs::read_to_string(file.with_extension("pub")).unwrap();
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

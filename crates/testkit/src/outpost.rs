//! The real outpost beside a test's PostgreSQL, and a proxy for it to go through.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;

use rustix::process::Signal;

use crate::postgres::target_dir;
use crate::process::{self, Process, poll, tethered};
use crate::tls::write_secret;
use crate::{Gateway, Namespace};

/// How an outpost reaches its gateway.
#[derive(Clone, Debug, Default)]
pub struct Way {
    /// The namespace that it runs in.
    pub namespace: Option<String>,
    /// The proxy that it goes through.
    pub proxy: Option<String>,
    /// Whether its links run inside WebSockets.
    pub websocket: bool,
}

/// A running outpost.
#[derive(Debug)]
pub struct Outpost {
    process: Option<Process>,
    dir: tempfile::TempDir,
    allow: Vec<String>,
    way: Way,
    starts: u32,
}

impl Outpost {
    /// Has the gateway invite it, starts it and waits until it is connected.
    #[track_caller]
    pub fn join(gateway: &Gateway, name: &str, labels: &[&str], allow: &[&str], way: Way) -> Outpost {
        let token = Outpost::token(gateway, name, labels);
        let outpost = Outpost::start(&token, allow, way);
        outpost.wait_connected();
        outpost
    }

    /// A join token of the gateway.
    #[track_caller]
    pub fn token(gateway: &Gateway, name: &str, labels: &[&str]) -> String {
        let labels = labels.iter().flat_map(|label| ["--label", *label]);
        let args: Vec<&str> = ["outpost", "token", "--name", name].into_iter().chain(labels).collect();
        gateway.cli(&args).expect_success("outpost token").trim().to_owned()
    }

    /// Starts it with a join token.
    #[track_caller]
    pub fn start(token: &str, allow: &[&str], way: Way) -> Outpost {
        let dir = tempfile::Builder::new().prefix("onrecord-op-").tempdir().unwrap();
        write_secret(&dir.path().join("join"), token);
        let allow = allow.iter().map(|&address| address.to_owned()).collect();
        let mut outpost = Outpost { process: None, dir, allow, way, starts: 0 };
        outpost.launch();
        outpost
    }

    /// Starts it again.
    #[track_caller]
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "kill it first");
        self.launch();
    }

    fn launch(&mut self) {
        self.starts += 1;
        let mut command = match &self.way.namespace {
            None => tethered(binary(), "KILL"),
            Some(namespace) => Namespace::command_as(namespace, binary(), None, "KILL"),
        };
        command.arg("--state").arg(self.dir.path().join("state"));
        command.arg("--join-file").arg(self.dir.path().join("join"));
        for address in &self.allow {
            command.args(["--allow", address]);
        }
        if let Some(proxy) = &self.way.proxy {
            command.args(["--proxy", proxy]);
        }
        if self.way.websocket {
            command.arg("--websocket");
        }
        // The way is the test's own, whatever the environment says.
        for variable in ["HTTPS_PROXY", "https_proxy", "ONRECORD_JOIN"] {
            command.env_remove(variable);
        }
        let stderr = File::create(self.stderr_path(self.starts)).unwrap();
        command.stdout(stderr.try_clone().unwrap()).stderr(stderr);
        self.process = Some(Process::start("onrecord-outpost", &mut command, Signal::KILL));
    }

    /// Waits until both of its links are up.
    #[track_caller]
    pub fn wait_connected(&self) {
        let path = self.stderr_path(self.starts);
        poll("the outpost's links", || {
            let said = fs::read_to_string(&path).unwrap_or_default();
            (said.matches(": connected").count() >= 2).then_some(())
        });
    }

    /// Waits until it has ended by itself; what it said.
    #[track_caller]
    pub fn wait_ended(&mut self) -> String {
        let status = self.process.as_mut().expect("running").wait();
        assert!(!status.success(), "it ends with an error");
        self.process = None;
        self.said()
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("running")
    }

    /// Kills it as a power cut would.
    pub fn kill9(&mut self) {
        self.process().signal(Signal::KILL);
        self.process().wait();
        self.process = None;
    }

    /// What it said, over all starts.
    pub fn said(&self) -> String {
        (1..=self.starts).map(|start| fs::read_to_string(self.stderr_path(start)).unwrap_or_default()).collect()
    }

    /// Its directory.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The memory that it has resident, KiB.
    pub fn memory_kib(&self) -> u64 {
        let id = self.process.as_ref().expect("running").id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    fn stderr_path(&self, start: u32) -> PathBuf {
        self.dir.path().join(format!("stderr.{start}"))
    }
}

/// The small binary, built once beside what is tested.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        // Together with the tested one, so that they share what is built already.
        build.args(["build", "--quiet", "-p", "onrecord", "-p", "outpost", "--bins", "--target-dir"]).arg(target_dir());
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        process::run_for(&mut build, "", std::time::Duration::from_secs(1200)).expect_success("cargo build -p outpost");
        target_dir().join("debug/onrecord-outpost")
    })
}

/// An HTTP proxy that knows CONNECT and nothing else.
#[derive(Debug)]
pub struct Proxy {
    address: String,
    connects: Arc<AtomicU32>,
}

impl Proxy {
    /// Starts one on a free loopback port. It ends with the test's process.
    pub fn start() -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connects = Arc::new(AtomicU32::new(0));
        let counted = connects.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let counted = counted.clone();
                thread::spawn(move || serve(client, &counted));
            }
        });
        Proxy { address, connects }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections it has made.
    pub fn connects(&self) -> u32 {
        self.connects.load(Relaxed)
    }
}

fn serve(mut client: TcpStream, connects: &AtomicU32) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let Some(address) = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()) else {
        return client.write_all(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n");
    };
    let server = TcpStream::connect(address)?;
    connects.fetch_add(1, Relaxed);
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    let up = thread::spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let (mut from_server, mut to_client) = (server, client);
    let _ = io::copy(&mut from_server, &mut to_client);
    let _ = to_client.shutdown(Shutdown::Both);
    let _ = up.join();
    Ok(())
}

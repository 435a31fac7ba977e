//! Stands between a real client and a real server, where SSH would be.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;

pub const SFTP_SERVER: &str = "/usr/lib/openssh/sftp-server";

/// A client that still runs then is stuck: it is ended, and the test fails. Seconds.
const PATIENCE: &str = "60";

/// Odd, so that packets come in pieces.
const PIECE_BYTES: usize = 10_007;

/// What is needed beyond Rust; `cargo xtask test` installs it.
pub fn need(program: &str) {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|folder| folder.join(program).is_file());
    assert!(found, "{program} is missing: apt-get install openssh-client openssh-sftp-server");
}

/// Follows both directions of one channel.
pub trait Gateway {
    /// The client's bytes; whatever is to be sent on either way.
    fn client(&mut self, bytes: &[u8]) -> Sends;
    /// The server's bytes.
    fn server(&mut self, bytes: &[u8]) -> Sends;
}

#[derive(Default)]
pub struct Sends {
    pub to_server: Vec<u8>,
    pub to_client: Vec<u8>,
}

/// A program for the client to run in place of SSH, and the other end of its pipes.
pub struct Stand {
    folder: PathBuf,
}

enum Came {
    Client(Vec<u8>),
    Server(Vec<u8>),
    ClientEnd,
    ServerEnd,
}

impl Stand {
    pub fn new(folder: &Path) -> Self {
        let stand = Self { folder: folder.to_owned() };
        // It ends when the server has, as SSH does: a client may wait for that.
        let script = format!(
            "#!/bin/sh\nfor last; do :; done\nprintf %s \"$last\" > '{0}/command'\nexec 3<&0\ncat <&3 > '{0}/up' &\nup=$!\nexec 3<&-\n\
             cat '{0}/down'\nkill $up 2>/dev/null\nexit 0\n",
            folder.display()
        );
        std::fs::write(stand.program(), script).unwrap();
        std::fs::set_permissions(stand.program(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let pipes = [folder.join("up"), folder.join("down")];
        assert!(Command::new("mkfifo").args(pipes).status().unwrap().success());
        stand
    }

    pub fn program(&self) -> PathBuf {
        self.folder.join("instead-of-ssh")
    }

    /// Runs the client, and the server that `server` makes of the command which the client asks for.
    pub fn run(self, client: &Command, server: impl FnOnce(&[u8]) -> Command, gateway: &mut impl Gateway) -> Output {
        let mut patient = Command::new("timeout");
        patient.arg(PATIENCE).arg(client.get_program()).args(client.get_args());
        patient.current_dir(client.get_current_dir().unwrap());
        let client = patient.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let up = File::open(self.folder.join("up")).unwrap();
        let down = OpenOptions::new().write(true).open(self.folder.join("down")).unwrap();
        let command = std::fs::read(self.folder.join("command")).unwrap();
        let server = server(&command).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        relay(up, down, server, gateway);
        client.wait_with_output().unwrap()
    }
}

fn relay(up: File, down: File, mut server: Child, gateway: &mut impl Gateway) {
    let (came, coming) = mpsc::channel();
    let (of_client, of_server) = (came.clone(), came);
    let stdout = server.stdout.take().unwrap();
    let client = std::thread::spawn(move || pieces(up, &of_client, Came::Client, Came::ClientEnd));
    let reader = std::thread::spawn(move || pieces(stdout, &of_server, Came::Server, Came::ServerEnd));
    let (mut to_server, mut to_client) = (server.stdin.take(), Some(down));
    for piece in coming {
        let sends = match piece {
            Came::Client(bytes) => gateway.client(&bytes),
            Came::Server(bytes) => gateway.server(&bytes),
            Came::ClientEnd => {
                to_server = None;
                Sends::default()
            }
            Came::ServerEnd => {
                to_client = None;
                Sends::default()
            }
        };
        // A side that has gone is not told any more: what it sent before still is looked at.
        if let Some(to_server) = &mut to_server {
            let _ = to_server.write_all(&sends.to_server);
        }
        if let Some(to_client) = &mut to_client {
            let _ = to_client.write_all(&sends.to_client);
        }
    }
    client.join().unwrap();
    reader.join().unwrap();
    server.wait().unwrap();
}

fn pieces(mut from: impl Read, to: &mpsc::Sender<Came>, piece: fn(Vec<u8>) -> Came, end: Came) {
    let mut buffer = vec![0; PIECE_BYTES];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 {
            break;
        }
        to.send(piece(buffer.iter().copied().take(count).collect())).unwrap();
    }
    to.send(end).unwrap();
}

//! OpenSSH's own `scp -O` on both sides, with the tap between them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "support/relay.rs"]
mod relay;
#[path = "support/scp.rs"]
mod scp;

use relay::{Gateway, Sends, Stand, need};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use wire::ssh::scp::{Event, Scp, Tap};

/// Passes everything.
#[derive(Default)]
struct Passive {
    tap: Option<Tap>,
    events: Vec<Event>,
    command: Vec<u8>,
}

impl Passive {
    fn tap(&mut self) -> &mut Tap {
        let command = &self.command;
        self.tap.get_or_insert_with(|| Tap::new(Scp::of_command(command).unwrap().role))
    }
}

impl Gateway for Passive {
    fn client(&mut self, bytes: &[u8]) -> Sends {
        let mut events = std::mem::take(&mut self.events);
        self.tap().client(bytes, |event| events.push(event));
        self.events = events;
        Sends { to_server: bytes.to_vec(), to_client: Vec::new() }
    }

    fn server(&mut self, bytes: &[u8]) -> Sends {
        let mut events = std::mem::take(&mut self.events);
        self.tap().server(bytes, |event| events.push(event));
        self.events = events;
        Sends { to_server: Vec::new(), to_client: bytes.to_vec() }
    }
}

struct Bench {
    _folder: tempfile::TempDir,
    root: PathBuf,
    here: PathBuf,
    there: PathBuf,
}

impl Bench {
    fn new() -> Self {
        need("scp");
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        let (here, there) = (root.join("here"), root.join("there"));
        fs::create_dir(&here).unwrap();
        fs::create_dir(&there).unwrap();
        Self { _folder: folder, root, here, there }
    }

    /// Runs `scp -O ARGUMENTS`; the command that the host was to run, what was said, and how it ended.
    fn run(&self, command: &str, arguments: &[&str]) -> (Vec<String>, Output) {
        let stand = Stand::new(&self.root);
        let mut client = Command::new("scp");
        client.args(["-O", "-S"]).arg(stand.program()).args(arguments).current_dir(&self.here);
        let mut gateway = Passive { command: command.as_bytes().to_vec(), ..Passive::default() };
        let server = |asked: &[u8]| {
            assert_eq!(String::from_utf8_lossy(asked), command);
            let mut server = Command::new("/bin/sh");
            server.arg("-c").arg(command).current_dir(&self.there);
            server
        };
        let output = stand.run(&client, server, &mut gateway);
        let mut rest = Vec::new();
        gateway.tap().finish(|event| rest.push(event));
        gateway.events.extend(rest);
        (gateway.events.iter().map(scp::show).collect(), output)
    }
}

fn place(folder: &Path, name: &str, content: &[u8], mode: u32) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn files_to_the_host() {
    let bench = Bench::new();
    place(&bench.here, "a", b"abc", 0o644);
    place(&bench.here, "big", &vec![7; 1_000_000], 0o600);
    let (said, output) = bench.run("scp -d -t .", &["a", "big", "host:."]);
    assert!(output.status.success());
    assert_eq!(said, ["file a 644 3/3 ba7816bf", "file big 600 1000000/1000000 30bd6d97"]);
    assert_eq!(fs::read(bench.there.join("a")).unwrap(), b"abc");
}

#[test]
fn a_tree_from_the_host_with_its_times() {
    let bench = Bench::new();
    place(&bench.there, "tree/a b", b"abc", 0o755);
    place(&bench.there, "tree/sub/empty", b"", 0o640);
    for folder in ["tree", "tree/sub"] {
        fs::set_permissions(bench.there.join(folder), fs::Permissions::from_mode(0o750)).unwrap();
    }
    let tree = bench.there.join("tree");
    let dated = ["-exec", "touch", "-d", "@1700000000", "{}", "+"];
    assert!(Command::new("find").arg(tree).args(dated).status().unwrap().success());
    let (mut said, output) = bench.run("scp -r -p -f tree", &["-rp", "host:tree", "."]);
    assert!(output.status.success());
    assert_eq!(fs::read(bench.here.join("tree/a b")).unwrap(), b"abc");
    // Directories are sent as the file system has them.
    said.sort();
    assert_eq!(
        said,
        [
            "directory tree 750 times=1700000000,1700000000",
            "directory tree/sub 750 times=1700000000,1700000000",
            "file tree/a b 755 3/3 times=1700000000,1700000000 ba7816bf",
            "file tree/sub/empty 640 0/0 times=1700000000,1700000000 e3b0c442",
        ]
    );
}

#[test]
fn what_does_not_work() {
    let bench = Bench::new();
    place(&bench.here, "a", b"abc", 0o644);
    let (said, output) = bench.run("scp -t no/such/folder", &["a", "host:no/such/folder"]);
    assert!(!output.status.success());
    let no = "No such file or directory";
    assert_eq!(said, [format!("file a 644 0/3 source=none sink=1 \"scp: no/such/folder: {no}\"")]);

    let bench = Bench::new();
    let (said, output) = bench.run("scp -f gone", &["host:gone", "."]);
    assert!(!output.status.success());
    assert_eq!(said, [format!("Source says 1 \"scp: gone: {no}\"")]);
}

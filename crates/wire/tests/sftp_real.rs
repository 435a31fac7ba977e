//! OpenSSH's own `sftp` and `sftp-server`, with the tap between them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "support/relay.rs"]
mod relay;
#[path = "support/sftp.rs"]
mod sftp;

use relay::{Gateway, SFTP_SERVER, Sends, Stand, need};
use sftp::{Session, hex};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use wire::ssh::sftp::{Limits, Looks, Operation};

impl Gateway for Session {
    fn client(&mut self, bytes: &[u8]) -> Sends {
        Self::client(self, bytes).unwrap();
        self.sends()
    }

    fn server(&mut self, bytes: &[u8]) -> Sends {
        Self::server(self, bytes).unwrap();
        self.sends()
    }
}

impl Session {
    fn sends(&mut self) -> Sends {
        Sends { to_server: std::mem::take(&mut self.to_server), to_client: std::mem::take(&mut self.to_client) }
    }
}

/// Folders of a client and a server, and the session between them.
struct Bench {
    _folder: tempfile::TempDir,
    here: PathBuf,
    there: PathBuf,
    session: Session,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        need("sftp");
        assert!(Path::new(SFTP_SERVER).is_file(), "{SFTP_SERVER} is missing: apt-get install openssh-sftp-server");
        let folder = tempfile::tempdir().unwrap();
        let (here, there) = (folder.path().join("here"), folder.path().join("there"));
        fs::create_dir(&here).unwrap();
        fs::create_dir(&there).unwrap();
        Self { _folder: folder, here, there, session: Session::new(limits, Looks::Count) }
    }

    fn run(&mut self, batch: &str) -> Output {
        let stand = Stand::new(&fs::canonicalize(self.here.join("..")).unwrap());
        fs::write(self.here.join("../batch"), batch).unwrap();
        let mut client = Command::new("sftp");
        client.args(["-b", "../batch", "-D"]).arg(stand.program()).current_dir(&self.here);
        let there = self.there.clone();
        let server = |_: &[u8]| {
            let mut server = Command::new(SFTP_SERVER);
            server.current_dir(there);
            server
        };
        let output = stand.run(&client, server, &mut self.session);
        self.session.end();
        output
    }

    /// What was said, with paths from the server's folder on.
    fn said(&mut self) -> Vec<String> {
        let root = self.there.display().to_string();
        let shorter = |line: &String| line.replace(&format!("{root}/"), "").replace(&root, ".");
        self.session.said().iter().map(shorter).collect()
    }
}

/// A file with these bytes, and permissions that do not depend on who runs the test.
fn place(folder: &Path, name: &str, content: &[u8]) {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
}

fn content(seed: u8, length: usize) -> Vec<u8> {
    let mut content = Vec::with_capacity(length + 32);
    let mut block = [seed; 32];
    while content.len() < length {
        block = Sha256::digest(block).into();
        content.extend_from_slice(&block);
    }
    content.truncate(length);
    content
}

fn digest(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn files_go_there_and_back() {
    let mut bench = Bench::new(Limits::default());
    let (big, small) = (content(1, 3_000_000), content(2, 10));
    place(&bench.here, "big", &big);
    place(&bench.here, "small", &small);
    place(&bench.here, "empty", b"");
    let output = bench.run("put big\nput small\nput empty\nget big back\nget empty nothing\n");
    succeeded(&output);
    assert_eq!(fs::read(bench.here.join("back")).unwrap(), big);
    assert_eq!(fs::read(bench.there.join("small")).unwrap(), small);
    let (big, small, empty) = (digest(&big), digest(&small), digest(b""));
    assert_eq!(
        bench.said(),
        [
            "open 0 Change big write+create+truncate mode=644".to_owned(),
            format!("outcome 0 SSH_FX_OK written=3000000@0:{big}"),
            "open 1 Change small write+create+truncate mode=644".to_owned(),
            format!("outcome 1 SSH_FX_OK written=10@0:{small}"),
            "open 2 Change empty write+create+truncate mode=644".to_owned(),
            "outcome 2 SSH_FX_OK".to_owned(),
            "open 3 Read big read".to_owned(),
            format!("outcome 3 SSH_FX_OK read=3000000@0:{big} to-end"),
            "open 4 Read empty read".to_owned(),
            format!("outcome 4 SSH_FX_OK read=0@0:{empty} to-end"),
        ]
    );
    let looked = bench.session.tap.looked();
    assert!(looked.sent > 0 && looked.sent == looked.answered + looked.failed, "{looked:?}");
}

#[test]
fn what_was_cut_off_goes_on() {
    let mut bench = Bench::new(Limits::default());
    let whole = content(3, 300_000);
    place(&bench.here, "up", &whole);
    place(&bench.there, "up", &whole[..100_000]);
    place(&bench.there, "down", &whole);
    place(&bench.here, "down", &whole[..200_000]);
    succeeded(&bench.run("reput up\nreget down\n"));
    assert_eq!(fs::read(bench.there.join("up")).unwrap(), whole);
    assert_eq!(fs::read(bench.here.join("down")).unwrap(), whole);
    let (up, down) = (digest(&whole[100_000..]), digest(&whole[200_000..]));
    assert_eq!(
        bench.said(),
        [
            "open 0 Change up write+append+create mode=644".to_owned(),
            format!("outcome 0 SSH_FX_OK written=200000@100000:{up}"),
            "open 1 Read down read".to_owned(),
            format!("outcome 1 SSH_FX_OK read=100000@200000:{down} to-end"),
        ]
    );
}

#[test]
fn names_and_attributes() {
    let mut bench = Bench::new(Limits::default());
    place(&bench.there, "a", b"abc");
    let output = bench.run(
        "mkdir d\nls\nchmod 600 a\nln a hard\nln -s a soft\nrename a b\nrename -l b d/c\ncp d/c copy\nls -l d\ndf\nrm hard\nrm soft\nrm d/c\nrmdir d\n-rm gone\n",
    );
    succeeded(&output);
    assert_eq!(fs::read(bench.there.join("copy")).unwrap(), b"abc");
    assert_eq!(fs::read_dir(&bench.there).unwrap().count(), 1);
    assert_eq!(
        bench.said(),
        [
            "mkdir 0 Change d mode=777",
            "outcome 0 SSH_FX_OK",
            "list 1 Read .",
            "outcome 1 SSH_FX_OK entries=4",
            "setstat 2 Change a mode=600",
            "outcome 2 SSH_FX_OK",
            "hardlink 3 Change a hard",
            "outcome 3 SSH_FX_OK",
            "symlink 4 Change soft a",
            "outcome 4 SSH_FX_OK",
            "posix-rename 5 Change a b",
            "outcome 5 SSH_FX_OK",
            "rename 6 Change b d/c",
            "outcome 6 SSH_FX_OK",
            "open 7 Read d/c read",
            "open 8 Change copy write+create+truncate mode=600",
            "copy-data 9 Change d/c copy on=7 copy 7@0+0 to 8@0",
            "outcome 9 SSH_FX_OK",
            "outcome 7 SSH_FX_OK",
            "outcome 8 SSH_FX_OK",
            "list 10 Read d/",
            "outcome 10 SSH_FX_OK entries=3",
            "remove 11 Change hard",
            "outcome 11 SSH_FX_OK",
            "remove 12 Change soft",
            "outcome 12 SSH_FX_OK",
            "remove 13 Change d/c",
            "outcome 13 SSH_FX_OK",
            "rmdir 14 Change d",
            "outcome 14 SSH_FX_OK",
            "remove 15 Change gone",
            "outcome 15 SSH_FX_NO_SUCH_FILE",
        ]
    );
}

#[test]
fn what_is_kept_with_a_file() {
    let mut bench = Bench::new(Limits::default());
    place(&bench.here, "a", b"abc");
    succeeded(&bench.run("put -fp a\nget -p a b\n"));
    assert_eq!(
        bench.said(),
        [
            "open 0 Change a write+create+truncate mode=644 times",
            "fsetstat 1 Change a mode=644 times on=0",
            "outcome 1 SSH_FX_OK",
            "fsync 2 Change a on=0",
            "outcome 2 SSH_FX_OK",
            "outcome 0 SSH_FX_OK written=3@0:ba7816bf",
            "open 3 Read a read",
            "outcome 3 SSH_FX_OK read=3@0:ba7816bf to-end",
        ]
    );
}

fn deny_keep(operation: &Operation) -> Option<&'static str> {
    operation.path.as_ref()?.ends_with(b"/keep").then_some("not this one")
}

#[test]
fn what_is_denied_does_not_happen() {
    let mut bench = Bench::new(Limits::default());
    place(&bench.there, "keep", b"abc");
    place(&bench.there, "other", b"abc");
    bench.session.policy = deny_keep;
    let output = bench.run("-rm keep\n-get keep\n-rename keep gone\nget other\nrm other\n");
    succeeded(&output);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(errors.matches("ermission denied").count(), 3, "{errors}");
    assert_eq!(fs::read(bench.there.join("keep")).unwrap(), b"abc");
    assert!(!bench.there.join("other").exists());
    assert_eq!(
        bench.said(),
        [
            "remove 0 Change keep",
            "deny 0",
            "open 1 Read keep read",
            "deny 1",
            "posix-rename 2 Change keep gone",
            "deny 2",
            "open 3 Read other read",
            "outcome 3 SSH_FX_OK read=3@0:ba7816bf to-end",
            "remove 4 Change other",
            "outcome 4 SSH_FX_OK",
        ]
    );
}

#[test]
fn a_client_that_asks_for_much_waits() {
    let mut bench = Bench::new(Limits { requests_max: 2, ..Limits::default() });
    let big = content(4, 5_000_000);
    place(&bench.here, "big", &big);
    succeeded(&bench.run("put big\nget big back\n"));
    assert_eq!(fs::read(bench.here.join("back")).unwrap(), big);
    let said = bench.said();
    let digest = digest(&big);
    assert_eq!(said[1], format!("outcome 0 SSH_FX_OK written=5000000@0:{digest}"));
    assert_eq!(said[3], format!("outcome 1 SSH_FX_OK read=5000000@0:{digest} to-end"));
}

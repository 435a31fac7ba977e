//! A real object store that speaks S3 and checks signatures: SeaweedFS, from its package on PyPI.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::clients::{installed, python};
use crate::postgres::free_port;
use crate::process::{Process, poll, run, tethered};

/// Puts what is below a directory into a bucket, by the store's own back door, which needs no key.
const FILL: &str = "
import http.client, os, sys
port, bucket, prefix, root = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
connection = http.client.HTTPConnection('127.0.0.1', port)
for directory, _, names in os.walk(root):
    for name in names:
        path = os.path.join(directory, name)
        key = os.path.relpath(path, root)
        connection.request('PUT', f'/buckets/{bucket}/{prefix}/{key}', body=open(path, 'rb').read())
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 201, (key, answer.status)
";

/// A store with one key, on loopback, with its data in a directory that goes with it.
pub struct ObjectStore {
    _process: Process,
    _data: tempfile::TempDir,
    s3: u16,
    filer: u16,
}

impl ObjectStore {
    /// Who may read.
    pub const ACCESS_KEY: &str = "an-access-key";
    /// With which secret.
    pub const SECRET_KEY: &str = "a-secret-key-that-is-shown-nowhere";

    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        let weed = installed().join("venv/bin/weed");
        assert!(weed.exists(), "{} is missing; `cargo xtask test` installs it", weed.display());
        let data = tempfile::tempdir().unwrap();
        let config = serde_json::json!({"identities": [{
            "name": "reader",
            "credentials": [{"accessKey": Self::ACCESS_KEY, "secretKey": Self::SECRET_KEY}],
            "actions": ["Read", "List"],
        }]});
        let config_file = data.path().join("s3.json");
        std::fs::write(&config_file, config.to_string()).unwrap();
        let [s3, filer, master, volume] = ports();
        let mut command = tethered(weed, "KILL");
        command.args([
            "server",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-s3",
            "-volume.max=64",
            "-master.volumeSizeLimitMB=64",
        ]);
        command.arg(format!("-dir={}", data.path().display())).arg(format!("-s3.config={}", config_file.display()));
        for (name, port) in [("s3", s3), ("filer", filer), ("master", master), ("volume", volume)] {
            command.arg(format!("-{name}.port={port}")).arg(format!("-{name}.port.grpc={}", port + 10_000));
        }
        let process = Process::start("weed", command.stdout(Stdio::null()).stderr(Stdio::null()), Signal::KILL);
        let store = Self { _process: process, _data: data, s3, filer };
        // It is up when it stores something.
        let probe = tempfile::tempdir().unwrap();
        std::fs::write(probe.path().join("probe"), "probe").unwrap();
        poll("the object store to answer", || {
            let mut command = store.fill_command("probe", "probe", probe.path());
            command.stderr(Stdio::null()).status().unwrap().success().then_some(())
        });
        store
    }

    /// Puts what is below a directory into a bucket, below a prefix.
    #[track_caller]
    pub fn fill(&self, bucket: &str, prefix: &str, from: &Path) {
        run(&mut self.fill_command(bucket, prefix, from), "").expect_success("filling the object store");
    }

    /// Where it is.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.s3)
    }

    fn fill_command(&self, bucket: &str, prefix: &str, from: &Path) -> Command {
        let mut command = Command::new(python());
        command.args(["-c", FILL, &self.filer.to_string(), bucket, prefix]).arg(from);
        command
    }
}

/// Free ports whose neighbours 10,000 above exist too.
fn ports() -> [u16; 4] {
    std::array::from_fn(|_| std::iter::repeat_with(free_port).find(|port| *port < 55_000).unwrap())
}

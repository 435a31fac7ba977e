//! Keys for SSH that are made here and certified by a gateway: kept in files, or by an ssh-agent.

use std::ffi::OsString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gateway::SshPrivateKey;
use serde_json::Value;

use crate::Failure;

/// How long an agent may take: it may ask a person.
const AGENT_MAX: Duration = Duration::from_secs(60);
/// SSH_AGENT_SUCCESS of draft-ietf-sshm-ssh-agent.
const SUCCESS: u8 = 6;
/// How the comment of a certificate begins that was got here.
const COMMENT: &str = "onrecord:";

/// A certificate, and what the gateway said of it.
pub struct Certificate {
    /// As OpenSSH writes it.
    pub line: String,
    /// Seconds that it holds.
    pub expires_in: u32,
    /// The gateway's answer without it.
    pub about: Value,
}

/// Where a key and its certificate are kept.
pub enum Keeper {
    /// By the agent with this socket, which forgets them when the certificate does not hold any more.
    Agent(PathBuf),
    /// The key in this file, the certificate beside it, where ssh looks for it.
    File(PathBuf),
}

impl Keeper {
    /// The file, if one is named; else the agent, if there is one.
    pub fn of(file: Option<PathBuf>) -> Result<Self, Failure> {
        let agent = || std::env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty()).map(PathBuf::from);
        match file {
            Some(file) => not_of_another(&file).map(|()| Self::File(file)),
            None => agent().map(Self::Agent).ok_or_else(|| {
                Failure::usage("there is no ssh-agent to keep the key ($SSH_AUTH_SOCK)")
                    .hint("name a file for it: --out FILE")
            }),
        }
    }

    /// Keeps a key and its certificate.
    pub fn keep(&self, key: &SshPrivateKey, certificate: &Certificate) -> Result<(), Failure> {
        let id = certificate.about.get("id").and_then(Value::as_str).unwrap_or_default();
        let comment = format!("{COMMENT}{id}");
        match self {
            Self::Agent(socket) => {
                let add = key.for_agent(&certificate.line, &comment, certificate.expires_in).map_err(Failure::new)?;
                tell(socket, &add).map_err(|error| {
                    Failure::new(format_args!("the ssh-agent at {} does not keep the key: {error}", socket.display()))
                        .hint("name a file for it: --out FILE")
                })
            }
            Self::File(file) => {
                let private = key.to_openssh().map_err(Failure::new)?;
                let line = format!("{} {comment}\n", certificate.line.trim());
                // Both are there before either takes its place: then nothing but a name can fail.
                let beside = beside(file);
                let written = (|| {
                    let key = write(file, private.as_bytes())?;
                    let certificate = write(&beside, line.as_bytes())?;
                    fs::rename(certificate, &beside)?;
                    fs::rename(key, file)
                })();
                written.map_err(|error| {
                    Failure::new(format_args!("the key cannot be kept in {}: {error}", file.display()))
                })
            }
        }
    }
}

/// Where ssh looks for the certificate of a key in a file.
pub fn beside(file: &Path) -> PathBuf {
    let mut name = OsString::from(file);
    name.push("-cert.pub");
    name.into()
}

/// Whether a file can be written that may be there already: only if what is there was got in the same way.
fn not_of_another(file: &Path) -> Result<(), Failure> {
    let ours = || fs::read_to_string(beside(file)).is_ok_and(|text| text.contains(&format!(" {COMMENT}")));
    match file.symlink_metadata() {
        Ok(_) if !ours() => Err(Failure::usage(format_args!("{} is there already", file.display()))
            .hint("it is not a key that `onrecord login --ssh` made, so it is left as it is: name another file")),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Writes what is to take the place of a file, beside it, for this user alone. Gives where.
fn write(file: &Path, bytes: &[u8]) -> std::io::Result<OsString> {
    let mut new = OsString::from(file);
    new.push(".new");
    let _ = fs::remove_file(&new);
    let mut open = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    open.write_all(bytes)?;
    open.sync_all()?;
    Ok(new)
}

/// Asks an agent for something that it either does or does not.
fn tell(socket: &Path, message: &[u8]) -> std::io::Result<()> {
    let mut agent = UnixStream::connect(socket)?;
    agent.set_read_timeout(Some(AGENT_MAX))?;
    let length = u32::try_from(message.len()).map_err(std::io::Error::other)?;
    agent.write_all(&length.to_be_bytes())?;
    agent.write_all(message)?;
    let mut answer = [0; 5];
    agent.read_exact(&mut answer)?;
    match answer {
        [.., SUCCESS] => Ok(()),
        _ => Err(std::io::Error::other("it refuses")),
    }
}

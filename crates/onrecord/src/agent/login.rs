//! What `onrecord login` keeps: which gateway, and how to prove oneself there.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::device::Device;
use super::{Api, Source};
use crate::Failure;

/// A login that is kept.
#[derive(Debug, Serialize, Deserialize)]
pub struct Login {
    /// The gateway's API.
    pub gateway: String,
    /// The file with the authority of its certificate.
    pub ca: Option<PathBuf>,
    /// How to prove oneself.
    pub proof: Proof,
}

/// How to prove oneself again.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// By a token that something else keeps fresh.
    Source(Source),
    /// By what an issuer gave a person who signed in.
    Device(Device),
}

impl Login {
    /// The file.
    ///
    /// # Errors
    /// There is no home directory.
    pub fn file() -> Result<PathBuf, Failure> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let config = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
        let config = config.ok_or_else(|| Failure::new("there is no home directory to keep a login in ($HOME)"))?;
        Ok(config.join("onrecord").join("login.json"))
    }

    /// The last login, if there was one.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn load() -> Result<Option<Self>, Failure> {
        let Ok(file) = Self::file() else { return Ok(None) };
        let bytes = match fs::read(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => Zeroizing::new(read.map_err(|error| unusable(&file, &error))?),
        };
        // The parser's own words could repeat a secret.
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|_| unusable(&file, &"it is not as `onrecord login` writes it"))
    }

    /// Keeps it, for this user alone.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self) -> Result<PathBuf, Failure> {
        let file = Self::file()?;
        let write = || {
            let directory = file.parent().unwrap_or(Path::new("."));
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            let beside = file.with_extension("new");
            let _ = fs::remove_file(&beside);
            let mut new = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
            new.write_all(&Zeroizing::new(serde_json::to_vec_pretty(self)?))?;
            new.sync_all()?;
            fs::rename(&beside, &file)
        };
        write().map_err(|error: std::io::Error| {
            Failure::new(format_args!("the login cannot be kept in {}: {error}", file.display()))
        })?;
        Ok(file)
    }

    /// Something to prove oneself with now. What had to be renewed is kept.
    ///
    /// # Errors
    /// There is nothing, in words.
    pub fn proof(&mut self, api: &Api) -> Result<Zeroizing<String>, Failure> {
        match &mut self.proof {
            Proof::Source(source) => source.proof(api),
            Proof::Device(device) => {
                let renewed = device.renew()?;
                let token = device.token();
                if renewed {
                    self.save()?;
                }
                Ok(token)
            }
        }
    }
}

fn unusable(file: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure::new(format_args!("the login in {} cannot be used: {why}", file.display()))
        .hint("use `onrecord login` again, or remove the file")
}

//! `onrecord keys rewrap`: keeps the data directory's seal key as the configuration says now.

use clap::{Args, Subcommand};
use serde_json::json;
use store::{RealDisk, Recorder, StoreError, Wrapping, WrappingKey};

use super::Context;
use crate::config::SecretSource;
use crate::output::Format;
use crate::{Failure, wiring};

/// `keys ...`.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Wrap the key of the data directory by the configuration's `record.wrapping_key`, or keep it in clear if there is
    /// none; the gateway must be stopped
    Rewrap(Rewrap),
}

/// Arguments of `keys rewrap`.
#[derive(Debug, Args)]
pub struct Rewrap {
    /// The key that wraps it now, if one does: file:PATH or env:NAME
    #[arg(long, value_name = "SOURCE", value_parser = source)]
    from: Option<SecretSource>,
}

impl KeysCommand {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        let Self::Rewrap(Rewrap { from }) = self;
        let config = context.load()?;
        let from = wiring::wrapping_key(from.as_ref())?;
        let to = wiring::wrapping_key(config.record.wrapping_key.as_ref())?;
        let as_key = |key| -> Option<&dyn WrappingKey> { Option::map(key, |key| key as &dyn WrappingKey) };
        let disk = RealDisk::new(&config.gateway.data);
        let wrapped = Recorder::rewrap(&disk, as_key(from.as_ref()), as_key(to.as_ref()));
        let wrapping = wrapped.map_err(|error| match error {
            StoreError::Locked => Failure::new("the gateway is running, and its keys are in use; nothing was changed")
                .hint("stop it, rewrap, and start it again"),
            error => Failure::new(format_args!("{error}; nothing was changed"))
                .hint("--from file:PATH or env:NAME names the key that wraps it now"),
        })?;
        let said = match &wrapping {
            Wrapping::By(id) => {
                format!("The key of the data directory is wrapped by {id}. Keep that key where you would not lose it.")
            }
            Wrapping::None => "The key of the data directory is in clear, guarded by its file's mode.".to_owned(),
        };
        let console = &mut context.console;
        if console.format() == Format::Table {
            return Ok(console.line(&said)?);
        }
        let id = match &wrapping {
            Wrapping::By(id) => Some(id),
            Wrapping::None => None,
        };
        Ok(console.json(&json!({"wrapped_by": id}))?)
    }
}

fn source(text: &str) -> Result<SecretSource, String> {
    SecretSource::try_from(text.to_owned())
}

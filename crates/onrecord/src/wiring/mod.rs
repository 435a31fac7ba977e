//! From configuration to a running gateway: opens the record, builds what the gateway is told, starts it.
//!
//! Invariant: the record is open before anybody can connect, and is closed after the last session ended.

mod told;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use gateway::{Access, BreakGlass, Gateway};
use model::{ConfigurationCause, ConfigurationResult, Digest};
use sha2::{Digest as _, Sha256};
use store::{
    Created, Disk, GatewayEntry, Health, LocalKey, Options, Reader, RealDisk, RecordError, Recorder, Recovery,
    SystemClock, SystemRandom, WrappingKey,
};

use crate::Failure;
use crate::config::{Config, SecretSource};
use crate::control::{Executor, Rules, Server};
use crate::custodian::Custodian;
use crate::outside::Outside;

use told::MissingKeys;
pub use told::{analyse_if_asked, issuer_source};

/// A reason on the record has at most this many characters.
const REASON_CHARACTERS_MAX: usize = 1024;

/// A gateway and its record, running.
pub struct Running {
    gateway: Gateway,
    /// What is in force.
    config: Config,
    rules: Rules,
    access: Access,
    recorder: Recorder,
    /// None once the data directory was given free.
    outside: Option<Outside>,
    publish_addresses: Vec<SocketAddr>,
    // None when there can be no socket in the data directory.
    control: Option<Server>,
    custodian: Option<Custodian>,
    /// What was found when the record was opened.
    pub recovery: Recovery,
}

/// Makes the data directory and an empty record in it.
pub fn create_record(config: &Config) -> Result<Created, Failure> {
    let data = &config.gateway.data;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(data));
    Recorder::create_on(&disk, &options(config)?, &SystemClock, &mut SystemRandom)
        .map_err(|error| Failure::new(format_args!("cannot create the record in {}: {error}", data.display())))
}

/// The record, open for writing.
pub struct Opened {
    recorder: Recorder,
    recovery: Recovery,
}

/// How the record is written, by the configuration.
pub fn options(config: &Config) -> Result<Options, Failure> {
    let wrapping_key = wrapping_key(config.record.wrapping_key.as_ref())?;
    let wrapping_key = wrapping_key.map(|key| Arc::new(key) as Arc<dyn WrappingKey>);
    Ok(Options { wrapping_key, ..Options::new(config.gateway.name.as_str()) })
}

/// The wrapping key that is named, if one is.
pub fn wrapping_key(source: Option<&SecretSource>) -> Result<Option<LocalKey>, Failure> {
    let Some(source) = source else { return Ok(None) };
    let key = LocalKey::parse(&told::read("record.wrapping_key", source)?);
    key.map(Some).map_err(|error| Failure::usage(format_args!("record.wrapping_key: {source}: {error}")))
}

/// Opens the record of a gateway that does not run, does something to it and closes it.
pub fn with_record<T>(config: &Config, work: impl FnOnce(&Recorder) -> Result<T, Failure>) -> Result<T, Failure> {
    let Opened { recorder, .. } = open(config)?;
    let done = recorder.note(GatewayEntry::Start(start_entry(config))).map_err(Failure::new);
    let done = done.and_then(|_| work(&recorder));
    let stopped =
        recorder.stop().map_err(|error| Failure::new(format_args!("the record could not be closed: {error}")));
    done.and_then(|value| stopped.map(|()| value))
}

/// Opens the record; another one in its place, if a witness proves that it is not all that was signed.
pub fn open(config: &Config) -> Result<Opened, Failure> {
    if let Some(contradiction) = crate::outside::check(config)? {
        tracing::error!(
            "the log must not go on: {contradiction}. Another has begun, with a key of its own: onrecord epochs list"
        );
    }
    let data = &config.gateway.data;
    let opened = Recorder::open_dir(data, options(config)?);
    let (recorder, recovery) =
        opened.map_err(|error| Failure::new(format_args!("cannot open the record in {}: {error}", data.display())))?;
    Ok(Opened { recorder, recovery })
}

/// Opens the record and starts the gateway.
pub fn start(config: &Config) -> Result<Running, Failure> {
    // What the gateway is told comes first: a missing password is found before the record is touched.
    let told = told::gateway_config(config, MissingKeys::Made)?;
    start_on(config, told, None, open(config)?, None)
}

/// Starts the gateway again after recording had stopped, on the addresses where clients know it.
pub fn start_again(config: &Config, addresses: Addresses, before: &Access, opened: Opened) -> Result<Running, Failure> {
    let told = gateway::Config {
        listen_postgres: addresses.postgres,
        listen_ssh: addresses.ssh,
        listen_api: addresses.api,
        listen_outposts: addresses.outposts,
        ..told::gateway_config(config, MissingKeys::Made)?
    };
    let publish = (!addresses.publish.is_empty()).then_some(addresses.publish);
    start_on(config, told, publish, opened, Some(before))
}

/// Where a gateway listens, with the ports that were taken where 0 was asked for.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// For PostgreSQL.
    pub postgres: Vec<SocketAddr>,
    /// For SSH.
    pub ssh: Vec<SocketAddr>,
    /// For the HTTP API.
    pub api: Vec<SocketAddr>,
    /// For outposts.
    pub outposts: Vec<SocketAddr>,
    /// For those who read the published log.
    pub publish: Vec<SocketAddr>,
}

fn start_on(
    config: &Config,
    told: gateway::Config,
    publish: Option<Vec<SocketAddr>>,
    opened: Opened,
    before: Option<&Access>,
) -> Result<Running, Failure> {
    let Opened { recorder, recovery } = opened;
    let started = recorder.note(GatewayEntry::Start(start_entry(config))).map_err(Failure::new);
    let outside = started.and_then(|_| Outside::start(config, &recorder, publish.as_deref()));
    let started = outside.and_then(|outside| {
        let mut executor = executor(config, &recorder)?;
        if let Some(before) = before {
            executor.access.keep_out(before);
        }
        let glasses =
            BreakGlass::open(&config.gateway.data, recorder.clone(), reader(config)?).map_err(Failure::new)?;
        let (access, outposts) = (executor.access.clone(), executor.outposts.clone());
        let gateway = Gateway::start(told, access, outposts, glasses, recorder.clone())
            .map_err(|error| Failure::new(&error).hint("`onrecord doctor` looks for what is in the way"))?;
        executor.outpost_address = outpost_address(config, gateway.outpost_addresses());
        Ok((gateway, executor, outside))
    });
    match started {
        Ok((gateway, executor, outside)) => {
            let publish_addresses = outside.addresses().to_vec();
            let (config, rules, access) = (config.clone(), executor.rules.clone(), executor.access.clone());
            let data = config.gateway.data.clone();
            let custodian = Custodian::start(executor.clone());
            let custodian = custodian.inspect_err(|error| tracing::error!("retention does not run: {error}")).ok();
            let control = Server::start(&data, executor);
            let said =
                "no control socket: `onrecord erase`, `hold` and the like work only while the gateway is stopped";
            let control = control.inspect_err(|error| tracing::warn!("{said}: {error}")).ok();
            let outside = Some(outside);
            Ok(Running {
                gateway,
                config,
                rules,
                access,
                recorder,
                outside,
                publish_addresses,
                control,
                custodian,
                recovery,
            })
        }
        Err(failure) => {
            let _ = recorder.stop();
            Err(failure)
        }
    }
}

/// The record as the gateway itself reads it, to show people what ran under break-glass.
fn reader(config: &Config) -> Result<Reader, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(&config.gateway.data));
    let key = wrapping_key(config.record.wrapping_key.as_ref())?;
    let reader = Reader::with(disk, key.as_ref().map(|key| key as &dyn WrappingKey));
    reader.map_err(|error| Failure::new(format_args!("the record cannot be read: {error}")))
}

/// What executes requests with an open record.
pub fn executor(config: &Config, recorder: &Recorder) -> Result<Executor, Failure> {
    let access = Access::open(&config.gateway.data, recorder.clone()).map_err(Failure::new)?;
    let outposts = (!config.listen.outposts.is_empty())
        .then(|| gateway::Outposts::open(&config.gateway.data, recorder.clone()).map_err(Failure::new))
        .transpose()?;
    Ok(Executor {
        recorder: recorder.clone(),
        rules: Rules::new(config.retention_rules()),
        access,
        outposts,
        outpost_address: outpost_address(config, &config.listen.outposts),
    })
}

/// Where outposts find the gateway, if that is known.
fn outpost_address(config: &Config, listened: &[SocketAddr]) -> Option<String> {
    match (&config.outposts.address, listened.first()) {
        (Some(address), _) => Some(address.to_string()),
        (None, Some(first)) if !first.ip().is_unspecified() && first.port() != 0 => Some(first.to_string()),
        (None, _) => None,
    }
}

/// What became of a configuration that a running gateway was offered.
#[derive(Debug)]
pub enum Reloaded {
    /// It is the one in force.
    Same,
    /// It is in force; so many live sessions ended with that.
    Accepted(u64),
    /// It is not; what was in force still is.
    Refused(String),
}

/// What the record says of this start: which configuration is in force, on which boot of the machine.
fn start_entry(config: &Config) -> model::Start {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    model::Start {
        boot_id: boot_id.trim().to_owned(),
        program: concat!("onrecord ", env!("CARGO_PKG_VERSION")).to_owned(),
        configuration: Some(config.digest),
        clock: store::clock_state(),
    }
}

impl Running {
    /// The addresses that are listened on.
    pub fn addresses(&self) -> Addresses {
        Addresses {
            postgres: self.gateway.addresses().to_vec(),
            ssh: self.gateway.ssh_addresses().to_vec(),
            api: self.gateway.api_addresses().to_vec(),
            outposts: self.gateway.outpost_addresses().to_vec(),
            publish: self.publish_addresses.clone(),
        }
    }

    /// What is remembered of identities.
    pub fn access(&self) -> Access {
        self.access.clone()
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Reads the configuration again, and the secrets that it names, and puts it in force if it can be. Either way is an
    /// entry. Sessions go on, but those that are no longer permitted.
    pub fn reload(&mut self, file: &Path, cause: ConfigurationCause) -> Result<Reloaded, Failure> {
        let loaded = Config::load(file);
        let offered = match &loaded {
            Ok(config) => Some(config.digest),
            Err(_) => fs::read_to_string(file).ok().map(|text| Digest(Sha256::digest(text).into())),
        };
        // A signal means that secrets may have changed, too; a file that was only touched means nothing.
        if cause == ConfigurationCause::FileChanged && offered == Some(self.config.digest) && loaded.is_ok() {
            return Ok(Reloaded::Same);
        }
        let told = loaded.map_err(Failure::from).and_then(|config| {
            if let Some(part) = config.fixed_difference(&self.config) {
                return Err(Failure::new(format_args!("{part} cannot change while the gateway runs: restart it")));
            }
            let ended = self
                .gateway
                .reconfigure(told::gateway_config(&config, MissingKeys::Refused)?)
                .map_err(Failure::usage)?;
            Ok((ended, config))
        });
        let (reloaded, sessions_ended, reason) = match told {
            Ok((ended, config)) => {
                self.rules.set(config.retention_rules());
                self.config = config;
                (Reloaded::Accepted(ended), ended, None)
            }
            Err(failure) => {
                let why: String = failure.to_string().chars().take(REASON_CHARACTERS_MAX).collect();
                (Reloaded::Refused(why.clone()), 0, Some(why))
            }
        };
        let accepted = reason.is_none();
        let entry = model::Configuration {
            result: if accepted { ConfigurationResult::Accepted } else { ConfigurationResult::Refused },
            cause,
            configuration: self.config.digest,
            refused: offered.filter(|_| !accepted),
            reason,
            sessions_ended,
        };
        self.recorder.note(GatewayEntry::Configuration(entry)).map_err(Failure::new)?;
        self.recorder.flush().map_err(Failure::new)?;
        Ok(reloaded)
    }

    /// The proof that the log must not go on, if a witness has shown one.
    pub fn contradiction(&self) -> Option<publish::Contradiction> {
        self.outside.as_ref().and_then(Outside::contradiction)
    }

    /// Why no new command is accepted, if none is.
    pub fn stopped(&self) -> Option<RecordError> {
        match self.recorder.health() {
            Health::Accepting => None,
            Health::Stopped { why } => Some(why),
        }
    }

    /// Puts on the record that a part of it was handed out.
    pub fn note_export(&self, export: model::Export) -> Result<(), Failure> {
        self.recorder.note(GatewayEntry::Export(export)).map(drop).map_err(Failure::new)
    }

    /// Gives the data directory free once recording has stopped, so that [`open`] can try it again. Clients are still
    /// answered, with refusals.
    pub fn abandon(&mut self) {
        self.outside = None;
        self.recorder.abandon();
    }

    /// Ends the sessions and what follows the record, and leaves the record as it stands: nothing more is signed.
    pub fn halt(self) {
        self.end().halt();
    }

    /// Ends the sessions, then what follows the record, then the record.
    pub fn stop(self) -> Result<(), Failure> {
        self.end().stop().map_err(|error| {
            Failure::new(format_args!("the record could not be closed: {error}"))
                .hint("the next start recovers it, and records that it did")
        })
    }

    /// Ends everything but the record.
    fn end(self) -> Recorder {
        if let Some(outside) = &self.outside {
            outside.quit();
        }
        drop(self.control);
        drop(self.custodian);
        self.gateway.stop();
        drop(self.outside);
        self.recorder
    }
}

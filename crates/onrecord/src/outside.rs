//! What a running gateway shows to the outside: the published log, what it asks of witnesses, receipts.
//!
//! Not for: anything that a command waits for. It follows the record, and is ended before the record is closed, so that
//! nothing of an old run writes beside a new one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ledger::{VerifierKey, WitnessPolicy};
use model::EpochReason;
use publish::{
    Asker, Asking, Closes, Contradiction, Cosignatures, Follower, Limits, LogSite, Look, Server, Webhook, WebhookConfig,
};
use store::{BeginEpoch, Reader, Recorder, begin_epoch};

use crate::config::{Config, Witness};
use crate::{Failure, wiring};

/// The parts that run; each only if it is configured.
pub struct Outside {
    asker: Option<Asker>,
    site: Option<Server>,
    webhook: Option<Webhook>,
    follower: Option<Follower>,
}

impl Outside {
    /// Starts what is configured. `addresses` are those of an earlier run, where clients know the log.
    pub fn start(config: &Config, recorder: &Recorder, addresses: Option<&[SocketAddr]>) -> Result<Self, Failure> {
        let mut outside = Self { asker: None, site: None, webhook: None, follower: None };
        if config.publish.is_none() && config.witness.is_none() && config.receipts.is_none() {
            return Ok(outside);
        }
        let data = &config.gateway.data;
        let key = key_of(config)?;
        if let Some(witness) = &config.witness {
            let asking = Asking {
                policy: policy(witness, &key)?,
                interval: Duration::from_secs(witness.interval_seconds.into()),
                timeout: timeout(witness),
            };
            outside.asker = Some(Asker::start(recorder.clone(), key.clone(), asking).map_err(Failure::new)?);
        }
        if config.publish.is_none() && config.receipts.is_none() {
            return Ok(outside);
        }
        let closes = Arc::new(Closes::open_dir(data, &key));
        outside.follower = Some(Follower::start(recorder.clone(), closes.clone()).map_err(Failure::new)?);
        if let Some(publish) = &config.publish {
            let listen = addresses.unwrap_or(&publish.listen);
            let site = Arc::new(LogSite::new(recorder.published(), closes.clone()));
            let server = Server::start("publish-http", listen, site, Limits::default());
            outside.site = Some(server.map_err(|error| {
                Failure::new(format_args!("publish.listen: {error}"))
                    .hint("`onrecord doctor` looks for what is in the way")
            })?);
        }
        if let Some(receipts) = &config.receipts {
            let secret = receipts
                .secret
                .as_ref()
                .map(|secret| secret.read().map_err(|error| Failure::usage(format_args!("receipts.secret: {error}"))));
            let told = WebhookConfig {
                url: receipts.webhook.as_str().to_owned(),
                secret: secret.transpose()?,
                cosignatures: match config.witness {
                    Some(_) => Cosignatures::Expected,
                    None => Cosignatures::None,
                },
            };
            let webhook = Webhook::start(recorder.clone(), data, &key, closes, told);
            outside.webhook = Some(webhook.map_err(|error| Failure::new(format_args!("receipts: {error}")))?);
        }
        Ok(outside)
    }

    /// Where the log is published.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.site.as_ref().map_or(&[], Server::addresses)
    }

    /// The proof that the log must not go on, if a witness has shown one.
    pub fn contradiction(&self) -> Option<Contradiction> {
        self.asker.as_ref().and_then(Asker::contradiction)
    }

    /// Tells the part that may wait for others to end, and does not wait for it yet.
    pub fn quit(&self) {
        if let Some(asker) = &self.asker {
            asker.quit();
        }
    }
}

/// The public key of the log in the data directory.
pub fn key_of(config: &Config) -> Result<VerifierKey, Failure> {
    let data = &config.gateway.data;
    let reader = Reader::open(data)
        .map_err(|error| Failure::new(format_args!("cannot open the record in {}: {error}", data.display())))?;
    Ok(reader.vkey().clone())
}

/// The policy of the configuration, which must be one for this log.
pub fn policy(witness: &Witness, key: &VerifierKey) -> Result<WitnessPolicy, Failure> {
    let wrong = |what: String| Failure::usage(format_args!("witness.policy: {what}"));
    let text = witness.policy.read().map_err(|error| wrong(error.to_string()))?;
    let text = std::str::from_utf8(&text).map_err(|_| wrong("it is not text".to_owned()))?;
    let policy: WitnessPolicy = text.parse().map_err(|error| wrong(format!("{}: {error}", witness.policy)))?;
    // One log may have gone on as another since the policy was written: the names of a gateway's logs begin alike.
    let gateway = |name: &str| name.split("/epoch-").next().map(str::to_owned);
    let ours = gateway(key.name());
    if !policy.accepts(key) && !policy.logs().iter().any(|log| gateway(log.verifier.name()) == ours) {
        let what = format!("{}: no line `log` has the key of this log", witness.policy);
        return Err(wrong(what).hint(format_args!("add the line: log {key}")));
    }
    if !policy.logs().is_empty() && !policy.logs().iter().any(|log| log.verifier == *key) {
        tracing::warn!("witness.policy: no line `log` has the key that this log has now; add: log {key}");
    }
    Ok(policy)
}

/// What the witnesses show of this log.
pub fn look(config: &Config, witness: &Witness) -> Result<Vec<Look>, Failure> {
    let key = key_of(config)?;
    Ok(publish::look(&config.gateway.data, &key, &policy(witness, &key)?, timeout(witness)))
}

/// Asks the witnesses, before anything is signed, whether they have seen more of this log than there is here. If one
/// proves that they have, an older copy was restored, or a copy runs elsewhere: going on would sign a second past. Then
/// another log begins, with a key of its own, which says so. A witness that does not answer is no reason not to start:
/// it refuses later, and the record says so.
///
/// # Errors
/// The other log could not be begun.
pub fn check(config: &Config) -> Result<Option<Contradiction>, Failure> {
    let Some(witness) = &config.witness else { return Ok(None) };
    let Some(contradiction) = look(config, witness)?.into_iter().find_map(|look| look.contradiction) else {
        return Ok(None);
    };
    let options = wiring::options(config)?;
    let begin = BeginEpoch { options, reason: EpochReason::Rollback, witnessed: Some(contradiction.size) };
    match begin_epoch(&config.gateway.data, &begin) {
        Ok(_) => Ok(Some(contradiction)),
        Err(error) => {
            Err(Failure::new(format_args!("the log must not go on: {contradiction}; and no other began: {error}"))
                .hint("nothing was signed. Stop the other gateway, or restore the newest copy of the data directory"))
        }
    }
}

fn timeout(witness: &Witness) -> Duration {
    Duration::from_secs(witness.timeout_seconds.into())
}

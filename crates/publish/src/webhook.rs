//! Receipts, handed to a webhook when sessions end: at least once each, in the order of the log, signed in the way of
//! Standard Webhooks.
//!
//! `receipts/webhook` is how far it is, durable. A receipt that is not taken is tried again, later and later; after a
//! bounded number of tries it is written to `receipts/undelivered` and the next one's turn comes.
//!
//! Not for: anything in a session's path. Whoever wants a receipt now asks for it.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use ledger::VerifierKey;
use serde_json::json;
use sha2::Sha256;
use store::{Disk, RealDisk, Recorder, StoreError, read_file, replace_file};
use zeroize::Zeroizing;

use crate::closes::{Closes, DIR};
use crate::receipt::Receipt;
use crate::tiles;
use fetch::Client;

const CURSOR: &str = "webhook";
const UNDELIVERED: &str = "receipts/undelivered";
/// How long one delivery may take.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// An answer's body is of no interest, up to this length.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// Tries for one receipt: with the pauses between them about an hour.
const TRIES_MAX: u32 = 16;
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// How long a receipt waits for a cosigned checkpoint, where there are witnesses.
const COSIGNED_WAIT: Duration = Duration::from_secs(60);
/// How long the thread waits before it looks whether it is to stop.
const WAIT: Duration = Duration::from_millis(200);
/// How often the place is kept when nothing was delivered.
const SAVE_INTERVAL: Duration = Duration::from_secs(10);
/// The prefix of a Standard Webhooks secret, whose rest is base64.
const SECRET_PREFIX: &str = "whsec_";

/// Where receipts go.
pub struct WebhookConfig {
    /// `http://` or `https://`.
    pub url: String,
    /// What signs them.
    pub secret: Option<Zeroizing<Vec<u8>>>,
    /// Whether a receipt waits a while for a cosigned checkpoint.
    pub cosignatures: Cosignatures,
}

/// Whether there are witnesses to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cosignatures {
    /// There are.
    Expected,
    /// There are none.
    None,
}

/// A webhook that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The secret.
    #[error("the secret begins with whsec_, but what follows is not base64")]
    Secret,
    /// The place that was reached cannot be read or kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk, or no thread.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The thread that delivers. It ends when this is dropped.
pub struct Webhook {
    quit: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Webhook {
    /// Begins to deliver: from where it was, or, the first time, from what is recorded from now on.
    ///
    /// # Errors
    /// The secret is none, or the place cannot be kept.
    pub fn start(
        recorder: Recorder,
        data: &Path,
        key: &VerifierKey,
        closes: Arc<Closes>,
        config: WebhookConfig,
    ) -> Result<Self, WebhookError> {
        let secret = config.secret.as_ref().map(|secret| signing_key(secret)).transpose()?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(data));
        let cursor = Cursor::open(disk, key, tiles::published_size(closes.published())?)?;
        let quit = Arc::new(AtomicBool::new(false));
        let mut work = Work {
            recorder,
            closes,
            cursor,
            client: Client::of_system(ANSWER_MAX),
            url: config.url,
            secret,
            cosignatures: config.cosignatures,
            undelivered: data.join(UNDELIVERED),
            quit: quit.clone(),
        };
        let thread = std::thread::Builder::new().name("publish-webhook".to_owned()).spawn(move || work.run())?;
        Ok(Self { quit, thread: Some(thread) })
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.quit.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn signing_key(secret: &[u8]) -> Result<Zeroizing<Vec<u8>>, WebhookError> {
    match secret.strip_prefix(SECRET_PREFIX.as_bytes()) {
        Some(encoded) => Ok(Zeroizing::new(STANDARD.decode(encoded).map_err(|_| WebhookError::Secret)?)),
        None => Ok(Zeroizing::new(secret.to_vec())),
    }
}

/// How far the webhook is, durable.
struct Cursor {
    disk: Arc<dyn Disk>,
    vkey: String,
    next: u64,
    saved: u64,
    at: Instant,
}

impl Cursor {
    fn open(disk: Arc<dyn Disk>, key: &VerifierKey, size: u64) -> Result<Self, WebhookError> {
        let vkey = key.to_string();
        let text = match read_file(&*disk, &format!("{DIR}/{CURSOR}"), 4096) {
            Ok(bytes) => String::from_utf8(bytes).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error.into()),
        };
        let at = Instant::now();
        let found = text.split_once('\n').filter(|(of, _)| *of == vkey);
        let next = match found.map(|(_, next)| next.trim_end().parse::<u64>()) {
            Some(Ok(next)) => Some(next),
            Some(Err(_)) => {
                let what =
                    "it does not say how far the webhook is; remove it to begin with what is recorded from now on";
                return Err(StoreError::Malformed { file: format!("{DIR}/{CURSOR}"), what: what.to_owned() }.into());
            }
            // Another log: what it records is all new.
            None if !text.is_empty() => Some(0),
            None => None,
        };
        let first = next.is_none();
        let next = next.unwrap_or(size);
        let mut cursor = Self { disk, vkey, next, saved: next, at };
        if first {
            cursor.save()?;
        }
        Ok(cursor)
    }

    fn save(&mut self) -> io::Result<()> {
        self.disk.create_dir(DIR)?;
        replace_file(&*self.disk, DIR, CURSOR, format!("{}\n{}\n", self.vkey, self.next).as_bytes())?;
        self.saved = self.next;
        self.at = Instant::now();
        Ok(())
    }
}

struct Work {
    recorder: Recorder,
    closes: Arc<Closes>,
    cursor: Cursor,
    client: Client,
    url: String,
    secret: Option<Zeroizing<Vec<u8>>>,
    cosignatures: Cosignatures,
    undelivered: PathBuf,
    quit: Arc<AtomicBool>,
}

impl Work {
    fn run(&mut self) {
        let mut said = String::new();
        let mut waited = Waited { size: 0, since: Instant::now() };
        while !self.quits() {
            let Some((size, _)) = self.recorder.wait_checkpoint(self.cursor.next, WAIT) else { continue };
            let ready = self.ready(size, &mut waited);
            if ready <= self.cursor.next {
                std::thread::sleep(WAIT);
                continue;
            }
            if let Err(error) = self.deliver_up_to(ready) {
                if said != error.to_string() {
                    said = error.to_string();
                    tracing::warn!("receipts are not delivered for now: {said}");
                }
                self.pause(PAUSE_FIRST);
            }
        }
        let _ = self.cursor.save();
    }

    /// Up to which entry receipts can go out: where witnesses are expected, what is cosigned, or has waited for it.
    fn ready(&self, size: u64, waited: &mut Waited) -> u64 {
        if self.cosignatures == Cosignatures::None {
            return size;
        }
        let cosigned = self.closes.published().cosigned().ok().flatten();
        let cosigned = cosigned.as_deref().and_then(tiles::size_of).unwrap_or(0);
        if cosigned >= waited.size || waited.size == 0 {
            *waited = Waited { size, since: Instant::now() };
            return cosigned;
        }
        if waited.since.elapsed() >= COSIGNED_WAIT {
            let ready = waited.size;
            *waited = Waited { size, since: Instant::now() };
            return ready;
        }
        cosigned
    }

    fn deliver_up_to(&mut self, size: u64) -> Result<(), WebhookError> {
        while self.cursor.next < size && !self.quits() {
            let (end, found) = self.closes.scan(self.cursor.next, size)?;
            for (_, index) in found {
                if let Some(receipt) = self.closes.receipt_at(index)? {
                    if !self.deliver(&receipt)? {
                        return Ok(());
                    }
                    self.cursor.next = index + 1;
                    self.cursor.save()?;
                }
            }
            self.cursor.next = end;
            if self.cursor.saved < end && self.cursor.at.elapsed() >= SAVE_INTERVAL {
                self.cursor.save()?;
            }
        }
        Ok(())
    }

    /// Tries until it is taken or was tried often enough; `false` if told to quit before.
    fn deliver(&self, receipt: &Receipt) -> Result<bool, WebhookError> {
        let id = format!("receipt_{}", receipt.session());
        let body = body(receipt).to_string();
        let mut pause = PAUSE_FIRST;
        let mut why = String::new();
        for attempt in 0..TRIES_MAX {
            if attempt > 0 && !self.pause(pause) {
                return Ok(false);
            }
            if attempt > 0 {
                pause = (pause * 2).min(PAUSE_MAX);
            }
            let headers = self.headers(&id, &body);
            why = match self.client.post(&self.url, &headers, body.as_bytes(), ANSWER_BYTES_MAX) {
                Ok(reply) if (200..300).contains(&reply.status) => return Ok(true),
                Ok(reply) => format!("status {}", reply.status),
                Err(error) => error.to_string(),
            };
            tracing::debug!("the webhook did not take {id}: {why}");
        }
        tracing::warn!("the webhook did not take {id} in {TRIES_MAX} tries: {why}. It is noted in {UNDELIVERED}");
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(&self.undelivered)?;
        let why: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
        writeln!(file, "{}\t{why}", receipt.session())?;
        file.sync_data()?;
        Ok(true)
    }

    fn headers(&self, id: &str, body: &str) -> Vec<(&'static str, String)> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut headers = vec![
            ("content-type", "application/json".to_owned()),
            ("webhook-id", id.to_owned()),
            ("webhook-timestamp", now.to_string()),
        ];
        if let Some(secret) = &self.secret {
            headers.push(("webhook-signature", signature(secret, id, now, body)));
        }
        headers
    }

    fn quits(&self) -> bool {
        self.quit.load(Ordering::SeqCst)
    }

    /// Waits; `false` if told to quit.
    fn pause(&self, pause: Duration) -> bool {
        let end = Instant::now() + pause;
        while !self.quits() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(WAIT));
        }
        false
    }
}

/// A size that waits for cosignatures, and since when.
struct Waited {
    size: u64,
    since: Instant,
}

/// `v1,` and the HMAC-SHA-256 of id, time and body.
fn signature(secret: &[u8], id: &str, unix_seconds: u64, body: &str) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return String::new() };
    mac.update(format!("{id}.{unix_seconds}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

fn body(receipt: &Receipt) -> serde_json::Value {
    let close = receipt.close();
    json!({
        "type": "session.closed",
        "timestamp": model::wall_text(receipt.time().wall_us),
        "data": {
            "session": receipt.session().to_string(),
            "index": receipt.index(),
            "reason": close.reason.to_string(),
            "intents": close.intents,
            "outcomes": close.outcomes,
            "bytes_up": close.bytes_up,
            "bytes_down": close.bytes_down,
            "root": close.root.map(|root| root.base64()),
            "receipt": receipt.to_string(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks specification's reference libraries.
    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        let secret = signing_key(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("base64");
        let signed = signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, "{\"test\": 2432232314}");
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(signing_key(b"whsec_!").is_err());
    }
}

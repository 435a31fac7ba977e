//! The keys of the trusted issuers, kept fresh, and tokens verified by them.
//!
//! Each issuer has a thread that fetches its keys: at the start, from time to time, and when a token names a key that is
//! not there, which is bounded, since anyone can make such a token. Workers read what is there and wait for nothing but,
//! for a bounded time, a fetch that can change the answer.
//!
//! Not for: what makes a token genuine (that is `identity`), where issuers come from (that is the configuration).
//!
//! Invariants: keys that cannot be renewed hold for [`Timing::stale`] and no longer; no token makes this ask an issuer
//! more often than [`Timing::unknown_key`] allows; the first use of each key is told to the hook before the token that
//! used it counts.

mod fetch;
mod keeper;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use identity::{Issuer, KeySet, Proven, Refusal};
use model::{Digest, Evidence, IssuerKey};

use fetch::Fetcher;
use keeper::{Keeper, Newer};

/// The most issuers of one gateway.
const ISSUERS_MAX: usize = 64;
/// How many used keys are remembered. Beyond, a key may be told to the hook again.
const USED_MAX: usize = 4096;

/// Where the keys of an issuer come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysFrom {
    /// From where the issuer's discovery document says.
    Discovery,
    /// From this URL.
    Url(String),
    /// From this file, which is read again every few seconds.
    File(PathBuf),
}

/// One trusted issuer, and where its keys are.
#[derive(Debug)]
pub struct IssuerSource {
    /// The issuer with its rules.
    pub issuer: Arc<Issuer>,
    /// Where its keys are.
    pub keys: KeysFrom,
    /// The authority of its server's certificate, PEM; the system's unless given.
    pub ca: Option<Vec<u8>>,
}

/// How often keys are fetched and for how long they hold.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two fetches, at most: an issuer may ask for less.
    pub refresh: Duration,
    /// Between two fetches for keys that tokens name and that are not there, at least.
    pub unknown_key: Duration,
    /// How long keys hold that cannot be renewed.
    pub stale: Duration,
    /// How long a token waits for a fetch.
    pub wait: Duration,
    /// How long one request may take.
    pub request: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(600),
            unknown_key: Duration::from_secs(60),
            stale: Duration::from_secs(24 * 3600),
            wait: Duration::from_secs(5),
            request: Duration::from_secs(10),
        }
    }
}

/// Why issuers cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum IssuersError {
    /// Two have the same `iss`.
    #[error("issuers {0} and {1} have the same `issuer`: give one of them all the rules and audiences")]
    Twice(String, String),
    /// There are too many.
    #[error("there are more than {ISSUERS_MAX} issuers")]
    TooMany,
    /// A URL that keys must not come from.
    #[error("issuer {issuer}: {what}")]
    Place {
        /// Its name.
        issuer: String,
        /// What is wrong.
        what: String,
    },
    /// The system gives no thread.
    #[error("cannot start a thread for the keys of issuer {issuer}: {source}")]
    Thread {
        /// Its name.
        issuer: String,
        /// What the system says.
        source: std::io::Error,
    },
}

/// How the keys of an issuer stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its name.
    pub name: String,
    /// Its `iss`.
    pub issuer: String,
    /// How many keys there are.
    pub keys: usize,
    /// When they were fetched, in seconds since 1970; none if they never were.
    pub fetched: Option<u64>,
    /// Why the last fetch failed, if it did.
    pub failure: Option<String>,
}

/// What is told of each key at its first use.
pub type Hook = Arc<dyn Fn(IssuerKey) + Send + Sync>;

/// The trusted issuers and their keys. When this is dropped, their threads end.
pub struct Issuers {
    /// By `iss`.
    by_issuer: BTreeMap<String, Trusted>,
    used: Arc<Mutex<HashSet<(String, Digest)>>>,
    hook: Hook,
    timing: Timing,
}

/// One issuer, with what fetches its keys.
struct Trusted {
    issuer: Arc<Issuer>,
    from: KeysFrom,
    ca: Option<Vec<u8>>,
    keeper: Arc<Keeper>,
}

impl IssuerSource {
    /// Fetches the keys once, as they are fetched for tokens, and says how many there are. Blocks.
    ///
    /// # Errors
    /// A text that says why there are none.
    pub fn look(&self) -> Result<usize, String> {
        let fetcher = Fetcher::new(self.issuer.issuer(), &self.keys, self.ca.as_deref(), Timing::default().request)?;
        fetcher.fetch().map(|fetched| fetched.keys.len()).map_err(|error| error.to_string())
    }
}

impl Issuers {
    /// Starts to fetch the keys of these issuers. The hook is told of each key at its first use, on the thread that used
    /// it.
    ///
    /// # Errors
    /// Two are the same, there are too many, keys would come from where they must not, or there is no thread.
    pub fn start(sources: Vec<IssuerSource>, timing: Timing, hook: Hook) -> Result<Self, IssuersError> {
        Self::started(sources, timing, hook, None)
    }

    /// These issuers after a change of the configuration: an issuer whose keys come from the same place keeps them, and
    /// its thread. The earlier value goes on until it is dropped.
    ///
    /// # Errors
    /// As [`Issuers::start`].
    pub fn replaced(&self, sources: Vec<IssuerSource>) -> Result<Self, IssuersError> {
        Self::started(sources, self.timing, Arc::clone(&self.hook), Some(self))
    }

    fn started(
        sources: Vec<IssuerSource>,
        timing: Timing,
        hook: Hook,
        before: Option<&Self>,
    ) -> Result<Self, IssuersError> {
        if sources.len() > ISSUERS_MAX {
            return Err(IssuersError::TooMany);
        }
        let mut by_issuer: BTreeMap<String, Trusted> = BTreeMap::new();
        for IssuerSource { issuer, keys: from, ca } in sources {
            if let Some(other) = by_issuer.get(issuer.issuer()) {
                return Err(IssuersError::Twice(other.issuer.name().to_owned(), issuer.name().to_owned()));
            }
            let place = |what: String| IssuersError::Place { issuer: issuer.name().to_owned(), what };
            let same = before
                .and_then(|before| before.by_issuer.get(issuer.issuer()))
                .filter(|trusted| trusted.from == from && trusted.ca == ca && trusted.issuer.name() == issuer.name());
            let keeper = match same {
                Some(trusted) => Arc::clone(&trusted.keeper),
                None => {
                    let fetcher = Fetcher::new(issuer.issuer(), &from, ca.as_deref(), timing.request).map_err(place)?;
                    Keeper::start(issuer.name(), fetcher, timing).map_err(|source| {
                        let issuer = issuer.name().to_owned();
                        IssuersError::Thread { issuer, source }
                    })?
                }
            };
            by_issuer.insert(issuer.issuer().to_owned(), Trusted { issuer, from, ca, keeper });
        }
        let used = before.map(|before| Arc::clone(&before.used)).unwrap_or_default();
        Ok(Self { by_issuer, used, hook, timing })
    }

    /// Whom a token proves. Cancel safe; waits at most [`Timing::wait`], and only if a fetch of keys can change the
    /// answer.
    ///
    /// # Errors
    /// It proves nothing; the text says why.
    pub async fn prove(&self, token: &str) -> Result<Proven, Refusal> {
        let peeked = identity::peek(token)?;
        let trusted = self.by_issuer.get(&peeked.issuer).ok_or_else(|| Refusal::untrusted(&peeked.issuer))?;
        let unreachable = || Refusal::Unreachable { issuer: trusted.issuer.name().to_owned() };
        let keys = match trusted.keeper.keys(now()) {
            Some(keys) => keys,
            None => trusted.keeper.first(self.timing.wait).await.ok_or_else(unreachable)?,
        };
        match self.verify(trusted, token, &keys) {
            Err(refusal @ Refusal::UnknownKey { .. }) => match trusted.keeper.newer(&keys, self.timing.wait).await {
                Newer::Keys(keys) => self.verify(trusted, token, &keys),
                Newer::None => Err(refusal),
            },
            result => result,
        }
    }

    /// Whether tokens with this `iss` are taken.
    #[must_use]
    pub fn trusts(&self, issuer: &str) -> bool {
        self.by_issuer.contains_key(issuer)
    }

    /// How the keys of each issuer stand.
    #[must_use]
    pub fn standings(&self) -> Vec<Standing> {
        let standing = |trusted: &Trusted| {
            let keys = trusted.keeper.keys(now());
            Standing {
                name: trusted.issuer.name().to_owned(),
                issuer: trusted.issuer.issuer().to_owned(),
                keys: keys.as_ref().map_or(0, |keys| keys.len()),
                fetched: keys.map(|keys| keys.fetched()),
                failure: trusted.keeper.failure(),
            }
        };
        self.by_issuer.values().map(standing).collect()
    }

    fn verify(&self, trusted: &Trusted, token: &str, keys: &KeySet) -> Result<Proven, Refusal> {
        let proven = trusted.issuer.verify(token, keys, now())?;
        if let Evidence::Token(evidence) = &proven.evidence {
            self.note_use(trusted.issuer.issuer(), evidence.key, keys);
        }
        Ok(proven)
    }

    /// Tells the hook of a key that was not used before. Another token by it waits until that is done.
    fn note_use(&self, issuer: &str, thumbprint: Digest, keys: &KeySet) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.contains(&(issuer.to_owned(), thumbprint)) {
            return;
        }
        if let Some(key) = keys.by_thumbprint(thumbprint) {
            (self.hook)(key.entry(issuer));
        }
        if used.len() >= USED_MAX {
            used.clear();
        }
        used.insert((issuer.to_owned(), thumbprint));
    }
}

impl std::fmt::Debug for Issuers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuers").field("issuers", &self.by_issuer.keys()).finish_non_exhaustive()
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

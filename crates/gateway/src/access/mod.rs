//! Who is let in: connection tokens, lock-outs, live sessions and how often one may guess.
//!
//! What is proven, and how, is said elsewhere (`scram`, crate `identity`); which identity may use which connection is
//! `policy`. Here is what a gateway remembers between connections. It outlives a change of the configuration, and what
//! must outlive a restart is in its directory. Later wires use the same.
//!
//! Invariant: an identity that is locked out is let in by nothing, and has no live session within a second.

mod live;
mod prove;
mod revoked;
mod shows;
mod throttle;
mod tokens;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use model::{
    Actor, CommandId, Digest, Evidence, Identity, IdentityName, Opens, Oversight, OversightAction, RefusedReason,
    Revocation, RevocationAction, SessionEnd, SessionId, Shared, Time, Token, TokenAction,
};
use store::{Clock as _, GatewayEntry, RecordError, Recorder, SystemClock};
use zeroize::Zeroizing;

use crate::config::Config;
use crate::issuers::{IssuerSource, Issuers, IssuersError, Timing};
use crate::passkeys::{NotTaken, Passkeys};
pub(crate) use live::Entered;
use live::{Live, Places};
pub(crate) use prove::{NotProven, Proven, identity_of};
use revoked::Revoked;
pub(crate) use shows::Showing;
use shows::Shows;
pub use shows::{Shown, Watch};
use throttle::Throttle;
use tokens::Tokens;
pub use tokens::{TOKEN_TTL_MAX, TokenError};

/// Where in the data directory this remembers.
const DIRECTORY: &str = "access";

/// What whoever is locked out can do.
const RESTORE: &str = "Whoever operates OnRecord knows why, and can restore it: onrecord identities restore.";

/// What a gateway remembers of identities. Clones are the same.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

struct Inner {
    recorder: Recorder,
    tokens: Tokens,
    revoked: Revoked,
    passkeys: Passkeys,
    live: Arc<Live>,
    shows: Arc<Shows>,
    /// Who has come over SSH, with a session or without, and may go on from here.
    passed: Arc<Live>,
    throttle: Throttle,
    mock_key: [u8; 32],
    issuers: RwLock<Option<Arc<Issuers>>>,
}

/// Why something about an identity was not done.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The disk refused.
    #[error("what is remembered of identities cannot be written: {0}")]
    Disk(#[from] io::Error),
    /// It is done, and not on the record.
    #[error("done, but it is not on the record: {0}")]
    Record(#[from] RecordError),
    /// It is locked out already.
    #[error("{0} is locked out already")]
    Already(IdentityName),
    /// It is not locked out.
    #[error("{0} is not locked out")]
    Not(IdentityName),
    /// No token was handed out.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// There is no such live session.
    #[error("session {0} is not live")]
    NotLive(SessionId),
    /// There is no such program, or it cannot be watched.
    #[error("{0} does not run, or not yet, or too many watch it")]
    NotRunning(CommandId),
    /// They sign no more, and that is not remembered, or not on the record.
    #[error("done, but that its passkeys are removed is not kept: {0}")]
    Passkeys(String),
}

/// What came of a lock-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockedOut {
    /// Live sessions that end.
    pub sessions: u64,
    /// Connection tokens that hold no more.
    pub tokens: u64,
}

/// What is known of an identity now.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// Its live sessions.
    pub sessions: u64,
    /// Its connection tokens and certificates that hold: id, what they open, and until when (microseconds since 1970).
    pub tokens: Vec<(String, String, i64)>,
    /// Since when it is locked out, if it is, and the entry that says so.
    pub revoked: Option<(Time, Revocation)>,
    /// Its credentials that are in use.
    pub credentials: Vec<InUse>,
}

/// Where a credential is in use.
#[derive(Debug, Clone)]
pub struct InUse {
    /// The credential, as the record names it.
    pub credential: String,
    /// Sessions.
    pub sessions: u64,
    /// The addresses.
    pub sources: Vec<IpAddr>,
    /// The runs.
    pub runs: Vec<String>,
    /// Whether that is more than one place.
    pub shared: bool,
}

/// Why a proven identity gets no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotEntered {
    Revoked,
    Limit,
    /// The configuration changed meanwhile.
    NotPermitted,
}

impl NotEntered {
    pub(crate) fn reason(self) -> RefusedReason {
        match self {
            Self::Revoked => RefusedReason::Revoked,
            Self::Limit => RefusedReason::Limit,
            Self::NotPermitted => RefusedReason::NotPermitted,
        }
    }

    /// In words, for whoever asked for this connection.
    pub(crate) fn for_client(self, who: &IdentityName, asked: &str, max: usize) -> String {
        match self {
            Self::Revoked => format!("{who} was revoked"),
            Self::Limit => format!("{who} has reached its limit of {max} sessions"),
            Self::NotPermitted => format!("{who} may not use connection \"{asked}\" any more"),
        }
    }

    pub(crate) fn hint(self) -> Option<&'static str> {
        match self {
            Self::Revoked => Some(RESTORE),
            Self::Limit | Self::NotPermitted => None,
        }
    }
}

impl Access {
    /// Reads what is remembered in a data directory.
    ///
    /// # Errors
    /// It cannot be read: nobody is let in while it is not known who is locked out.
    pub fn open(data: &Path, recorder: Recorder) -> Result<Self, AccessError> {
        let directory = data.join(DIRECTORY);
        let tokens = Tokens::open(directory.join("tokens"), SystemClock.now().wall_us)?;
        let revoked = Revoked::open(directory.join("revoked")).map_err(|error| {
            let file = directory.join("revoked");
            io::Error::new(error.kind(), format!("{}: {error}", file.display()))
        })?;
        let file = directory.join("passkeys");
        let passkeys = Passkeys::open(file.clone(), recorder.clone())
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.display())))?;
        // A token whose file could not be removed when it was taken back must not come back with its identity.
        for (_, entry) in revoked.all() {
            tokens.revoke_all(&entry.identity);
        }
        let mock_key = mock_key(&directory.join("mock-key"))?;
        Ok(Self(Arc::new(Inner {
            recorder,
            tokens,
            revoked,
            passkeys,
            live: Arc::default(),
            shows: Arc::default(),
            passed: Arc::default(),
            throttle: Throttle::default(),
            mock_key,
            issuers: RwLock::default(),
        })))
    }

    /// Trusts these issuers from here on, and no others. Keys that are known already stay known.
    pub(crate) fn trust(&self, sources: Vec<IssuerSource>) -> Result<(), IssuersError> {
        // Made before anybody waits: it reads files and starts threads.
        let next = match self.trusted() {
            Some(known) => known.replaced(sources)?,
            None => {
                let recorder = self.0.recorder.clone();
                let hook = move |key| {
                    // Before the first entry of any session that it proves.
                    if let Err(error) = recorder.note(GatewayEntry::IssuerKey(key)) {
                        tracing::error!(%error, "a key of an issuer cannot be recorded");
                    }
                };
                Issuers::start(sources, Timing::default(), Arc::new(hook))?
            }
        };
        *self.0.issuers.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(next));
        Ok(())
    }

    /// How the keys of each trusted issuer stand.
    #[must_use]
    pub fn issuers(&self) -> Vec<crate::issuers::Standing> {
        self.trusted().map(|issuers| issuers.standings()).unwrap_or_default()
    }

    /// Whether what proved an identity once would still be taken: its issuer is trusted, client certificates are taken.
    pub(crate) fn still_trusts(&self, identity: &Identity, config: &Config) -> bool {
        match &identity.proof.evidence {
            None => true,
            Some(Evidence::Token(token)) => self.trusted().is_some_and(|issuers| issuers.trusts(&token.issuer)),
            Some(Evidence::Certificate(_)) => config.certificates.is_some(),
        }
    }

    fn trusted(&self) -> Option<Arc<Issuers>> {
        self.0.issuers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The keys with which people sign.
    pub(crate) fn passkeys(&self) -> &Passkeys {
        &self.0.passkeys
    }

    /// Locks an identity out: its sessions end, its tokens hold no more, its passkeys are removed, and nothing lets it in.
    ///
    /// # Errors
    /// It is locked out already, or not on the disk, or not on the record; in the last two cases it is locked out all the
    /// same, until the gateway ends.
    pub fn revoke(&self, identity: &IdentityName, reason: &str, by: &Actor) -> Result<LockedOut, AccessError> {
        let inner = &self.0;
        if inner.revoked.contains(identity) {
            // It may be that the disk refused to remember it.
            inner.revoked.rewrite()?;
            return Err(AccessError::Already(identity.clone()));
        }
        let entry = |LockedOut { sessions, tokens }| Revocation {
            action: RevocationAction::Revoked,
            identity: identity.clone(),
            sessions,
            tokens,
            reason: reason.to_owned(),
            by: by.clone(),
        };
        // First the door, then who is inside: whoever comes in between finds it closed.
        let written = inner.revoked.insert(SystemClock.now(), entry(LockedOut { sessions: 0, tokens: 0 }));
        let taken = inner.tokens.revoke_all(identity);
        let revoked = |who: &Identity, _: &str| (who.name == *identity).then_some(SessionEnd::Revoked);
        let sessions = inner.live.end(revoked);
        inner.passed.end(revoked);
        let done = LockedOut { sessions, tokens: u64::try_from(taken.len()).unwrap_or(u64::MAX) };
        let noted = self.note(GatewayEntry::Revocation(entry(done)));
        let noted = noted.and_then(|()| self.note_taken(taken));
        let removed = inner.passkeys.remove_all(identity);
        written?;
        noted?;
        removed.map_err(|error: NotTaken| AccessError::Passkeys(error.to_string()))?;
        Ok(done)
    }

    /// Lets an identity in again.
    ///
    /// # Errors
    /// It is not locked out, or the disk or the record refuses.
    pub fn restore(&self, identity: &IdentityName, reason: &str, by: &Actor) -> Result<(), AccessError> {
        if !self.is_revoked(identity) {
            return Err(AccessError::Not(identity.clone()));
        }
        // Opening a door needs a record first.
        self.note(GatewayEntry::Revocation(Revocation {
            action: RevocationAction::Restored,
            identity: identity.clone(),
            sessions: 0,
            tokens: 0,
            reason: reason.to_owned(),
            by: by.clone(),
        }))?;
        self.0.revoked.remove(identity)?;
        Ok(())
    }

    /// What is known now of every identity of which anything is.
    #[must_use]
    pub fn standings(&self) -> BTreeMap<IdentityName, Standing> {
        let mut all: BTreeMap<IdentityName, Standing> = BTreeMap::new();
        for ((name, credential), places) in self.0.live.places() {
            let standing = all.entry(name).or_default();
            standing.sessions += places.sessions;
            let shared = places.several();
            let Places { sessions, sources, runs } = places;
            let (sources, runs) = (sources.into_iter().collect(), runs.into_iter().collect());
            standing.credentials.push(InUse { credential, sessions, sources, runs, shared });
        }
        for held in self.0.tokens.all(SystemClock.now().wall_us) {
            let Token { id, opens, expires_us, identity, .. } = &held.token;
            let opens = match opens {
                Opens::Connection(connection) => connection.clone(),
                Opens::Ssh { connections, .. } => connections.join(", "),
            };
            let tokens = &mut all.entry(identity.name.clone()).or_default().tokens;
            tokens.push((id.clone(), opens, *expires_us));
        }
        for (time, entry) in self.0.revoked.all() {
            let standing = all.entry(entry.identity.clone()).or_default();
            standing.revoked = Some((time, entry));
        }
        all
    }

    /// Hands out a connection token to a proven identity. It is on the record when this returns.
    ///
    /// # Errors
    /// There are too many, or the disk or the record refuses.
    pub fn issue(
        &self,
        identity: &Identity,
        connection: &str,
        source: IpAddr,
        ttl: Duration,
    ) -> Result<(Zeroizing<String>, Token), AccessError> {
        let now = SystemClock.now();
        let client = source.to_canonical().to_string();
        let (text, token) = self.0.tokens.issue(identity.clone(), connection, client, end(now, ttl), now)?;
        self.note(GatewayEntry::Token(token.clone()))?;
        Ok((text, token))
    }

    /// As [`Access::issue`], of a certificate for an SSH key with this digest. Signing it is the caller's.
    pub(crate) fn certify(
        &self,
        identity: &Identity,
        opens: Opens,
        key: Digest,
        source: IpAddr,
        ttl: Duration,
    ) -> Result<Token, AccessError> {
        let now = SystemClock.now();
        let client = source.to_canonical().to_string();
        let token = self.0.tokens.certify(identity.clone(), opens, key, client, end(now, ttl), now)?;
        self.note(GatewayEntry::Token(token.clone()))?;
        Ok(token)
    }

    /// Takes back the tokens of an identity that is locked out.
    pub(crate) fn take_back(&self, identity: &IdentityName) {
        if let Err(error) = self.note_taken(self.0.tokens.revoke_all(identity)) {
            tracing::error!(%error, "tokens were taken back, and that is not on the record");
        }
    }

    fn note_taken(&self, taken: Vec<Token>) -> Result<(), AccessError> {
        for token in taken {
            self.note(GatewayEntry::Token(Token { action: TokenAction::Revoked, client: None, ..token }))?;
        }
        Ok(())
    }

    /// What a connection token proves, if it holds.
    pub(crate) fn token(&self, text: &str) -> Option<Token> {
        self.0.tokens.find(text, SystemClock.now().wall_us).map(|held| held.token.clone())
    }

    /// What a certificate of this gateway for a key with this digest proves, if it holds.
    pub(crate) fn certificate(&self, serial: u64, key: Digest) -> Option<Token> {
        self.0.tokens.certificate(serial, key, SystemClock.now().wall_us).map(|held| held.token.clone())
    }

    /// Whether any certificate for a key with this digest holds.
    pub(crate) fn is_certified(&self, key: Digest) -> bool {
        self.0.tokens.is_certified(key, SystemClock.now().wall_us)
    }

    /// Whether an identity is locked out.
    pub(crate) fn is_revoked(&self, identity: &IdentityName) -> bool {
        self.0.revoked.contains(identity)
    }

    /// Ends a live session, whatever runs in it.
    ///
    /// # Errors
    /// It is not live; or it ends, and that is not on the record.
    pub fn kill(&self, session: SessionId, reason: &str, by: &Actor) -> Result<(), AccessError> {
        if !self.0.live.end_one(session, SessionEnd::Killed) {
            return Err(AccessError::NotLive(session));
        }
        self.oversee(OversightAction::Killed, session, None, Some(reason), by)
    }

    /// Puts on the record that somebody follows the commands of a live session.
    ///
    /// # Errors
    /// It is not live, or that cannot be recorded.
    pub fn follow(&self, session: SessionId, by: &Actor) -> Result<(), AccessError> {
        if !self.0.live.contains(session) {
            return Err(AccessError::NotLive(session));
        }
        self.oversee(OversightAction::Watched, session, None, None, by)
    }

    /// Begins to watch what a running program writes. It is on the record before anything is shown.
    ///
    /// # Errors
    /// It does not run, too many watch it, or it cannot be recorded.
    pub fn watch(&self, command: CommandId, by: &Actor) -> Result<Watch, AccessError> {
        let watch = self.0.shows.watch(command).ok_or(AccessError::NotRunning(command))?;
        self.oversee(OversightAction::Watched, command.session, Some(command), None, by)?;
        Ok(watch)
    }

    fn oversee(
        &self,
        action: OversightAction,
        session: SessionId,
        command: Option<CommandId>,
        reason: Option<&str>,
        by: &Actor,
    ) -> Result<(), AccessError> {
        let reason = reason.map(str::to_owned);
        self.note(GatewayEntry::Oversight(Oversight { action, session, command, reason, by: by.clone() }))
    }

    /// What a program writes is for those who watch it, too, for as long as this lives.
    pub(crate) fn show(&self, command: CommandId, has_terminal: bool) -> Showing {
        self.0.shows.begin(command, has_terminal)
    }

    /// Counts a session in.
    pub(crate) fn enter(
        &self,
        session: SessionId,
        identity: &Arc<Identity>,
        connection: &str,
        source: IpAddr,
        max: usize,
    ) -> Result<(Entered, Option<Shared>), NotEntered> {
        let entered = self.0.live.enter(session, identity, connection, source, max).ok_or(NotEntered::Limit)?;
        // After it is counted: a lock-out either finds it among the live, or is found here.
        if self.is_revoked(&identity.name) { Err(NotEntered::Revoked) } else { Ok(entered) }
    }

    /// Counts somebody in who has come over SSH.
    pub(crate) fn pass(&self, identity: &Arc<Identity>, source: IpAddr, max: usize) -> Result<Entered, NotEntered> {
        // They have no session; this tells one of them from another.
        let one = SessionId::from_bytes(crate::random::bytes());
        let (passed, _) = self.0.passed.enter(one, identity, "", source, max).ok_or(NotEntered::Limit)?;
        if self.is_revoked(&identity.name) { Err(NotEntered::Revoked) } else { Ok(passed) }
    }

    /// Ends the sessions that a change of the configuration no longer permits, and sends away who may use nothing any more.
    /// Says how many sessions those are.
    pub(crate) fn end_unless(
        &self,
        permitted: impl Fn(&Identity, &str) -> bool,
        welcome: impl Fn(&Identity) -> bool,
    ) -> u64 {
        let not = SessionEnd::NotPermitted;
        let ended = self.0.live.end(|identity, connection| (!permitted(identity, connection)).then_some(not));
        self.0.passed.end(|identity, _| (!welcome(identity)).then_some(not));
        ended
    }

    /// How long a source has to wait before it may try again.
    pub(crate) fn wait(&self, source: IpAddr, limit: u32) -> Option<Duration> {
        self.0.throttle.wait(source, limit, Instant::now())
    }

    /// Counts a failure to prove an identity, if it may have been a guess. What is genuine and refused all the same, or
    /// could not be checked, is none.
    pub(crate) fn failed(&self, source: IpAddr, reason: RefusedReason, limit: u32) {
        use RefusedReason as Reason;
        let guess = matches!(
            reason,
            Reason::AuthenticationFailed
                | Reason::TokenMalformed
                | Reason::TokenTooLong
                | Reason::TokenAlgorithm
                | Reason::TokenIssuer
                | Reason::TokenKey
                | Reason::TokenSignature
        );
        if guess {
            self.0.throttle.failed(source, limit, Instant::now());
        }
    }

    /// Makes up salts for names that do not exist: the same ones after every start.
    pub(crate) fn mock_key(&self) -> [u8; 32] {
        self.0.mock_key
    }

    /// Keeps out whoever another one kept out, also where its disk had refused to remember that.
    pub fn keep_out(&self, before: &Self) {
        for (time, entry) in before.0.revoked.all() {
            if !self.0.revoked.contains(&entry.identity)
                && let Err(error) = self.0.revoked.insert(time, entry)
            {
                tracing::error!(%error, "a lock-out cannot be remembered over a restart");
            }
        }
    }

    fn note(&self, entry: GatewayEntry) -> Result<(), AccessError> {
        self.0.recorder.note(entry)?;
        Ok(self.0.recorder.flush()?)
    }
}

/// Until when a token holds that is handed out now.
fn end(now: Time, ttl: Duration) -> i64 {
    let ttl = i64::try_from(ttl.min(TOKEN_TTL_MAX).as_micros()).unwrap_or(i64::MAX);
    now.wall_us.saturating_add(ttl)
}

/// The key that makes up salts, kept so that a name that does not exist looks the same after a restart.
fn mock_key(file: &Path) -> io::Result<[u8; 32]> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    match std::fs::read(file).map(<[u8; 32]>::try_from) {
        Ok(Ok(key)) => return Ok(key),
        // Of another length: cut off when it was made.
        Ok(Err(_)) => std::fs::remove_file(file)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let key: [u8; 32] = crate::random::bytes();
    let mut new = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    new.write_all(&key)?;
    new.sync_all()?;
    Ok(key)
}

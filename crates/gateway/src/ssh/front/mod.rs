//! The client's side of a connection: who it is, where it wants to go, and the channels that it opens.
//!
//! The user name says where: `CONNECTION`, or `USER%CONNECTION` for another user than the connection's own. The credential
//! says who: a key that is registered for an identity, or a token as the password.

mod state;
mod ways;

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use model::{ChannelBinding, Identity, ProofMethod, SessionEnd};
use russh::keys::Certificate;
use russh::keys::ssh_key::certificate::CertType;
use russh::server::{
    Auth, ChannelOpenHandle, Handle, Handler, Msg, PublicKeyOffer, Session as Connection, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, MethodKind, MethodSet, Pty};
use zeroize::Zeroizing;

use super::session::{self, OpeningParts, Parts, Session};
use super::upstream::{LoginError, Upstream};
use super::valve::Valve;
use super::{Where, certificates, entries, keys, program, tunnel, upstream};
use crate::access::{NotProven, Proven};
use crate::config::{Config, Host, Terminals};
use crate::refusals::{Named, Reason};
use crate::worker::Seat;
use crate::{Shared, postgres};
pub(super) use state::{State, end_of, goodbye};
use ways::Beyond;

/// OpenSSH's client cuts a longer password off here, bytes.
const PASSWORD_CUT_BYTES: usize = 1023;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Ssh(#[from] russh::Error),
}

/// Handles what the client's side of one connection asks for.
pub(super) struct Front {
    shared: Arc<Shared>,
    config: Arc<Config>,
    seat: Seat,
    peer: SocketAddr,
    valve: Arc<Valve>,
    state: Arc<State>,
    proven: Option<Proven>,
    /// The user name that it gave last.
    asked: String,
    /// Why its token was not accepted, until it has been told.
    why: Option<String>,
    /// Whether it may go on from here, as far as that depends on who it is.
    passed: bool,
    /// Why there is no session.
    failure: Option<Arc<str>>,
    /// Channels in which something was started.
    started: HashSet<ChannelId>,
    /// The host in whose place it answers.
    host: Option<Arc<Host>>,
}

impl Front {
    pub(super) fn new(
        shared: Arc<Shared>,
        config: Arc<Config>,
        seat: Seat,
        peer: SocketAddr,
        valve: Arc<Valve>,
        state: Arc<State>,
        host: Option<Arc<Host>>,
    ) -> Self {
        Self {
            shared,
            config,
            seat,
            peer,
            valve,
            state,
            proven: None,
            asked: String::new(),
            why: None,
            passed: false,
            failure: None,
            started: HashSet::new(),
            host,
        }
    }

    /// Counts whoever has come in, with a session or without: so many come at a time, and all that goes over this connection
    /// ends when they are locked out.
    fn pass(&mut self) {
        let Some(proven) = self.proven.as_ref().filter(|_| self.host.is_none()) else { return };
        let max = self.config.limits.connections_per_identity_max;
        let mut passed = match self.shared.pass(&proven.identity, self.peer, max) {
            Ok(passed) => passed,
            Err(not) => {
                self.failure = Some(not.for_client(&proven.identity.name, &self.asked, max).into());
                return self.shared.refuse_named(not.reason(), self.peer, self.named());
            }
        };
        self.passed = true;
        self.state.set_may_forward(self.may_forward());
        let (end, over) = (self.state.end.clone(), self.state.over.clone());
        self.state.watching.spawn(async move {
            tokio::select! {
                why = &mut passed.ended => session::end(&end, why.unwrap_or(SessionEnd::GatewayFault)),
                () = over.cancelled() => {}
            }
        });
    }

    /// The identity that a key is registered for.
    fn of_key(&self, key: &russh::keys::PublicKey) -> Option<Identity> {
        let known = self.config.identities.values().find_map(|identity| {
            let key = identity.ssh_keys.iter().find(|known| known.is(key))?;
            Some((identity, key))
        });
        // The signature is over the connection's session id (RFC 4252, 7).
        known.map(|(identity, key)| identity.proven(ProofMethod::PublicKey, ChannelBinding::Bound, key.credential()))
    }

    /// Who comes by a certificate, whose key's owner is there.
    fn of_certificate(&self, certificate: &Certificate) -> Result<Proven, String> {
        let ca = self.config.ssh.as_ref().map(|keys| keys.user_ca.public());
        let open = certificates::check(certificate, &ca, CertType::User, SystemTime::now());
        let open = open.map_err(|not_taken| not_taken.to_string())?;
        let (serial, key) = (certificate.serial(), keys::digest(certificate.public_key()));
        let proven = self.shared.access.prove_certificate(serial, key, open, &self.config);
        proven.ok_or_else(|| "it was taken back, or never handed out".to_owned())
    }

    fn accept(&mut self, proven: Proven) -> Auth {
        self.proven = Some(proven);
        self.state.set_proven();
        Auth::Accept
    }

    /// Opens the session, or says why there is none to whoever wants to run something. Who comes to a connection has one at once;
    /// who only goes on from here has none.
    async fn begin(&mut self, connection: &mut Connection) {
        if self.failure.is_some() || self.state.session().is_some() {
            return;
        }
        let (handle, version) = (connection.handle(), connection.remote_sshid().to_vec());
        let over = self.state.over.clone();
        // What watches over the connection may be done with it meanwhile: then nothing is opened that nobody would close.
        let opened = tokio::select! {
            biased;
            () = over.cancelled() => Err("OnRecord ends this session".to_owned()),
            opened = self.open(handle, &version) => opened,
        };
        if let Err(why) = opened {
            self.failure = Some(why.into());
        }
    }

    fn start(&mut self, channel: ChannelId, connection: &mut Connection) -> Result<(), Error> {
        match self.started.insert(channel) {
            true => connection.channel_success(channel)?,
            false => connection.channel_failure(channel)?,
        }
        Ok(())
    }

    /// From a proven identity to a session, or to words why there is none.
    async fn open(&mut self, handle: Handle, client_version: &[u8]) -> Result<(), String> {
        let Some(proven) = self.proven.clone() else {
            return Err("OnRecord does not know who you are".to_owned());
        };
        let identity = proven.identity.clone();
        let (shared, config) = (self.shared.clone(), self.config.clone());
        let destination = self.destination();
        let host = config.hosts.get(destination.connection).filter(|host| proven.may_open(&host.name));
        let admission = host.and_then(|host| host.grants.admit(&identity.name, &identity.groups));
        let user = host.and_then(|host| host.user_for(destination.user));
        let (Some(host), Some(admission), Some(user)) = (host, admission, user) else {
            // One answer, so that nobody learns which connections there are.
            shared.refuse_named(Reason::NotPermitted, self.peer, self.named());
            return Err(match &self.host {
                None => format!(
                    "connection \"{}\" does not exist, or {} may not use it. The user name selects the connection: \
                     ssh CONNECTION@gateway, or USER%CONNECTION@gateway",
                    self.asked, identity.name
                ),
                Some(host) => format!(
                    "{} may not use connection \"{}\" as user \"{}\". By way of ssh -J the user name is the host's",
                    identity.name, host.name, self.asked
                ),
            });
        };
        let max = config.limits.connections_per_identity_max;
        let not_recorded = |error: &store::RecordError| {
            tracing::error!(%error, "a session cannot be recorded");
            shared.refuse_named(Reason::RecordingStopped, self.peer, self.named());
            "OnRecord takes no sessions because it cannot record them".to_owned()
        };
        let id = shared.recorder.session_id().map_err(|error| not_recorded(&error))?;
        let entered = shared.enter(id, &identity, &host.name, self.peer, max).map_err(|not| {
            shared.refuse_named(not.reason(), self.peer, self.named());
            not.for_client(&identity.name, &self.asked, max)
        })?;
        let reached = upstream::through_outpost(host, shared.outposts.as_ref(), &id.to_string()).await;
        let (carried, outpost) = reached.map(Option::unzip).map_err(|error| {
            let error = LoginError::from(error);
            tracing::warn!(connection = host.name, %error, "cannot reach the host");
            shared.refuse_named(Reason::OutpostUnavailable, self.peer, self.named());
            error.for_client(&host.name)
        })?;
        let parts = OpeningParts { identity: &identity, host, user: &user, peer: self.peer, client_version, outpost };
        let opened = shared.recorder.open_session_as(id, entries::session_open(&parts));
        let (log, opening) = opened.map_err(|error| not_recorded(&error))?;
        let session = Arc::new(Session::new(Parts {
            shared: shared.clone(),
            gate: self.seat.gate.clone(),
            admission,
            host: host.clone(),
            identity: identity.clone(),
            upstream: Upstream::new(host.clone(), user.clone(), shared.outposts.clone(), id.to_string(), &identity),
            user,
            log,
            opening,
            handle,
            valve: self.valve.clone(),
            end: self.state.end.clone(),
            outcome_wait: config.limits.outcome_wait_max,
            connect_max: config.limits.upstream_connect_max,
            entered,
        }));
        let preparing = session.upstream().prepare(carried);
        let prepared = tokio::time::timeout(config.limits.upstream_connect_max, preparing).await;
        if let Err(error) = prepared.unwrap_or(Err(LoginError::TimedOut)) {
            tracing::warn!(connection = host.name, %error, "cannot log in to the host");
            session.close(SessionEnd::UpstreamGone).await;
            return Err(error.for_client(&host.name));
        }
        if let Err(error) = session.opened().await {
            session.close(SessionEnd::RecordingStopped).await;
            return Err(not_recorded(&error));
        }
        *self.state.session() = Some(session.clone());
        let watched = session.clone();
        self.state.watching.spawn(async move {
            let ending = watched.ending();
            tokio::select! {
                why = watched.ended_from_outside() => watched.finish(why),
                _ = ending.wait() => {}
            }
        });
        Ok(())
    }
}

impl Handler for Front {
    type Error = Error;

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Error> {
        user.clone_into(&mut self.asked);
        // Unknown keys are no failed logins: a client offers all that it has.
        let known = || self.shared.access.is_certified(keys::digest(offer.public_key.key_data()));
        Ok(if self.of_key(offer.public_key).is_some() || known() { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_openssh_certificate(&mut self, user: &str, certificate: &Certificate) -> Result<Auth, Error> {
        user.clone_into(&mut self.asked);
        let connection = self.destination().connection;
        let why = match self.of_certificate(certificate) {
            // Where it is known where the client goes, it may have another one for that.
            Ok(proven) if !proven.may_open(connection) && self.config.hosts.contains_key(connection) => {
                let only = proven
                    .only
                    .filter(|only| !only.is_empty())
                    .map_or_else(|| "nothing".into(), |only| only.join(", "));
                format!("it is for {only}, and not for \"{connection}\"")
            }
            Ok(proven) => return Ok(self.accept(proven)),
            Err(refused) => refused,
        };
        // One of another authority is for somewhere else: clients show what they have.
        let ours = self.config.ssh.as_ref().is_some_and(|keys| keys.user_ca.signed(certificate));
        if !ours {
            return Ok(Auth::reject());
        }
        self.state.set_refused();
        self.shared.refuse_named(Reason::AuthenticationFailed, self.peer, self.named());
        self.why =
            Some(format!("OnRecord does not accept the certificate: {why}. `onrecord login --ssh` gets another one."));
        // It may have another key, and is told why once it has tried them all.
        let methods = [MethodKind::PublicKey, MethodKind::KeyboardInteractive, MethodKind::Password];
        Ok(Auth::Reject { proceed_with_methods: Some(MethodSet::from(methods.as_slice())), partial_success: false })
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Error> {
        user.clone_into(&mut self.asked);
        Ok(match self.of_key(key.public_key) {
            Some(identity) => self.accept(Proven { identity: Arc::new(identity), only: None }),
            None => Auth::reject(),
        })
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Error> {
        user.clone_into(&mut self.asked);
        let password = Zeroizing::new(password.to_owned());
        let result = self.shared.access.prove(&password, &self.config).await;
        let failures_max = self.config.limits.failed_logins_per_minute_max;
        // Again, now that there is a verdict: of guesses that come at the same time no more are answered than one by one.
        if self.shared.access.wait(self.peer.ip(), failures_max).is_some() {
            self.state.set_refused();
            self.shared.refuse_named(Reason::Throttled, self.peer, self.named());
            return Ok(Auth::reject());
        }
        let NotProven { reason, text, hint } = match result {
            Ok(proven) => return Ok(self.accept(proven)),
            Err(not_proven) => not_proven,
        };
        let (reason, text, hint) = if password.len() == PASSWORD_CUT_BYTES {
            let text = "ssh cuts passwords off after 1,023 bytes, and this one has exactly so many".to_owned();
            (Reason::TokenTooLong, text, Some("`onrecord token` makes a short one out of a long one."))
        } else {
            (reason, text, hint)
        };
        self.state.set_refused();
        self.shared.access.failed(self.peer.ip(), reason, failures_max);
        self.shared.refuse_named(reason, self.peer, self.named());
        self.why = Some(format!("OnRecord does not accept the token: {text}. {}", hint.unwrap_or_default()));
        // A refused password has no words in SSH; an interactive exchange without a question has.
        Ok(Auth::Reject {
            proceed_with_methods: Some(MethodSet::from([MethodKind::KeyboardInteractive].as_slice())),
            partial_success: false,
        })
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _user: &str,
        _submethods: &str,
        _response: Option<russh::server::Response<'a>>,
    ) -> Result<Auth, Error> {
        Ok(match self.why.take() {
            Some(why) => {
                Auth::Partial { name: Cow::Borrowed(""), instructions: Cow::Owned(why), prompts: Cow::Borrowed(&[]) }
            }
            None => Auth::Reject { proceed_with_methods: Some(MethodSet::empty()), partial_success: false },
        })
    }

    async fn auth_succeeded(&mut self, connection: &mut Connection) -> Result<(), Error> {
        self.pass();
        if self.comes_to_a_host() {
            self.begin(connection).await;
        }
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        connection: &mut Connection,
    ) -> Result<(), Error> {
        let session = self.state.session().clone().filter(|_| !self.started.contains(&channel));
        match session.is_some_and(|session| session.terminals() == Terminals::Allowed) {
            true => connection.channel_success(channel)?,
            false => connection.channel_failure(channel)?,
        }
        Ok(())
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        _value: &str,
        connection: &mut Connection,
    ) -> Result<(), Error> {
        match self.started.contains(&channel) {
            true => connection.channel_failure(channel)?,
            false => connection.channel_success(channel)?,
        }
        Ok(())
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        connection: &mut Connection,
    ) -> Result<(), Error> {
        connection.channel_failure(channel)?;
        Ok(())
    }

    async fn agent_request(&mut self, channel: ChannelId, connection: &mut Connection) -> Result<bool, Error> {
        connection.channel_failure(channel)?;
        Ok(false)
    }

    // What is asked for to be started is answered at once: if nothing comes of it, the channel says so in words. A channel
    // starts one thing (RFC 4254, 6.5).

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _command: &[u8],
        connection: &mut Connection,
    ) -> Result<(), Error> {
        self.start(channel, connection)
    }

    async fn shell_request(&mut self, channel: ChannelId, connection: &mut Connection) -> Result<(), Error> {
        self.start(channel, connection)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        connection: &mut Connection,
    ) -> Result<(), Error> {
        self.start(channel, connection)
    }

    async fn channel_close(&mut self, channel: ChannelId, _connection: &mut Connection) -> Result<(), Error> {
        self.started.remove(&channel);
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        connection: &mut Connection,
    ) -> Result<(), Error> {
        let Some(slot) = self.state.slot() else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        self.begin(connection).await;
        reply.accept().await;
        let session = self.state.session().clone();
        match (&self.failure, session) {
            (None, Some(session)) => {
                self.state.programs.spawn(async move {
                    program::run(session, channel).await;
                    drop(slot);
                });
            }
            (failure, _) => {
                let text = failure.as_deref().unwrap_or("OnRecord has no session for this connection").to_owned();
                let handle = connection.handle();
                self.state.programs.spawn(async move {
                    program::turn_away(channel, &handle, &text).await;
                    drop(slot);
                });
            }
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _originator: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _connection: &mut Connection,
    ) -> Result<(), Error> {
        let way_on = self.state.way_on();
        let (Some(slot), Some(way_on)) = (self.state.slot(), way_on) else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        let Some(beyond) = self.beyond(host, port) else {
            // One answer, so that nobody learns which connections there are.
            let named = Named::new(self.asked.as_bytes(), format!("{host}:{port}").as_bytes());
            self.shared.refuse_named(Reason::NotPermitted, self.peer, named);
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        };
        reply.accept().await;
        let (shared, seat, peer) = (self.shared.clone(), self.seat.beside(), self.peer);
        let (valve, names) = (self.valve.clone(), vec![host.to_owned()]);
        // It ends with this connection, whose channel carries it, or when the gateway stops, which waits for it.
        tokio::spawn(self.shared.sessions.track_future(async move {
            tunnel::serve(channel, valve, |tunnel| match beyond {
                Beyond::Host(host) => super::jump(shared, seat, tunnel, peer, Where { names, host: Some(host) }),
                Beyond::Databases(names) => Box::pin(postgres::serve_tunnel(shared, seat, tunnel, peer, names)),
            })
            .await;
            drop((slot, way_on));
        }));
        Ok(())
    }
}

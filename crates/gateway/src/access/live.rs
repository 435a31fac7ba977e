//! Live sessions: who has how many, from where, and how they are ended from outside.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Identity, IdentityName, PLACES_MAX, SessionEnd, SessionId, Shared};
use tokio::sync::oneshot;

/// The live sessions of a gateway.
#[derive(Debug, Default)]
pub(crate) struct Live(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<IdentityName, BTreeMap<SessionId, One>>,
    /// Where each credential that has sessions was last said to be in use.
    said: HashMap<(IdentityName, String), Places>,
}

#[derive(Debug)]
struct One {
    identity: Arc<Identity>,
    connection: String,
    source: IpAddr,
    end: Option<oneshot::Sender<SessionEnd>>,
}

/// Where a credential is in use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Places {
    pub(crate) sessions: u64,
    pub(crate) sources: BTreeSet<IpAddr>,
    pub(crate) runs: BTreeSet<String>,
}

impl Places {
    /// Whether that is more than one place.
    pub(crate) fn several(&self) -> bool {
        self.sources.len() > 1 || self.runs.len() > 1
    }
}

/// A session's share in the count of live sessions; it ends with this.
#[derive(Debug)]
pub(crate) struct Entered {
    live: Arc<Live>,
    identity: IdentityName,
    session: SessionId,
    /// Comes when the session is to end, and says why.
    pub(crate) ended: oneshot::Receiver<SessionEnd>,
}

impl Live {
    /// Counts this session in, unless its identity has `max` of them. With it comes what is to be said if its credential is
    /// now in use from a place more than before.
    pub(crate) fn enter(
        self: &Arc<Self>,
        session: SessionId,
        identity: &Arc<Identity>,
        connection: &str,
        source: IpAddr,
        max: usize,
    ) -> Option<(Entered, Option<Shared>)> {
        let source = source.to_canonical();
        let mut state = self.lock();
        if state.sessions.get(&identity.name).map_or(0, BTreeMap::len) >= max {
            return None;
        }
        let (end, ended) = oneshot::channel();
        let connection = connection.to_owned();
        let one = One { identity: identity.clone(), connection, source, end: Some(end) };
        state.sessions.entry(identity.name.clone()).or_default().insert(session, one);
        let shared = state.shared(identity);
        Some((Entered { live: self.clone(), identity: identity.name.clone(), session, ended }, shared))
    }

    /// Ends every session for which `reason` gives a reason. Says how many those are.
    pub(crate) fn end(&self, reason: impl Fn(&Identity, &str) -> Option<SessionEnd>) -> u64 {
        let mut ended = 0;
        for one in self.lock().sessions.values_mut().flat_map(BTreeMap::values_mut) {
            if let Some(why) = reason(&one.identity, &one.connection)
                && let Some(end) = one.end.take()
            {
                // One that has just ended by itself is past being told.
                ended += u64::from(end.send(why).is_ok());
            }
        }
        ended
    }

    /// Ends this session. False if it is not live, or was told to end before.
    pub(crate) fn end_one(&self, session: SessionId, why: SessionEnd) -> bool {
        let mut state = self.lock();
        let one = state.sessions.values_mut().find_map(|own| own.get_mut(&session));
        one.and_then(|one| one.end.take()).is_some_and(|end| end.send(why).is_ok())
    }

    /// Whether this session is live.
    pub(crate) fn contains(&self, session: SessionId) -> bool {
        self.lock().sessions.values().any(|own| own.contains_key(&session))
    }

    /// Where each credential of each identity is in use.
    pub(crate) fn places(&self) -> BTreeMap<(IdentityName, String), Places> {
        let mut places: BTreeMap<_, Places> = BTreeMap::new();
        for one in self.lock().sessions.values().flat_map(BTreeMap::values) {
            let key = (one.identity.name.clone(), one.identity.proof.credential.clone());
            places.entry(key).or_default().add(one);
        }
        places
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn add(&mut self, one: &One) {
        self.sessions += 1;
        self.sources.insert(one.source);
        self.runs.extend(one.identity.run.iter().map(|run| run.id.clone()));
    }
}

impl State {
    fn places(&self, identity: &Identity) -> Places {
        let mut places = Places::default();
        let own = self.sessions.get(&identity.name).into_iter().flat_map(BTreeMap::values);
        own.filter(|one| one.identity.proof.credential == identity.proof.credential).for_each(|one| places.add(one));
        places
    }

    /// What is to be said of this credential, if it is in use from a place that nothing was said of.
    fn shared(&mut self, identity: &Identity) -> Option<Shared> {
        let places = self.places(identity);
        let said = self.said.entry((identity.name.clone(), identity.proof.credential.clone())).or_default();
        let news = !places.sources.is_subset(&said.sources) || !places.runs.is_subset(&said.runs);
        // Beyond the list's length nothing new can be said.
        let room = said.sources.len() <= PLACES_MAX && said.runs.len() <= PLACES_MAX;
        said.sources.extend(&places.sources);
        said.runs.extend(places.runs.iter().cloned());
        (places.several() && news && room).then(|| Shared {
            identity: identity.name.clone(),
            credential: identity.proof.credential.clone(),
            sources: places.sources.iter().take(PLACES_MAX).map(ToString::to_string).collect(),
            runs: places.runs.iter().take(PLACES_MAX).cloned().collect(),
            sessions: places.sessions,
        })
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut state = self.live.lock();
        let Some(own) = state.sessions.get_mut(&self.identity) else { return };
        let one = own.remove(&self.session);
        if own.is_empty() {
            state.sessions.remove(&self.identity);
        }
        if let Some(one) = one
            && state.places(&one.identity).sessions == 0
        {
            state.said.remove(&(one.identity.name.clone(), one.identity.proof.credential.clone()));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use model::{ChannelBinding, Known, Proof, ProofMethod, Run};

    fn identity(name: &str, run: Option<&str>) -> Arc<Identity> {
        let proof = Proof {
            method: ProofMethod::ScramSha256,
            channel: ChannelBinding::None,
            credential: "salt:x".into(),
            evidence: None,
        };
        Arc::new(Identity {
            name: name.parse().unwrap(),
            known: Known::Verified,
            proof,
            on_behalf_of: None,
            groups: Vec::new(),
            run: run.map(|id| Run { id: id.into(), known: Known::Verified }),
        })
    }

    fn session(number: u8) -> SessionId {
        SessionId::from_bytes([number; 16])
    }

    #[test]
    fn a_credential_in_two_places_is_said_once() {
        let live = Arc::new(Live::default());
        let (here, there) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let a = identity("agent:a", None);
        let (one, said) = live.enter(session(1), &a, "app", here, 9).unwrap();
        assert_eq!(said, None);
        let (_two, said) = live.enter(session(2), &a, "app", there, 9).unwrap();
        let said = said.unwrap();
        assert_eq!((said.sources, said.sessions), (vec!["10.0.0.1".to_owned(), "10.0.0.2".to_owned()], 2));
        assert_eq!(live.enter(session(3), &a, "app", there, 9).unwrap().1, None, "said already");
        drop(one);
        assert_eq!(live.places().values().next().unwrap().sources.len(), 1);
        let b = |run| identity("agent:b", Some(run));
        let (_three, said) = live.enter(session(4), &b("run:1"), "app", here, 9).unwrap();
        assert_eq!(said, None);
        assert_eq!(live.enter(session(5), &b("run:2"), "app", here, 9).unwrap().1.unwrap().runs, ["run:1", "run:2"]);
    }

    #[tokio::test]
    async fn sessions_are_counted_and_ended() {
        let live = Arc::new(Live::default());
        let (a, b) = (identity("agent:a", None), identity("agent:b", None));
        let from = IpAddr::from([10, 0, 0, 1]);
        let (one, _) = live.enter(session(6), &a, "app", from, 1).unwrap();
        assert!(live.enter(session(7), &a, "app", from, 1).is_none(), "the limit");
        let (other, _) = live.enter(session(8), &b, "app", from, 1).unwrap();
        let of_a = |identity: &Identity, _: &str| (identity.name == a.name).then_some(SessionEnd::Revoked);
        assert_eq!(live.end(of_a), 1);
        assert_eq!(live.end(of_a), 0, "told once");
        let mut one = one;
        assert_eq!((&mut one.ended).await, Ok(SessionEnd::Revoked));
        assert!(live.contains(session(8)) && !live.contains(session(99)));
        assert!(live.end_one(session(8), SessionEnd::Killed) && !live.end_one(session(8), SessionEnd::Killed));
        let mut other = other;
        assert_eq!((&mut other.ended).await, Ok(SessionEnd::Killed));
        drop((one, other));
        assert!(live.enter(session(9), &a, "app", from, 1).is_some());
    }
}

//! Where a client wants to go, and whether it may.

use std::sync::Arc;

use super::Front;
use crate::access::Proven;
use crate::config::{Address, Config, Host};
use crate::refusals::Named;

/// What a client wants to reach by way of the gateway, which answers in its place.
pub(super) enum Beyond {
    Host(Arc<Host>),
    /// The PostgreSQL connections that there are of that name, or at that address.
    Databases(Vec<String>),
}

/// Where a user name says that its client wants to go.
pub(super) struct Destination<'a> {
    pub(super) user: Option<&'a str>,
    pub(super) connection: &'a str,
}

impl<'a> Destination<'a> {
    fn of(asked: &'a str) -> Self {
        match asked.rsplit_once('%') {
            Some((user, connection)) => Self { user: Some(user), connection },
            None => Self { user: None, connection: asked },
        }
    }
}

/// Whether whoever has proven this may use a connection, of whatever kind.
fn may_use(proven: &Proven, config: &Config, connection: &str) -> bool {
    proven.may_open(connection) && config.permits(&proven.identity, connection)
}

impl Front {
    pub(super) fn destination(&self) -> Destination<'_> {
        match &self.host {
            Some(host) => Destination { user: Some(&self.asked), connection: &host.name },
            None => Destination::of(&self.asked),
        }
    }

    pub(super) fn named(&self) -> Named {
        Named::new(self.asked.as_bytes(), self.destination().connection.as_bytes())
    }

    /// What a client wants to reach by way of the gateway, by the name of a connection or an address. There is no way on from
    /// a host.
    pub(super) fn beyond(&self, name: &str, port: u32) -> Option<Beyond> {
        let proven = self.proven.as_ref().filter(|_| self.passed)?;
        let (identity, config) = (&proven.identity, self.shared.config());
        if self.shared.access.is_revoked(&identity.name) || !self.shared.access.still_trusts(identity, &config) {
            return None;
        }
        let may = |connection: &str| may_use(proven, &config, connection);
        if let Some(host) = config.hosts.get(name).filter(|_| may(name)) {
            return Some(Beyond::Host(host.clone()));
        }
        if config.connections.contains_key(name) && may(name) {
            return Some(Beyond::Databases(vec![name.to_owned()]));
        }
        let at = |address: &Address| match address {
            Address::Tcp { host, port: its } => host == name && u32::from(*its) == port,
            Address::Unix(_) => false,
        };
        if let Some(host) = config.hosts.values().find(|host| at(&host.address) && may(&host.name)) {
            return Some(Beyond::Host(host.clone()));
        }
        let databases = config.connections.values().filter(|known| at(&known.address) && may(&known.name));
        let names: Vec<_> = databases.map(|known| known.name.clone()).collect();
        (!names.is_empty()).then_some(Beyond::Databases(names))
    }

    /// Whether there is a database that whoever comes may use.
    pub(super) fn may_forward(&self) -> bool {
        let Some(proven) = self.proven.as_ref().filter(|_| self.host.is_none()) else { return false };
        let mut names = self.config.connections.keys();
        names.any(|name| may_use(proven, &self.config, name))
    }

    /// Whether it asks for a host that there is, with a credential for that.
    pub(super) fn comes_to_a_host(&self) -> bool {
        let (connection, config) = (self.destination().connection, &self.config);
        let may = |proven: &Proven| may_use(proven, config, connection);
        config.hosts.contains_key(connection) && self.proven.as_ref().is_some_and(may)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_name_says_where_to_go() {
        let of = |asked| {
            let Destination { user, connection } = Destination::of(asked);
            (user.map(str::to_owned), connection.to_owned())
        };
        assert_eq!(of("web1"), (None, "web1".to_owned()));
        assert_eq!(of("root%web1"), (Some("root".to_owned()), "web1".to_owned()));
        assert_eq!(of("a%b%web1"), (Some("a%b".to_owned()), "web1".to_owned()));
        assert_eq!(of(""), (None, String::new()));
    }
}

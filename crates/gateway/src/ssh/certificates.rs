//! SSH certificates (OpenSSH's PROTOCOL.certkeys): what the gateway's authorities sign, and what is checked of one that
//! is shown.
//!
//! The library has checked the signature and the times of a client's certificate. Everything is checked again here, so
//! that there is one place that says what is taken.
//!
//! Invariant: nothing is signed or taken that is valid for everybody, or that has a condition which is not checked.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use russh::keys::{Certificate, HashAlg, ssh_key};
use ssh_key::certificate::{Builder, CertType};

use super::keys::{KeyError, PrivateKey, PublicKey};
use crate::random;

/// How far the clocks of those who check a certificate may be behind.
const CLOCKS_MAX: Duration = Duration::from_secs(5 * 60);
/// Principals of one certificate: OpenSSH reads no more.
pub(crate) const PRINCIPALS_MAX: usize = 256;

/// What a certificate is to say.
pub(crate) struct Wanted<'a> {
    pub(crate) kind: CertType,
    pub(crate) serial: u64,
    /// What whoever checks it writes into its log.
    pub(crate) key_id: &'a str,
    /// Users, or hosts.
    pub(crate) principals: &'a [String],
    /// For how long it is valid from now on.
    pub(crate) ttl: Duration,
}

/// Signs a certificate for a key.
pub(crate) fn sign(ca: &PrivateKey, key: &PublicKey, wanted: &Wanted<'_>) -> Result<Certificate, KeyError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (from, until) = (now.saturating_sub(CLOCKS_MAX), now.saturating_add(wanted.ttl));
    let sign = || {
        let nonce: [u8; 32] = random::bytes();
        let mut builder = Builder::new(nonce, key.0.key_data().clone(), from.as_secs(), until.as_secs())?;
        builder.serial(wanted.serial)?.cert_type(wanted.kind)?.key_id(wanted.key_id)?;
        // None would be valid for all.
        for principal in wanted.principals {
            builder.valid_principal(principal)?;
        }
        if wanted.kind.is_user() {
            builder.extension("permit-pty", "")?;
        }
        builder.sign(&*ca.0)
    };
    sign().map_err(|_: ssh_key::Error| KeyError::Certificate)
}

/// Why a certificate is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotTaken {
    #[error("it is not signed by an authority that is trusted")]
    Authority,
    #[error("its signature is wrong, or it is not valid now")]
    NotValid,
    #[error("it is of another kind: one for {kind}s", kind = if .0.is_host() { "host" } else { "user" })]
    Kind(CertType),
    #[error("it is not valid for \"{0}\"")]
    Principal(String),
    #[error("it has the condition \"{0}\", which is not checked here")]
    Condition(String),
}

/// Whom a certificate is for that is one of this kind, of one of these authorities, and holds now. A list that is empty
/// means everybody to others, and nobody here.
pub(crate) fn check<'a, 'c>(
    certificate: &'c Certificate,
    authorities: impl IntoIterator<Item = &'a PublicKey>,
    kind: CertType,
    now: SystemTime,
) -> Result<&'c [String], NotTaken> {
    if !authorities.into_iter().any(|authority| authority.0.key_data() == certificate.signature_key()) {
        return Err(NotTaken::Authority);
    }
    let now = now.duration_since(UNIX_EPOCH).map_err(|_| NotTaken::NotValid)?.as_secs();
    let signer = certificate.signature_key().fingerprint(HashAlg::Sha256);
    certificate.validate_at(now, [&signer]).map_err(|_| NotTaken::NotValid)?;
    if certificate.cert_type() != kind {
        return Err(NotTaken::Kind(certificate.cert_type()));
    }
    match certificate.critical_options().iter().next() {
        Some((name, _)) => Err(NotTaken::Condition(name.escape_default().to_string())),
        None => Ok(certificate.valid_principals()),
    }
}

/// Whether a host's certificate is one for the host of this name, as [`check`] does. Names are compared, not matched.
pub(crate) fn check_host<'a>(
    certificate: &Certificate,
    authorities: impl IntoIterator<Item = &'a PublicKey>,
    name: &str,
    now: SystemTime,
) -> Result<(), NotTaken> {
    let valid = check(certificate, authorities, CertType::Host, now)?.iter().any(|valid| valid == name);
    if valid { Ok(()) } else { Err(NotTaken::Principal(name.to_owned())) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn wanted(kind: CertType, principals: &[String]) -> Wanted<'_> {
        Wanted { kind, serial: 7, key_id: "identity=agent:deployer", principals, ttl: HOUR }
    }

    #[test]
    fn what_is_signed_is_taken_by_whom_it_is_for_and_for_its_time() {
        let (ca, key) = (PrivateKey::generate(), PrivateKey::generate().public());
        let certificate = sign(&ca, &key, &wanted(CertType::Host, &["web1".into(), "web2".into()])).unwrap();
        let (trusted, now) = ([PrivateKey::generate().public(), ca.public()], SystemTime::now());
        let check = |name, now| check_host(&certificate, &trusted, name, now);
        assert_eq!(check("web2", now), Ok(()));
        assert_eq!(check("web3", now), Err(NotTaken::Principal("web3".into())));
        assert_eq!(check("web2", now - CLOCKS_MAX / 2), Ok(()), "a clock that is behind");
        assert_eq!(check("web2", now - 2 * CLOCKS_MAX), Err(NotTaken::NotValid));
        assert_eq!(check("web2", now + 2 * HOUR), Err(NotTaken::NotValid));
        let user = sign(&ca, &key, &wanted(CertType::User, &["web1".into()])).unwrap();
        assert_eq!(super::check(&user, &trusted, CertType::User, now), Ok(&["web1".to_owned()][..]));
        assert_eq!(user.extensions().keys().collect::<Vec<_>>(), ["permit-pty"]);
    }

    #[test]
    fn nothing_else_is() {
        let (ca, other, key) = (PrivateKey::generate(), PrivateKey::generate(), PrivateKey::generate().public());
        let names = ["web1".to_owned()];
        let (trusted, now) = ([ca.public()], SystemTime::now());
        let check = |certificate: &Certificate| check(certificate, &trusted, CertType::User, now).map(<[_]>::len);
        let of_another = sign(&other, &key, &wanted(CertType::User, &names)).unwrap();
        assert_eq!(check(&of_another), Err(NotTaken::Authority));
        let of_a_host = sign(&ca, &key, &wanted(CertType::Host, &names)).unwrap();
        assert_eq!(check(&of_a_host), Err(NotTaken::Kind(CertType::Host)));
        assert!(sign(&ca, &key, &wanted(CertType::User, &[])).is_err(), "one for everybody");
        // Made by somebody who has the authority's key.
        let with = |change: &dyn Fn(&mut Builder)| {
            let seconds = now.duration_since(UNIX_EPOCH).unwrap().as_secs();
            let mut builder = Builder::new([1; 16], key.0.key_data().clone(), seconds - 9, seconds + 9).unwrap();
            change(&mut builder);
            builder.sign(&*ca.0).unwrap()
        };
        let for_all = with(&|builder| drop(builder.all_principals_valid().map(drop)));
        assert_eq!(check(&for_all), Ok(0), "for nobody");
        for (name, value) in [("source-address", "127.0.0.1"), ("force-command", "true"), ("verify-required", "")] {
            let certificate = with(&|builder| {
                builder.valid_principal("web1").unwrap().critical_option(name, value).unwrap();
            });
            assert_eq!(check(&certificate), Err(NotTaken::Condition(name.into())));
        }
        // A byte of it changed.
        let mut bytes = sign(&ca, &key, &wanted(CertType::User, &names)).unwrap().to_bytes().unwrap();
        let at = bytes.windows(4).position(|four| four == b"web1").unwrap();
        bytes.splice(at..at + 4, *b"web2");
        let forged = Certificate::from_bytes(&bytes).unwrap();
        let forged = super::check(&forged, &trusted, CertType::User, now);
        assert_eq!(forged, Err(NotTaken::NotValid));
    }
}

//! How an outpost gets its certificate, and the next one. The key of each is made here and never leaves.

use std::sync::Arc;
use std::time::Duration;

use link::{ALPN_RENEW, Frame, HANDSHAKE_MAX, JoinToken, trust};
use rcgen::{CertificateParams, KeyPair};
use rustls::ClientConfig;

use crate::state::{Identity, State, now};
use crate::{Options, OutpostError, Shared, carrier, links, say};

/// After a renewal that failed, until the next try.
const RETRY: Duration = Duration::from_secs(60);

/// Exchanges a join token for a certificate and keeps it. Tries again while the gateway cannot be reached.
pub(crate) async fn join(options: &Options, state: &State, token: &JoinToken) -> Result<Identity, OutpostError> {
    let (key, request) = key_and_request()?;
    let frame = Frame::Enrol { token: token.id(), mac: token.mac(&request), request };
    let mut tries = 0;
    loop {
        let tls = trust::newcomer(token.authority())?;
        match ask(options, token.address(), tls, &frame).await {
            Ok(issued) => {
                let identity = identity(issued, token.address(), &key)?;
                state.save(&identity)?;
                return Ok(identity);
            }
            Err(error @ OutpostError::Unreachable { .. }) => say(&error.to_string()),
            Err(error) => return Err(error),
        }
        tokio::time::sleep(links::pause(tries)).await;
        tries += 1;
    }
}

/// Renews the certificate at two thirds of its life, again and again. Returns only when there is none any more.
pub(crate) async fn keep(shared: Arc<Shared>) -> Result<(), OutpostError> {
    loop {
        let wait = shared.identity().due().saturating_sub(now());
        // In steps: a machine that slept, or whose clock was set, is not late by more than one.
        if wait > 0 {
            tokio::time::sleep(Duration::from_secs(wait.unsigned_abs()).min(RETRY)).await;
            continue;
        }
        match renew(&shared).await {
            Ok(()) => {
                say("the certificate is renewed");
                // With a clock that is far off, the next one is due at once, and again.
                tokio::time::sleep(RETRY).await;
            }
            Err(error @ OutpostError::Denied(_)) => return Err(error),
            Err(error) => {
                say(&format!("the certificate is not renewed yet: {error}"));
                if shared.identity().is_expired() {
                    return Err(OutpostError::Expired);
                }
                tokio::time::sleep(links::pause(3)).await;
            }
        }
    }
}

async fn renew(shared: &Shared) -> Result<(), OutpostError> {
    let (key, request) = key_and_request()?;
    let old = shared.identity().clone();
    let tls = trust::member(&old.authorities, old.certificate.clone(), old.key(), ALPN_RENEW)?;
    let issued = ask(&shared.options, &old.address, tls, &Frame::Renew { request }).await?;
    let new = identity(issued, &old.address, &key)?;
    shared.state.save(&new)?;
    *shared.identity() = new;
    Ok(())
}

fn key_and_request() -> Result<(KeyPair, Vec<u8>), OutpostError> {
    let key = KeyPair::generate()?;
    let request = CertificateParams::default().serialize_request(&key)?;
    Ok((key, request.der().to_vec()))
}

/// One question, one answer.
async fn ask(options: &Options, address: &str, tls: ClientConfig, frame: &Frame) -> Result<Frame, OutpostError> {
    let asking = async {
        let mut stream = carrier::dial(options, address, tls).await?;
        frame.write(&mut stream).await?;
        Frame::read(&mut stream).await
    };
    let asked = tokio::time::timeout(HANDSHAKE_MAX * 2, asking).await;
    match asked.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
        Ok(Frame::Denied { why }) => Err(OutpostError::Denied(why)),
        Ok(frame) => Ok(frame),
        Err(source) => Err(OutpostError::Unreachable { address: address.to_owned(), source }),
    }
}

fn identity(issued: Frame, address: &str, key: &KeyPair) -> Result<Identity, OutpostError> {
    let Frame::Issued { id, name, certificate, authorities, not_before, not_after } = issued else {
        return Err(OutpostError::Answer);
    };
    if authorities.is_empty() || not_after <= not_before {
        return Err(OutpostError::Answer);
    }
    let identity = Identity {
        id,
        name,
        address: address.to_owned(),
        certificate: certificate.into(),
        key: key.serialize_der(),
        authorities: authorities.into_iter().map(Into::into).collect(),
        not_before,
        not_after,
    };
    // It must be usable before it replaces the one before.
    trust::member(&identity.authorities, identity.certificate.clone(), identity.key(), ALPN_RENEW)?;
    Ok(identity)
}

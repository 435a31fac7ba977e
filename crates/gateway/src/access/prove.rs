//! What a token proves: a connection token of this gateway, or one of an issuer that it trusts.

use std::sync::Arc;

use model::{ChannelBinding, Digest, Identity, IdentityName, Known, Opens, Proof, ProofMethod, RefusedReason, Token};

use super::{Access, RESTORE, tokens};
use crate::config::Config;

/// Who was proven.
#[derive(Debug, Clone)]
pub(crate) struct Proven {
    pub(crate) identity: Arc<Identity>,
    /// The connections that the credential opens, if it is not for all that its owner may use.
    pub(crate) only: Option<Vec<String>>,
}

impl Proven {
    /// Whether the credential is one for this connection. Whether its owner may use it is another question.
    pub(crate) fn may_open(&self, connection: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|name| name == connection))
    }
}

/// Why a token proves nothing, for the one who sent it.
#[derive(Debug, Clone)]
pub(crate) struct NotProven {
    pub(crate) reason: RefusedReason,
    /// Completes "OnRecord does not accept the token: ".
    pub(crate) text: String,
    pub(crate) hint: Option<&'static str>,
}

impl NotProven {
    pub(crate) fn malformed() -> Self {
        Self {
            reason: RefusedReason::TokenMalformed,
            text: "it is neither a connection token nor a JSON Web Token".to_owned(),
            hint: Some("`onrecord token` makes one; the token is the password, and nothing else is."),
        }
    }

    fn untrusted() -> Self {
        Self {
            reason: RefusedReason::TokenIssuer,
            text: "this gateway trusts no issuer".to_owned(),
            hint: Some("Its operator names issuers in the configuration: [issuers.NAME]."),
        }
    }

    /// The identity is locked out.
    pub(crate) fn revoked(name: &IdentityName) -> Self {
        Self { reason: RefusedReason::Revoked, text: format!("{name} was revoked"), hint: Some(RESTORE) }
    }

    /// One answer for what never was a token, what was one, and what is one with another secret.
    fn unknown() -> Self {
        Self {
            reason: RefusedReason::AuthenticationFailed,
            text: "it is unknown, has expired, or was taken back".to_owned(),
            hint: Some("`onrecord token` makes another one."),
        }
    }
}

impl Access {
    /// Who this token says it is. Cancel safe.
    pub(crate) async fn prove(&self, text: &str, config: &Config) -> Result<Proven, NotProven> {
        if text.starts_with(tokens::PREFIX) {
            let token = self.token(text).filter(|token| self.still_trusts(&token.identity, config));
            return token.and_then(of_connection_token).ok_or_else(NotProven::unknown);
        }
        // What is no token at all is told what one is, also where no issuer is trusted.
        if text.bytes().filter(|&byte| byte == b'.').count() != 2 {
            return Err(NotProven::malformed());
        }
        let Some(issuers) = self.trusted() else {
            return Err(NotProven::untrusted());
        };
        let proven = issuers.prove(text).await.map_err(|refusal| NotProven {
            reason: refusal.reason(),
            text: refusal.to_string(),
            hint: None,
        })?;
        // Sent as a password or a bearer's: nothing binds it to the channel.
        Ok(Proven { identity: Arc::new(identity_of(proven, ChannelBinding::None)), only: None })
    }

    /// Who a certificate says it is that this gateway signed, with this serial number, for a key with this digest, whose
    /// owner is there. It opens what it names, of what it was handed out for.
    pub(crate) fn prove_certificate(
        &self,
        serial: u64,
        key: Digest,
        connections: &[String],
        config: &Config,
    ) -> Option<Proven> {
        let token = self.certificate(serial, key).filter(|token| self.still_trusts(&token.identity, config))?;
        let Opens::Ssh { connections: handed, .. } = &token.opens else { return None };
        let only = connections.iter().filter(|name| handed.contains(name)).cloned().collect();
        let identity = handed_out(
            token.identity,
            ProofMethod::SshCertificate,
            ChannelBinding::Bound,
            format!("ssh-certificate:{}", token.id),
        );
        Some(Proven { identity, only: Some(only) })
    }
}

/// An identity that a credential of someone else's making proved.
pub(crate) fn identity_of(proven: identity::Proven, channel: ChannelBinding) -> Identity {
    let identity::Proven { name, groups, on_behalf_of, run, method, credential, evidence, not_after: _ } = proven;
    let proof = Proof { method, channel, credential, evidence: Some(evidence) };
    Identity { name, known: Known::Verified, proof, on_behalf_of, groups, run }
}

fn of_connection_token(token: Token) -> Option<Proven> {
    let Opens::Connection(connection) = token.opens else { return None };
    let identity =
        handed_out(token.identity, ProofMethod::ConnectionToken, ChannelBinding::None, format!("token:{}", token.id));
    Some(Proven { identity, only: Some(vec![connection]) })
}

/// The identity stays as it was proven when the token was handed out; the proof names the token.
fn handed_out(identity: Identity, method: ProofMethod, channel: ChannelBinding, credential: String) -> Arc<Identity> {
    let proof = Proof { method, channel, credential, evidence: identity.proof.evidence };
    Arc::new(Identity { known: Known::Verified, proof, ..identity })
}

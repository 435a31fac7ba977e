//! SSH keys: the gateway's own, those of hosts, and those by which clients prove who they are.

use std::fmt;
use std::sync::Arc;

use model::Digest;
use russh::keys::{Algorithm, Certificate, HashAlg, ssh_key};
use zeroize::Zeroizing;

use crate::random;

/// Why something is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It is not in OpenSSH's form of a private key.
    #[error("it is not a private key in OpenSSH's form (it begins `-----BEGIN OPENSSH PRIVATE KEY-----`)")]
    Private,
    /// Its passphrase is not known here.
    #[error("it is protected by a passphrase, which the gateway cannot ask for")]
    Passphrase,
    /// It is not in OpenSSH's form of a public key.
    #[error("it is not a public key in OpenSSH's form, such as `ssh-ed25519 AAAA...`")]
    Public,
    /// Its algorithm is not used here.
    #[error("{0} keys are not taken: make one with `ssh-keygen -t ed25519`")]
    Algorithm(String),
    /// It cannot be certified, or is no certificate.
    #[error("there is no such certificate")]
    Certificate,
}

/// A private key.
#[derive(Clone)]
pub struct PrivateKey(pub(super) Arc<ssh_key::PrivateKey>);

impl PrivateKey {
    /// A new Ed25519 key.
    #[must_use]
    pub fn generate() -> Self {
        let seed = Zeroizing::new(random::bytes());
        Self(Arc::new(ssh_key::private::Ed25519Keypair::from_seed(&seed).into()))
    }

    /// The key in a file that `ssh-keygen` wrote.
    ///
    /// # Errors
    /// It is none, has a passphrase, or its algorithm is not used.
    pub fn from_openssh(text: &str) -> Result<Self, KeyError> {
        let key = ssh_key::PrivateKey::from_openssh(text.trim_ascii()).map_err(|_| KeyError::Private)?;
        if key.is_encrypted() {
            return Err(KeyError::Passphrase);
        }
        usable(&key.algorithm())?;
        Ok(Self(Arc::new(key)))
    }

    /// As `ssh-keygen` would write it.
    ///
    /// # Errors
    /// It has no such form.
    pub fn to_openssh(&self) -> Result<Zeroizing<String>, KeyError> {
        self.0.to_openssh(ssh_key::LineEnding::LF).map_err(|_| KeyError::Private)
    }

    /// Whether a certificate says that this key signed it. Whether it did is another question.
    pub(super) fn signed(&self, certificate: &Certificate) -> bool {
        self.0.public_key().key_data() == certificate.signature_key()
    }

    /// What asks an agent (draft-ietf-sshm-ssh-agent) to keep it and a certificate for it for so many seconds.
    ///
    /// # Errors
    /// It is not an Ed25519 key, or that is no certificate in OpenSSH's form.
    pub fn for_agent(&self, certificate: &str, comment: &str, seconds: u32) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        /// SSH_AGENTC_ADD_ID_CONSTRAINED.
        const ADD: u8 = 25;
        /// SSH_AGENT_CONSTRAIN_LIFETIME.
        const LIFETIME: u8 = 1;
        let certificate = Certificate::from_openssh(certificate).map_err(|_| KeyError::Certificate)?;
        let blob = certificate.to_bytes().map_err(|_| KeyError::Certificate)?;
        let pair = self.0.key_data().ed25519().ok_or(KeyError::Private)?;
        let secret = Zeroizing::new(pair.to_bytes());
        let kind = certificate.algorithm().to_certificate_type();
        let mut message = Zeroizing::new(vec![ADD]);
        for part in [kind.as_bytes(), &blob, pair.public.as_ref(), &secret[..], comment.as_bytes()] {
            let length = u32::try_from(part.len()).map_err(|_| KeyError::Certificate)?;
            message.extend_from_slice(&length.to_be_bytes());
            message.extend_from_slice(part);
        }
        message.push(LIFETIME);
        message.extend_from_slice(&seconds.to_be_bytes());
        Ok(message)
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key().clone())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.public().fingerprint())
    }
}

/// A public key. Two are the same whatever their comments say.
#[derive(Clone, Debug)]
pub struct PublicKey(pub(super) ssh_key::PublicKey);

impl PublicKey {
    /// The key of a line of `authorized_keys` or a `.pub` file, without options.
    ///
    /// # Errors
    /// It is none, or its algorithm is not used.
    pub fn from_openssh(line: &str) -> Result<Self, KeyError> {
        let key = ssh_key::PublicKey::from_openssh(line.trim_ascii()).map_err(|_| KeyError::Public)?;
        usable(&key.algorithm())?;
        Ok(Self(key))
    }

    /// As OpenSSH writes it, without a comment.
    #[must_use]
    pub fn to_openssh(&self) -> String {
        let mut key = self.0.clone();
        key.set_comment("");
        key.to_openssh().unwrap_or_default()
    }

    /// `SHA256:` and base64, as `ssh-keygen -l` says it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint(HashAlg::Sha256).to_string()
    }

    /// SHA-256 of it, which its fingerprint is, too.
    pub(crate) fn digest(&self) -> Digest {
        digest(self.0.key_data())
    }

    /// How the record names who proves by it who they are.
    #[must_use]
    pub fn credential(&self) -> String {
        format!("ssh-key:{}", self.fingerprint())
    }

    pub(super) fn is(&self, other: &ssh_key::PublicKey) -> bool {
        self.0.key_data() == other.key_data()
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.is(&other.0)
    }
}

impl Eq for PublicKey {}

/// SHA-256 of a public key.
pub(super) fn digest(key: &ssh_key::public::KeyData) -> Digest {
    match key.fingerprint(HashAlg::Sha256) {
        ssh_key::Fingerprint::Sha256(digest) => Digest(digest),
        _ => unreachable!("SHA-256 was asked for"),
    }
}

/// RSA is not: the only implementation that the library has leaks by its timing (RUSTSEC-2023-0071).
fn usable(algorithm: &Algorithm) -> Result<(), KeyError> {
    match algorithm {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256 => Ok(()),
        other => Err(KeyError::Algorithm(other.to_string())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_and_read_again() {
        let key = PrivateKey::generate();
        let text = key.to_openssh().unwrap();
        assert!(text.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----"));
        assert_eq!(PrivateKey::from_openssh(&text).unwrap().public(), key.public());
        let line = format!("{} somebody@somewhere", key.public().to_openssh());
        assert_eq!(PublicKey::from_openssh(&line).unwrap(), key.public());
        assert_eq!(format!("{key:?}"), format!("PrivateKey({})", key.public().fingerprint()));
    }

    #[test]
    fn what_is_no_key_is_told_so() {
        for bad in ["", "ssh-ed25519", "ssh-ed25519 AAAA", "hello world"] {
            assert!(matches!(PublicKey::from_openssh(bad), Err(KeyError::Public)), "{bad}");
            assert!(matches!(PrivateKey::from_openssh(bad), Err(KeyError::Private)), "{bad}");
        }
    }
}

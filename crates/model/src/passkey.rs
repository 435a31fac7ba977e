//! Keys that people sign their decisions with, and what such a signature is over.
//!
//! A passkey (WebAuthn) signs a challenge, and the challenge says what is decided, by whom, and about what. With the
//! entry that says whose key it is, anybody can check a decision later, without the gateway: see `ledger::passkey`.

use sha2::{Digest as _, Sha256};

use crate::approval::ApprovalDecision;
use crate::closed::closed;
use crate::{Digest, Identity, IdentityName};

closed! {
    /// What became of a passkey.
    PasskeyAction {
        /// Its owner may sign decisions with it from here on.
        Enrolled = "enrolled",
        /// It is taken no longer.
        Removed = "removed",
    }
}

closed! {
    /// How a passkey signs.
    PasskeyAlgorithm {
        /// ECDSA over P-256 with SHA-256; the public key is a point of 65 bytes, uncompressed, as SEC 1 has it.
        Es256 = "es256",
        /// Ed25519; the public key is 32 bytes.
        Ed25519 = "ed25519",
    }
}

/// Somebody's passkey was enrolled or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passkey {
    /// What became of it.
    pub action: PasskeyAction,
    /// Who did it, whose key it is, and how that is known.
    pub identity: Identity,
    /// The credential's id, base64url without padding, as browsers write it.
    pub credential: String,
    /// How it signs.
    pub algorithm: PasskeyAlgorithm,
    /// Its public key, see [`PasskeyAlgorithm`].
    pub public_key: Vec<u8>,
    /// The host name that the key belongs to.
    pub rp_id: String,
    /// The web origin on which it signs, such as `https://gateway.example`.
    pub origin: String,
    /// The model of the authenticator as it says itself, as a UUID; nobody vouches for it.
    pub aaguid: String,
}

/// A passkey's signature, with what is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assertion {
    /// The id of the credential, base64url without padding.
    pub credential: String,
    /// What the authenticator says: of which host, and whether a person was there and proved to be its owner.
    pub authenticator_data: Vec<u8>,
    /// What the browser says: the challenge, and on which origin. JSON, as it was hashed.
    pub client_data: Vec<u8>,
    /// The signature over the authenticator data and SHA-256 of the client data.
    pub signature: Vec<u8>,
}

/// What a decision's signature is over: the challenge.
///
/// `request` is the leaf hash of the `requested` step. A decision without a comment and one with an empty comment are
/// the same. No part but the last can have a line feed, so that no two decisions give the same bytes.
#[must_use]
pub fn approval_challenge(
    decision: ApprovalDecision,
    approver: &IdentityName,
    request: &Digest,
    comment: Option<&str>,
) -> Digest {
    let mut hash = Sha256::new();
    hash.update(b"onrecord approval 1\n");
    for part in [decision.as_str(), approver.as_str(), &request.hex()] {
        hash.update(part.as_bytes());
        hash.update(b"\n");
    }
    hash.update(comment.unwrap_or_default().as_bytes());
    Digest(hash.finalize().into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_says_everything_that_is_decided() {
        let (bea, cem) = ("human:bea".parse().unwrap(), "human:cem".parse().unwrap());
        let request = Digest([0xab; 32]);
        let challenge = approval_challenge(ApprovalDecision::Approve, &bea, &request, Some("fine"));
        // Made by another program: printf 'onrecord approval 1\napprove\nhuman:bea\nabab...ab\nfine' | sha256sum
        assert_eq!(challenge.hex(), "f3e24d203223f15c22cc85378bf888b08491535c0b66ca3fb8e07c21803f9623");
        let others = [
            approval_challenge(ApprovalDecision::Deny, &bea, &request, Some("fine")),
            approval_challenge(ApprovalDecision::Approve, &cem, &request, Some("fine")),
            approval_challenge(ApprovalDecision::Approve, &bea, &Digest([0xac; 32]), Some("fine")),
            approval_challenge(ApprovalDecision::Approve, &bea, &request, None),
        ];
        assert!(others.iter().all(|other| *other != challenge));
        let empty = approval_challenge(ApprovalDecision::Approve, &bea, &request, Some(""));
        assert_eq!(empty, others[3]);
    }
}

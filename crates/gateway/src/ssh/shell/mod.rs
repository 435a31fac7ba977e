//! How the user's shell is started so that it marks its lines: see [`wire::ssh::terminal`].
//!
//! Instead of a shell, the host is asked for a command that starts one: that needs nothing on the host but `/bin/sh` and
//! `base64`, and works with any login shell, since it has no character in it that any of them reads in its own way.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Bytes of randomness in a nonce.
const NONCE_BYTES: usize = 16;

/// What tells the marks of one shell from those of others: hexadecimal digits.
#[derive(Debug, Clone)]
pub(super) struct Nonce(String);

impl Nonce {
    /// A new one; none where the system has no randomness.
    pub(super) fn new() -> Option<Self> {
        let mut bytes = [0; NONCE_BYTES];
        getrandom::fill(&mut bytes).ok()?;
        Some(Self(crate::hex(&bytes)))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// The command that starts the user's login shell with the integration.
pub(super) fn command(nonce: &Nonce) -> Vec<u8> {
    let start = include_str!("start.sh")
        .replace("@BASH@\n", include_str!("bash.sh"))
        .replace("@ZSH@\n", include_str!("zsh.sh"))
        .replace("@FISH@\n", include_str!("fish.sh"))
        .replace("@NONCE@", &nonce.0);
    format!(
        "exec /bin/sh -c 'onrecord=$(echo {} | base64 -d 2>/dev/null); [ -n \"$onrecord\" ] || exec \"${{SHELL:-/bin/sh}}\" -l; \
         eval \"$onrecord\"'",
        STANDARD.encode(start)
    )
    .into_bytes()
}

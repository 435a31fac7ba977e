//! The link between a gateway and an outpost: what both ends must agree on, and nothing else.
//!
//! An outpost dials out to the gateway over TLS 1.3; streams are multiplexed over that connection, and the gateway opens
//! one for each session. What the frames are is in [`frame`], how streams share a connection in [`mux`], how a join token
//! is written in [`token`], how the gateway's authority is pinned in [`trust`], and the carrier for networks that let
//! only the web through in [`websocket`].
//!
//! Not for: who may connect (the gateway decides), what may be dialled (the outpost decides).
//!
//! Invariant: everything that comes from the other end is bounded before it is kept, and no byte of a stream is looked at.

pub mod frame;
pub mod mux;
pub mod token;
pub mod trust;
pub mod websocket;

pub use frame::{Frame, FrameError};
pub use mux::{LinkStream, Mux, MuxError, Opener, Side};
pub use token::JoinToken;

use std::time::Duration;

/// The version of the frames. Another one is refused, by either end.
pub const VERSION: u8 = 1;

/// ALPN: a link that carries sessions; needs the outpost's certificate.
pub const ALPN_LINK: &[u8] = b"onrecord-outpost/1";
/// ALPN: an outpost without a certificate asks for its first, with a join token.
pub const ALPN_ENROL: &[u8] = b"onrecord-enrol/1";
/// ALPN: an outpost with a certificate asks for the next.
pub const ALPN_RENEW: &[u8] = b"onrecord-renew/1";
/// ALPN: a WebSocket that carries one of the others as an inner TLS session.
pub const ALPN_WEB: &[u8] = b"http/1.1";

/// The name in the gateway's certificate towards outposts. It is the same for every gateway: what tells gateways apart
/// is the authority, which the outpost has pinned.
pub const GATEWAY_NAME: &str = "gateway.onrecord.internal";
/// Where the identity of an outpost is in its certificate: a URI that is this and its id.
pub const OUTPOST_URI: &str = "spiffe://onrecord/outpost/";

/// Between two pings of an outpost.
pub const PING_EVERY: Duration = Duration::from_secs(10);
/// Without a word from the other end for so long, a link is dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(30);
/// From the first byte of a connection to the end of its handshakes.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Streams of one connection at a time.
pub const STREAMS_MAX: usize = 1024;
/// What a stream may have on its way without being read, bytes: its window, on each end.
pub const WINDOW_BYTES: usize = 256 * 1024;
/// What all streams of a connection may have beyond their windows, where the way is long and wide, bytes.
pub const WINDOW_EXTRA_BYTES: usize = 32 * 1024 * 1024;
/// Connections of one outpost at a time.
pub const CONNECTIONS_MAX: u8 = 4;

/// What the fuzzer runs: any bytes as every thing that is parsed here.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) {
    frame::fuzz(data);
    token::fuzz(data);
    websocket::fuzz(data);
}

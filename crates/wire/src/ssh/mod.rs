//! What runs inside the channels of SSH.
//!
//! SSH itself (key exchange, authentication, channels) is not read here: the gateway ends it on both sides. [`sftp`]
//! follows the subsystem `sftp`, packet by packet.

pub mod sftp;

//! What runs inside the channels of SSH.
//!
//! SSH itself (key exchange, authentication, channels) is not read here: the gateway ends it on both sides. [`sftp`]
//! follows the subsystem `sftp`, packet by packet; [`scp`] looks into an exec channel that plainly runs the old scp;
//! [`terminal`] tells the lines that a shell runs, and [`argv`] the words of a command, where it plainly is one.

pub mod argv;
pub mod scp;
pub mod sftp;
pub mod terminal;

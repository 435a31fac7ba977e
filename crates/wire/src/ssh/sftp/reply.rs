//! Reading one packet of the server, as far as the tap needs it.

use super::packet::{MESSAGE_BYTES_MAX, Packet, kind, shortened};
use super::types::{Status, Violation};
use crate::cursor::Cursor;

/// Longest handle, in bytes. draft-ietf-secsh-filexfer-02, 6.2.
const HANDLE_BYTES_MAX: usize = 256;

/// What a packet answers.
#[derive(Debug)]
pub(super) enum Reply<'b> {
    Attributes,
    Data(&'b [u8]),
    /// Of an extended request, in its own form.
    Extended,
    Handle(&'b [u8]),
    Names {
        count: u32,
        /// The only name, if there is one of at most [`MESSAGE_BYTES_MAX`].
        only: Option<&'b [u8]>,
    },
    Status(Status),
}

/// The version in VERSION.
pub(super) fn version(packet: Packet<'_>) -> Result<u32, Violation> {
    Cursor(packet.body).u32().ok_or(Violation::ServerMalformed { kind: packet.kind })
}

/// The id of the request that is answered, and the answer.
pub(super) fn reply(packet: Packet<'_>) -> Result<(u32, Reply<'_>), Violation> {
    if !matches!(packet.kind, kind::STATUS..=kind::ATTRS | kind::EXTENDED_REPLY) {
        return Err(Violation::ServerUnexpected { kind: packet.kind });
    }
    read(packet).ok_or(Violation::ServerMalformed { kind: packet.kind })
}

fn read(packet: Packet<'_>) -> Option<(u32, Reply<'_>)> {
    let mut fields = Cursor(packet.body);
    let id = fields.u32()?;
    let reply = match packet.kind {
        kind::STATUS => {
            let code = fields.u32()?;
            // Old servers leave the text out, or its language.
            let message = if fields.is_empty() { &[] } else { fields.counted()? };
            if !fields.is_empty() {
                fields.counted()?;
            }
            let message = String::from_utf8_lossy(message);
            Reply::Status(Status { code, message: shortened(&message).to_owned() })
        }
        kind::HANDLE => Reply::Handle(fields.counted().filter(|handle| handle.len() <= HANDLE_BYTES_MAX)?),
        kind::DATA => Reply::Data(fields.counted()?),
        kind::NAME => {
            // Each has at least two lengths and its attributes' flags.
            let count = fields.u32()?;
            let least = usize::try_from(count).ok()?.checked_mul(12)?;
            if least > fields.0.len() {
                return None;
            }
            let only = if count == 1 { Some(fields.counted()?) } else { None };
            let only = only.filter(|name| name.len() <= MESSAGE_BYTES_MAX);
            return Some((id, Reply::Names { count, only }));
        }
        // Their fields are the client's business.
        kind::ATTRS => return Some((id, Reply::Attributes)),
        _ => return Some((id, Reply::Extended)),
    };
    fields.is_empty().then_some((id, reply))
}

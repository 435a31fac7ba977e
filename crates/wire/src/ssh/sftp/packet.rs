//! Framing, the numbers of the protocol, and the two packets that the gateway says itself.

/// Longest packet without its length, in bytes: OpenSSH's own bound, in both directions.
pub const PACKET_BYTES_MAX: usize = 256 * 1024;

/// Longest text of a status that is kept, and longest that the gateway says, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 4096;

/// Type bytes. draft-ietf-secsh-filexfer-02, 3 and 8.
pub(super) mod kind {
    pub(crate) const INIT: u8 = 1;
    pub(crate) const VERSION: u8 = 2;
    pub(crate) const OPEN: u8 = 3;
    pub(crate) const CLOSE: u8 = 4;
    pub(crate) const READ: u8 = 5;
    pub(crate) const WRITE: u8 = 6;
    pub(crate) const LSTAT: u8 = 7;
    pub(crate) const FSTAT: u8 = 8;
    pub(crate) const SETSTAT: u8 = 9;
    pub(crate) const FSETSTAT: u8 = 10;
    pub(crate) const OPENDIR: u8 = 11;
    pub(crate) const READDIR: u8 = 12;
    pub(crate) const REMOVE: u8 = 13;
    pub(crate) const MKDIR: u8 = 14;
    pub(crate) const RMDIR: u8 = 15;
    pub(crate) const REALPATH: u8 = 16;
    pub(crate) const STAT: u8 = 17;
    pub(crate) const RENAME: u8 = 18;
    pub(crate) const READLINK: u8 = 19;
    pub(crate) const SYMLINK: u8 = 20;
    pub(crate) const STATUS: u8 = 101;
    pub(crate) const HANDLE: u8 = 102;
    pub(crate) const DATA: u8 = 103;
    pub(crate) const NAME: u8 = 104;
    pub(crate) const ATTRS: u8 = 105;
    pub(crate) const EXTENDED: u8 = 200;
    pub(crate) const EXTENDED_REPLY: u8 = 201;
}

/// SSH_FX_*: the codes that the tap tells apart or says.
pub(super) mod code {
    pub(crate) const OK: u32 = 0;
    pub(crate) const EOF: u32 = 1;
    pub(crate) const PERMISSION_DENIED: u32 = 3;
    pub(crate) const FAILURE: u32 = 4;
}

/// The version that is understood.
pub(super) const VERSION: u32 = 3;

/// INIT of that version, without extensions.
pub(super) const INIT: &[u8] = &[0, 0, 0, 5, kind::INIT, 0, 0, 0, 3];

/// One whole packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'b> {
    /// With its length: what is forwarded.
    pub(super) frame: &'b [u8],
    pub(super) kind: u8,
    /// After the type.
    pub(super) body: &'b [u8],
}

/// Cuts one packet off the front; `None` while it is not whole, its declared length if that is none.
pub(super) fn cut(bytes: &[u8]) -> Result<Option<Packet<'_>>, u32> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*prefix);
    let count = usize::try_from(length).unwrap_or(usize::MAX);
    if count == 0 || count > PACKET_BYTES_MAX {
        return Err(length);
    }
    let packet = bytes.get(..prefix.len() + count).zip(rest.get(..count).and_then(<[u8]>::split_first));
    Ok(packet.map(|(frame, (kind, body))| Packet { frame, kind: *kind, body }))
}

/// STATUS, in answer to the request `id`. Too long a text is cut between characters.
pub(super) fn status(id: u32, code: u32, text: &str) -> Vec<u8> {
    let mut body = vec![kind::STATUS];
    body.extend_from_slice(&id.to_be_bytes());
    body.extend_from_slice(&code.to_be_bytes());
    for string in [shortened(text), "en"] {
        counted(&mut body, string.as_bytes());
    }
    let mut frame = Vec::with_capacity(4 + body.len());
    counted(&mut frame, &body);
    frame
}

/// At most [`MESSAGE_BYTES_MAX`] of a text.
pub(super) fn shortened(text: &str) -> &str {
    let mut end = text.len().min(MESSAGE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

fn counted(out: &mut Vec<u8>, bytes: &[u8]) {
    // What is written here is far below 4 GiB.
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

//! What goes into the tap and what comes out of it.

use std::borrow::Cow;

/// Bounds of one session of the subsystem. A packet has its own: [`super::PACKET_BYTES_MAX`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many requests may wait for their answer, those that the caller holds included. Beyond it the client is not
    /// read.
    pub requests_max: usize,
    /// How many files and directories may be open. Beyond it the tap refuses to open another.
    pub handles_max: usize,
    /// Longest path, and longest name of an extended request, in bytes. A longer one ends the session.
    pub path_bytes_max: usize,
    /// How much content that came out of order may wait, in bytes over all open files, each piece with what it takes to keep
    /// it. Beyond it a file has no digest.
    pub reorder_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { requests_max: 1024, handles_max: 1024, path_bytes_max: 4096, reorder_bytes_max: 4 << 20 }
    }
}

/// What to do with operations that only look ([`Class::Look`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looks {
    /// Pass them and count them ([`super::Tap::looked`]).
    Count,
    /// Hold them like any other.
    Hold,
}

/// An operation of this session; dense, in the order of the client's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationKey(pub u64);

/// What an operation can do at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Names and attributes of what is asked for by name.
    Look,
    /// Content of a file, or the names in a directory.
    Read,
    /// Anything else. What is not known is this.
    Change,
}

/// Which operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `copy-data`: from one open file into another, inside the server.
    CopyData,
    /// `expand-path@openssh.com`.
    ExpandPath,
    /// An extended request that is not known here.
    Extended,
    /// Attributes of an open file are set; a size truncates.
    FSetStat,
    /// Attributes of an open file.
    FStat,
    /// `fstatvfs@openssh.com`.
    FStatVfs,
    /// `fsync@openssh.com`.
    FSync,
    /// `hardlink@openssh.com`.
    HardLink,
    /// `home-directory`.
    HomeDirectory,
    /// Attributes are set, of a link itself (`lsetstat@openssh.com`).
    LSetStat,
    /// Attributes, of a link itself.
    LStat,
    /// `limits@openssh.com`.
    Limits,
    /// A directory, from OPENDIR to CLOSE.
    List,
    /// MKDIR.
    MkDir,
    /// A file, from OPEN to CLOSE.
    Open,
    /// `posix-rename@openssh.com`, which replaces what has the new name.
    PosixRename,
    /// READLINK.
    ReadLink,
    /// REALPATH.
    RealPath,
    /// REMOVE.
    Remove,
    /// RENAME.
    Rename,
    /// RMDIR.
    RmDir,
    /// Attributes are set; a size truncates.
    SetStat,
    /// Attributes.
    Stat,
    /// `statvfs@openssh.com`.
    StatVfs,
    /// A request on a handle that is not open, or not for this. Always refused by the tap.
    Stray,
    /// SYMLINK.
    SymLink,
    /// `users-groups-by-id@openssh.com`.
    UsersGroups,
}

impl Kind {
    /// Its name in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CopyData => "copy-data",
            Self::ExpandPath => "expand-path",
            Self::Extended => "extended",
            Self::FSetStat => "fsetstat",
            Self::FStat => "fstat",
            Self::FStatVfs => "fstatvfs",
            Self::FSync => "fsync",
            Self::HardLink => "hardlink",
            Self::HomeDirectory => "home-directory",
            Self::LSetStat => "lsetstat",
            Self::LStat => "lstat",
            Self::Limits => "limits",
            Self::List => "list",
            Self::MkDir => "mkdir",
            Self::Open => "open",
            Self::PosixRename => "posix-rename",
            Self::ReadLink => "readlink",
            Self::RealPath => "realpath",
            Self::Remove => "remove",
            Self::Rename => "rename",
            Self::RmDir => "rmdir",
            Self::SetStat => "setstat",
            Self::Stat => "stat",
            Self::StatVfs => "statvfs",
            Self::Stray => "stray",
            Self::SymLink => "symlink",
            Self::UsersGroups => "users-groups",
        }
    }

    /// What it can do; an `open` by its flags ([`Operation::class`]).
    pub(super) fn class(self, flags: OpenFlags) -> Class {
        match self {
            Self::ExpandPath
            | Self::FStat
            | Self::FStatVfs
            | Self::HomeDirectory
            | Self::LStat
            | Self::Limits
            | Self::ReadLink
            | Self::RealPath
            | Self::Stat
            | Self::StatVfs
            | Self::UsersGroups => Class::Look,
            Self::List => Class::Read,
            Self::Open if flags.only_reads() => Class::Read,
            Self::CopyData
            | Self::Extended
            | Self::FSetStat
            | Self::FSync
            | Self::HardLink
            | Self::LSetStat
            | Self::MkDir
            | Self::Open
            | Self::PosixRename
            | Self::Remove
            | Self::Rename
            | Self::RmDir
            | Self::SetStat
            | Self::Stray
            | Self::SymLink => Class::Change,
        }
    }
}

/// The flags of OPEN, as they are on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenFlags(pub u32);

impl OpenFlags {
    /// Names of the flags that are set, in the order of their bits; `unknown` for any that the protocol does not have.
    pub fn names(self) -> Vec<&'static str> {
        const NAMES: [&str; 6] = ["read", "write", "append", "create", "truncate", "exclusive"];
        let known = NAMES.iter().enumerate().filter(|(bit, _)| self.0 & (1 << bit) != 0).map(|(_, name)| *name);
        known.chain((self.0 >> NAMES.len() != 0).then_some("unknown")).collect()
    }

    /// What is opened so may be read from: not where the operation says that it only changes.
    pub fn reads(self) -> bool {
        self.0 & 1 != 0 || self.only_reads()
    }

    /// What is opened so may be written to.
    pub fn writes(self) -> bool {
        self.0 & 6 != 0
    }

    /// Nothing but reading; no flag at all is taken for reading by servers.
    pub fn only_reads(self) -> bool {
        self.0 & !1 == 0
    }

    /// Servers add what is written to the end, whatever offset it comes with.
    pub fn appends(self) -> bool {
        self.0 & 4 != 0
    }
}

/// Attributes of a file, as the client sets them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Size in bytes.
    pub size: Option<u64>,
    /// User and group, by number.
    pub owner: Option<(u32, u32)>,
    /// Type and permissions, as in `st_mode`.
    pub permissions: Option<u32>,
    /// Access and modification time, in seconds since 1970.
    pub times: Option<(u32, u32)>,
    /// How many extended attributes.
    pub extended: u32,
}

/// `copy-data`: which part of which open file goes where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyRange {
    /// The `open` that is read.
    pub from: OperationKey,
    /// Where in it.
    pub from_offset: u64,
    /// Bytes; 0 is all that there is.
    pub length: u64,
    /// The `open` that is written.
    pub to: OperationKey,
    /// Where in it.
    pub to_offset: u64,
}

/// One operation, before it runs. Paths and names are bytes: nothing says that they are UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its key.
    pub key: OperationKey,
    /// Which.
    pub kind: Kind,
    /// What it can do at most.
    pub class: Class,
    /// What it works on, as the client wrote it: a relative one begins where the server says (`realpath` of `.`). For an
    /// operation on a handle, the path that it was opened by.
    pub path: Option<Vec<u8>>,
    /// The second path: the new name, what `copy-data` writes, for `symlink` what the link says. OpenSSH's order is
    /// assumed for `symlink` (what it says, then where it is); the draft has the other.
    pub target: Option<Vec<u8>>,
    /// The name of an extended request that is not known here; the user of `home-directory`.
    pub name: Option<Vec<u8>>,
    /// What an extended request that is not known here carries, in its own form; a packet bounds it.
    pub data: Option<Vec<u8>>,
    /// Of `open`.
    pub flags: Option<OpenFlags>,
    /// What it sets.
    pub attributes: Attributes,
    /// The `open` or `list` whose handle it works on.
    pub on: Option<OperationKey>,
    /// Of `copy-data`.
    pub copy: Option<CopyRange>,
}

impl Operation {
    pub(super) fn new(key: OperationKey, kind: Kind, flags: Option<OpenFlags>) -> Self {
        Self {
            key,
            kind,
            class: kind.class(flags.unwrap_or_default()),
            path: None,
            target: None,
            name: None,
            data: None,
            flags,
            attributes: Attributes::default(),
            on: None,
            copy: None,
        }
    }
}

/// A request that waits in the caller's hands: it goes to [`super::Tap::forward`] or to [`super::Tap::deny`].
#[derive(Debug)]
#[must_use]
pub struct Held<'b> {
    pub(super) id: u32,
    pub(super) key: OperationKey,
    pub(super) frame: Cow<'b, [u8]>,
}

impl Held<'_> {
    /// The operation that it asks for.
    pub fn key(&self) -> OperationKey {
        self.key
    }

    /// The packet, with its length.
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// How many of the client's bytes it is.
    pub fn consumed(&self) -> usize {
        self.frame.len()
    }

    /// The same, for as long as it takes.
    pub fn into_owned(self) -> Held<'static> {
        Held { id: self.id, key: self.key, frame: Cow::Owned(self.frame.into_owned()) }
    }
}

/// What the client's next bytes are. Whatever goes to the server goes in the order of the steps: a handle may be
/// another file's once its CLOSE has gone.
#[derive(Debug)]
#[must_use]
pub enum ClientStep<'b> {
    /// Not a whole packet yet. Nothing was consumed.
    NeedMore,
    /// Stop reading the client until [`super::Tap::server`] or [`super::Tap::deny`] has moved. Nothing was consumed.
    Wait,
    /// The client has said which version it speaks at most. The server is told the one that is understood, and no
    /// extension: what a newer one makes of them is not known here.
    Greet {
        /// How many of the client's bytes it is.
        consumed: usize,
        /// INIT: goes to the server.
        bytes: &'static [u8],
    },
    /// A whole packet that needs no decision: these bytes, all consumed, go to the server.
    Pass(&'b [u8]),
    /// An operation: it is forwarded once its intent is on record, or denied. A caller bounds what it holds by not asking
    /// for further steps; each is at most [`super::PACKET_BYTES_MAX`] long.
    Operation(Held<'b>, Box<Operation>),
    /// An operation that the tap refuses: recorded as denied, never forwarded.
    Refuse {
        /// How many of the client's bytes it is.
        consumed: usize,
        /// What it would have been.
        operation: Box<Operation>,
        /// Why.
        refusal: Refusal,
        /// The answer: goes to the client.
        reply: Vec<u8>,
    },
}

/// Why the tap refuses an operation by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The handle was opened for something else.
    NotFor,
    /// The handle is not open, or was closed before.
    NotOpen,
    /// As many files and directories are open as may be.
    TooManyOpen,
    /// The client asks for another version of the protocol (`version-select`): what the two say behind it would be read
    /// here as what it is not.
    Version,
}

impl Refusal {
    /// What the client may read.
    pub fn message(self) -> &'static str {
        match self {
            Self::NotFor => "OnRecord refuses this request: its handle was not opened for this",
            Self::NotOpen => "OnRecord refuses this request: its handle is not open",
            Self::TooManyOpen => "OnRecord refuses to open another file: close some first",
            Self::Version => "OnRecord refuses this request: it carries version 3 of SFTP only",
        }
    }
}

/// One packet of the server: its bytes go to the client, verbatim.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct ServerStep {
    /// How many bytes; 0 while the packet is not whole.
    pub pass: usize,
    /// The operation that it ends.
    pub event: Option<Event>,
}

/// An operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which.
    pub key: OperationKey,
    /// How.
    pub outcome: Box<Outcome>,
}

/// A status of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// SSH_FX_*.
    pub code: u32,
    /// The server's text, at most [`super::MESSAGE_BYTES_MAX`] of it.
    pub message: String,
}

impl Status {
    /// The name of a code that version 3 of the protocol has.
    pub fn name(&self) -> Option<&'static str> {
        const NAMES: [&str; 9] = [
            "SSH_FX_OK",
            "SSH_FX_EOF",
            "SSH_FX_NO_SUCH_FILE",
            "SSH_FX_PERMISSION_DENIED",
            "SSH_FX_FAILURE",
            "SSH_FX_BAD_MESSAGE",
            "SSH_FX_NO_CONNECTION",
            "SSH_FX_CONNECTION_LOST",
            "SSH_FX_OP_UNSUPPORTED",
        ];
        NAMES.get(usize::try_from(self.code).ok()?).copied()
    }
}

/// How far an operation came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The server answered, with this status; for `open` and `list` it is that of CLOSE, or of an OPEN that failed.
    Answered(Status),
    /// It was open, and the channel ended before CLOSE was answered.
    NotClosed,
    /// It was sent, and the channel ended before the answer.
    Unanswered,
    /// The caller still held it: the server never saw it.
    NotSent,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How far it came.
    pub end: End,
    /// Of `open`: what the client read.
    pub read: Transferred,
    /// Of `open`: what the server confirmed to have written.
    pub written: Transferred,
    /// Of `open`: the server said that the file ends where the reading ended.
    pub read_to_end: bool,
    /// Of `list`: how many entries were returned.
    pub entries: u64,
    /// Of `open` and `list`: the first read or write that failed (the end of a file is no failure).
    pub failed: Option<Status>,
    /// The path with which the server answered `realpath`, `readlink`, `expand-path`, `home-directory`; none above
    /// [`super::MESSAGE_BYTES_MAX`].
    pub answer: Option<Vec<u8>>,
}

impl Outcome {
    pub(super) fn of(end: End) -> Box<Self> {
        Box::new(Self {
            end,
            read: Transferred::default(),
            written: Transferred::default(),
            read_to_end: false,
            entries: 0,
            failed: None,
            answer: None,
        })
    }
}

/// Content that went over the wire in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transferred {
    /// Bytes, each time that they were sent.
    pub bytes: u64,
    /// Of content that is one piece: each byte once, from the first offset on. `None` too for what was refused in part,
    /// what is written by `copy-data`, and when nothing was asked for.
    pub digest: Option<ContentDigest>,
}

/// The digest of one piece of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentDigest {
    /// Where in the file it begins, as the client says: servers put what a file is opened to append to at its end.
    pub offset: u64,
    /// SHA-256 of it.
    pub sha256: [u8; 32],
}

/// Operations that only looked and were passed ([`Looks::Count`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// How many were sent.
    pub sent: u64,
    /// How many the server answered with what was asked for.
    pub answered: u64,
    /// How many the server answered with a status.
    pub failed: u64,
}

/// The session cannot go on. Never has a path, a name or content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The client's packet has a length that none may have.
    #[error("the client's packet declared {length} bytes; SFTP has 1 to 262144")]
    ClientLength {
        /// Declared length.
        length: u32,
    },
    /// The client's packet does not have exactly the fields of its type.
    #[error("the client's packet of type {kind} is malformed")]
    ClientMalformed {
        /// Type byte.
        kind: u8,
    },
    /// The client's packet has no place here: before INIT, INIT again, or a type that no request has.
    #[error("the client's packet of type {kind} has no place here")]
    ClientUnexpected {
        /// Type byte.
        kind: u8,
    },
    /// The client speaks an older version.
    #[error("the client speaks version {version} of SFTP; version 3 is needed")]
    ClientVersion {
        /// Which.
        version: u32,
    },
    /// The client used a request id that still waits for its answer.
    #[error("the client used the id of a request that was not answered yet")]
    IdInUse,
    /// A path or name has a NUL, where servers would stop reading it.
    #[error("a path or name in the client's packet of type {kind} has a NUL")]
    NulInName {
        /// Type byte.
        kind: u8,
    },
    /// A path or name is too long.
    #[error("a path or name of {bytes} bytes is above the limit of {bytes_max}")]
    NameTooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The server gave a handle that is open already.
    #[error("the server gave the same handle twice")]
    ServerHandle,
    /// The server's packet has a length that none may have.
    #[error("the server's packet declared {length} bytes; SFTP has 1 to 262144")]
    ServerLength {
        /// Declared length.
        length: u32,
    },
    /// The server's packet does not have exactly the fields of its type.
    #[error("the server's packet of type {kind} is malformed")]
    ServerMalformed {
        /// Type byte.
        kind: u8,
    },
    /// The server's packet answers nothing that was sent to it, or not with what that is answered with.
    #[error("the server's packet of type {kind} answers nothing that was asked")]
    ServerUnexpected {
        /// Type byte.
        kind: u8,
    },
    /// The server chose another version.
    #[error("the server speaks version {version} of SFTP; only version 3 is understood")]
    ServerVersion {
        /// Which.
        version: u32,
    },
}

impl Violation {
    /// Whether it is the server's; all others are the client's.
    pub fn by_server(&self) -> bool {
        match self {
            Self::ServerHandle
            | Self::ServerLength { .. }
            | Self::ServerMalformed { .. }
            | Self::ServerUnexpected { .. }
            | Self::ServerVersion { .. } => true,
            Self::ClientLength { .. }
            | Self::ClientMalformed { .. }
            | Self::ClientUnexpected { .. }
            | Self::ClientVersion { .. }
            | Self::IdInUse
            | Self::NameTooLong { .. }
            | Self::NulInName { .. } => false,
        }
    }

    /// What the client may read, before its channel is closed.
    pub fn for_client(&self) -> String {
        format!("OnRecord ends this SFTP session: {self}")
    }
}

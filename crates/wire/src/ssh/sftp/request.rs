//! Reading one packet of the client.
//!
//! Strict: a packet has exactly the fields of its type, or it is none. OpenSSH's server ignores what stands behind them,
//! others may not; what could be read in two ways is not forwarded.

use super::packet::{Packet, kind};
use super::types::{Attributes, Kind, OpenFlags, Violation};
use crate::cursor::Cursor;

/// What a packet asks for.
#[derive(Debug)]
pub(super) enum Ask<'b> {
    Close {
        handle: &'b [u8],
    },
    CopyData {
        from: &'b [u8],
        from_offset: u64,
        length: u64,
        to: &'b [u8],
        to_offset: u64,
    },
    Extended {
        name: &'b [u8],
        data: &'b [u8],
    },
    /// Something with an open file; each has one handle.
    Handle {
        kind: Kind,
        handle: &'b [u8],
        attributes: Attributes,
    },
    /// Something that is about no file.
    Plain {
        kind: Kind,
        name: Option<&'b [u8]>,
    },
    Open {
        path: &'b [u8],
        flags: OpenFlags,
        attributes: Attributes,
    },
    OpenDir {
        path: &'b [u8],
    },
    /// Something with one name.
    Path {
        kind: Kind,
        path: &'b [u8],
        attributes: Attributes,
    },
    /// Something with two names.
    Paths {
        kind: Kind,
        path: &'b [u8],
        target: &'b [u8],
    },
    Read {
        handle: &'b [u8],
        offset: u64,
        length: u32,
    },
    ReadDir {
        handle: &'b [u8],
    },
    /// Another version of the protocol.
    VersionSelect {
        name: &'b [u8],
    },
    Write {
        handle: &'b [u8],
        offset: u64,
        data: &'b [u8],
    },
}

/// The version in INIT.
pub(super) fn init(packet: Packet<'_>) -> Result<u32, Violation> {
    let mut fields = Cursor(packet.body);
    let mut read = || {
        let version = fields.u32()?;
        // Extensions, each a name and data.
        while !fields.is_empty() {
            fields.counted()?;
            fields.counted()?;
        }
        Some(version)
    };
    read().ok_or(Violation::ClientMalformed { kind: packet.kind })
}

/// A request: its id and what it asks for.
pub(super) fn request(packet: Packet<'_>, path_bytes_max: usize) -> Result<(u32, Ask<'_>), Violation> {
    if !matches!(packet.kind, kind::OPEN..=kind::SYMLINK | kind::EXTENDED) {
        return Err(Violation::ClientUnexpected { kind: packet.kind });
    }
    let mut fields = Fields { cursor: Cursor(packet.body), names: Vec::new() };
    let asked = fields.id().zip(fields.ask(packet.kind)).filter(|_| fields.cursor.is_empty());
    let Some((id, ask)) = asked else {
        return Err(Violation::ClientMalformed { kind: packet.kind });
    };
    for name in fields.names {
        if name.contains(&0) {
            return Err(Violation::NulInName { kind: packet.kind });
        }
        if name.len() > path_bytes_max {
            return Err(Violation::NameTooLong { bytes: name.len(), bytes_max: path_bytes_max });
        }
    }
    Ok((id, ask))
}

struct Fields<'b> {
    cursor: Cursor<'b>,
    /// The paths and names that were read, to be looked at once the packet is known to be whole.
    names: Vec<&'b [u8]>,
}

impl<'b> Fields<'b> {
    fn id(&mut self) -> Option<u32> {
        self.cursor.u32()
    }

    fn ask(&mut self, packet: u8) -> Option<Ask<'b>> {
        Some(match packet {
            kind::OPEN => {
                let path = self.name()?;
                let flags = OpenFlags(self.cursor.u32()?);
                Ask::Open { path, flags, attributes: self.attributes()? }
            }
            kind::CLOSE => Ask::Close { handle: self.cursor.counted()? },
            kind::READ => {
                let handle = self.cursor.counted()?;
                Ask::Read { handle, offset: self.cursor.u64()?, length: self.cursor.u32()? }
            }
            kind::WRITE => {
                let handle = self.cursor.counted()?;
                Ask::Write { handle, offset: self.cursor.u64()?, data: self.cursor.counted()? }
            }
            kind::LSTAT => self.path(Kind::LStat)?,
            kind::FSTAT => self.handle(Kind::FStat)?,
            kind::SETSTAT => self.path_and_attributes(Kind::SetStat)?,
            kind::FSETSTAT => {
                let handle = self.cursor.counted()?;
                Ask::Handle { kind: Kind::FSetStat, handle, attributes: self.attributes()? }
            }
            kind::OPENDIR => Ask::OpenDir { path: self.name()? },
            kind::READDIR => Ask::ReadDir { handle: self.cursor.counted()? },
            kind::REMOVE => self.path(Kind::Remove)?,
            kind::MKDIR => self.path_and_attributes(Kind::MkDir)?,
            kind::RMDIR => self.path(Kind::RmDir)?,
            kind::REALPATH => self.path(Kind::RealPath)?,
            kind::STAT => self.path(Kind::Stat)?,
            kind::RENAME => self.paths(Kind::Rename)?,
            kind::READLINK => self.path(Kind::ReadLink)?,
            kind::SYMLINK => {
                let target = self.name()?;
                Ask::Paths { kind: Kind::SymLink, path: self.name()?, target }
            }
            kind::EXTENDED => self.extended()?,
            _ => return None,
        })
    }

    fn extended(&mut self) -> Option<Ask<'b>> {
        let name = self.name()?;
        Some(match name {
            b"posix-rename@openssh.com" => self.paths(Kind::PosixRename)?,
            b"hardlink@openssh.com" => self.paths(Kind::HardLink)?,
            b"statvfs@openssh.com" => self.path(Kind::StatVfs)?,
            b"fstatvfs@openssh.com" => self.handle(Kind::FStatVfs)?,
            b"fsync@openssh.com" => self.handle(Kind::FSync)?,
            b"lsetstat@openssh.com" => self.path_and_attributes(Kind::LSetStat)?,
            b"expand-path@openssh.com" => self.path(Kind::ExpandPath)?,
            b"limits@openssh.com" => Ask::Plain { kind: Kind::Limits, name: None },
            b"home-directory" => Ask::Plain { kind: Kind::HomeDirectory, name: Some(self.name()?) },
            b"users-groups-by-id@openssh.com" => {
                self.cursor.counted()?;
                self.cursor.counted()?;
                Ask::Plain { kind: Kind::UsersGroups, name: None }
            }
            b"copy-data" => {
                let from = self.cursor.counted()?;
                let (from_offset, length) = (self.cursor.u64()?, self.cursor.u64()?);
                Ask::CopyData { from, from_offset, length, to: self.cursor.counted()?, to_offset: self.cursor.u64()? }
            }
            // draft-ietf-secsh-filexfer-13, 5.5.
            b"version-select" => {
                self.cursor.counted()?;
                Ask::VersionSelect { name }
            }
            _ => {
                // Its data are whatever they are.
                let data = std::mem::replace(&mut self.cursor, Cursor(&[])).0;
                Ask::Extended { name, data }
            }
        })
    }

    fn name(&mut self) -> Option<&'b [u8]> {
        let name = self.cursor.counted()?;
        self.names.push(name);
        Some(name)
    }

    fn path(&mut self, kind: Kind) -> Option<Ask<'b>> {
        Some(Ask::Path { kind, path: self.name()?, attributes: Attributes::default() })
    }

    fn path_and_attributes(&mut self, kind: Kind) -> Option<Ask<'b>> {
        Some(Ask::Path { kind, path: self.name()?, attributes: self.attributes()? })
    }

    fn paths(&mut self, kind: Kind) -> Option<Ask<'b>> {
        Some(Ask::Paths { kind, path: self.name()?, target: self.name()? })
    }

    fn handle(&mut self, kind: Kind) -> Option<Ask<'b>> {
        Some(Ask::Handle { kind, handle: self.cursor.counted()?, attributes: Attributes::default() })
    }

    /// ATTRS of version 3. A flag that it does not have would stand for fields of unknown length.
    fn attributes(&mut self) -> Option<Attributes> {
        const SIZE: u32 = 1;
        const OWNER: u32 = 2;
        const PERMISSIONS: u32 = 4;
        const TIMES: u32 = 8;
        const EXTENDED: u32 = 1 << 31;
        let flags = self.cursor.u32()?;
        if flags & !(SIZE | OWNER | PERMISSIONS | TIMES | EXTENDED) != 0 {
            return None;
        }
        let mut attributes = Attributes::default();
        if flags & SIZE != 0 {
            attributes.size = Some(self.cursor.u64()?);
        }
        if flags & OWNER != 0 {
            attributes.owner = Some((self.cursor.u32()?, self.cursor.u32()?));
        }
        if flags & PERMISSIONS != 0 {
            attributes.permissions = Some(self.cursor.u32()?);
        }
        if flags & TIMES != 0 {
            attributes.times = Some((self.cursor.u32()?, self.cursor.u32()?));
        }
        if flags & EXTENDED != 0 {
            attributes.extended = self.cursor.u32()?;
            for _ in 0..attributes.extended {
                self.cursor.counted()?;
                self.cursor.counted()?;
            }
        }
        Some(attributes)
    }
}

//! Recognising the command that a client of scp runs on the host.

use super::super::argv::words;

/// What the host is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `-t`: the client sends files.
    Sink,
    /// `-f`: the host sends files.
    Source,
}

/// A command that plainly is scp on the host's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scp {
    /// What the host is to do.
    pub role: Role,
    /// The path, as the host's shell gives it to scp. Of a sink: where a file goes by this name, or into this directory
    /// by its own; which of the two only the host knows, unless `directory` is set.
    pub path: Vec<u8>,
    /// `-r`: directories too.
    pub recursive: bool,
    /// `-p`: times and modes are kept.
    pub preserve: bool,
    /// `-d`: the path must be a directory.
    pub directory: bool,
}

impl Scp {
    /// Reads an exec'd command. `None` for all that a shell could take for more, or for something else, than one scp with
    /// one path: what expands, what redirects, a second command. A leading `~` is the only exception.
    pub fn of_command(command: &[u8]) -> Option<Self> {
        let mut words = words(command)?.into_iter().map(|word| word.bytes);
        let program = words.next()?;
        if program != b"scp" && program != b"/usr/bin/scp" {
            return None;
        }
        let mut role = None;
        let (mut recursive, mut preserve, mut directory) = (false, false, false);
        let path = loop {
            let word = words.next()?;
            match word.split_first() {
                Some((b'-', b"-")) => break words.next()?,
                Some((b'-', letters)) if !letters.is_empty() => {
                    for letter in letters {
                        match letter {
                            b't' if role.is_none() => role = Some(Role::Sink),
                            b'f' if role.is_none() => role = Some(Role::Source),
                            b'r' => recursive = true,
                            b'p' => preserve = true,
                            b'd' => directory = true,
                            b'v' | b'q' => {}
                            _ => return None,
                        }
                    }
                }
                _ => break word,
            }
        };
        let whole = words.next().is_none() && !path.is_empty();
        Some(Self { role: role.filter(|_| whole)?, path, recursive, preserve, directory })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(command: &str) -> Option<(Role, String)> {
        let scp = Scp::of_command(command.as_bytes())?;
        Some((scp.role, String::from_utf8(scp.path).unwrap()))
    }

    #[test]
    fn what_clients_send() {
        for (command, role, path) in [
            // OpenSSH
            ("scp -t /tmp/x", Role::Sink, "/tmp/x"),
            ("scp -v -r -p -d -t -- -odd", Role::Sink, "-odd"),
            ("scp -f notes.txt", Role::Source, "notes.txt"),
            ("scp -f ~/notes.txt", Role::Source, "~/notes.txt"),
            // libssh2, net-scp, WinSCP
            ("scp -pt '/tmp/it'\"'\"'s'", Role::Sink, "/tmp/it's"),
            ("scp -t -p /tmp/a\\ b", Role::Sink, "/tmp/a b"),
            ("scp -r -d -t -- \"/srv/data\"", Role::Sink, "/srv/data"),
            ("/usr/bin/scp  -qrt .", Role::Sink, "."),
            ("scp -t '$HOME; rm -r *'", Role::Sink, "$HOME; rm -r *"),
            ("scp -t /tmp/é", Role::Sink, "/tmp/é"),
        ] {
            assert_eq!(of(command), Some((role, path.to_owned())), "{command}");
        }
        let scp = Scp::of_command(b"scp -rpd -t x").unwrap();
        assert!(scp.recursive && scp.preserve && scp.directory);
        let scp = Scp::of_command(b"scp -t x").unwrap();
        assert!(!scp.recursive && !scp.preserve && !scp.directory);
    }

    #[test]
    fn what_may_be_more() {
        for command in [
            "",
            "scp",
            "scp -t",
            "scp -t --",
            "scp x",
            "scp -t ''",
            "scp -t -f x",
            "scp -tt x",
            "scp -f a b",
            "scp -t x -r",
            "scp -S sh -t x",
            "scp -oProxyCommand=x -t x",
            "scp - -t x",
            "./scp -t x",
            "sudo scp -t x",
            "A=1 scp -t x",
            "scp -t x; id",
            "scp -t x&id",
            "scp -t x|id",
            "scp -t x\nid",
            "scp -t x\tid",
            "scp -t x>y",
            "scp -t $HOME",
            "scp -t `id`",
            "scp -t \"$HOME\"",
            "scp -t \"`id`\"",
            "scp -t \"a\\\"",
            "scp -t 'x",
            "scp -t \"x",
            "scp -t x\\",
            "scp -f *.txt",
            "scp -f x?",
            "scp -f [ab]",
            "scp -f {a,b}",
            "scp -t #x",
            "scp -t (x)",
            "scp -t a~b",
            "scp -t a=~",
            "scp -t !x",
            "scp -t 'a\0b'",
            "\\~ -t x",
        ] {
            assert_eq!(of(command), None, "{command}");
        }
    }
}

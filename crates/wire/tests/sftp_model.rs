//! A server in memory that hands out handles as OpenSSH does and answers in any order, and a client that also guesses
//! handles: what the tap says of each file is what the server did with it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

#[path = "support/sftp.rs"]
mod sftp;

use proptest::prelude::*;
use proptest::sample::Index;
use sftp::*;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use wire::ssh::sftp::{Limits, Looks};

/// Bytes of every file that is read.
const SIZE: u64 = 200;

#[derive(Clone, Debug)]
enum Act {
    Open,
    Close(u8),
    Read(u8, u64, u32),
    Write(u8, u64, String),
    /// Goes on where the last write ended, so that pieces come about.
    Append(u8, String),
    /// The server's answer to one of those that wait.
    Answer(Index),
    AnswerAll,
}

fn act() -> impl Strategy<Value = Act> {
    // Handles that the server would give next are guessed, too.
    let handle = || 0..4u8;
    prop_oneof![
        3 => Just(Act::Open),
        2 => handle().prop_map(Act::Close),
        4 => (handle(), 0..6u64, 1..60u32).prop_map(|(handle, at, length)| Act::Read(handle, at * 50, length)),
        1 => (handle(), 0..60u64, "[a-z]{1,20}").prop_map(|(handle, offset, text)| Act::Write(handle, offset, text)),
        5 => (handle(), "[a-z]{0,20}").prop_map(|(handle, text)| Act::Append(handle, text)),
        4 => any::<Index>().prop_map(Act::Answer),
        2 => Just(Act::AnswerAll),
    ]
}

#[derive(Default)]
struct Server {
    /// What is open, by handle: which open it was.
    open: BTreeMap<String, usize>,
    files: Vec<FileModel>,
    replies: Vec<Vec<u8>>,
}

#[derive(Default)]
struct FileModel {
    closed: bool,
    written: Vec<(u64, Vec<u8>)>,
    /// Offset, and what was there.
    read: Vec<(u64, Vec<u8>)>,
}

impl Server {
    fn take(&mut self, packets: &[u8]) {
        let mut rest = packets;
        while let Some(length) = rest.first_chunk::<4>() {
            let (packet, after) = rest.split_at(4 + u32::from_be_bytes(*length) as usize);
            rest = after;
            let reply = self.serve(packet[4], u32::from_be_bytes(packet[5..9].try_into().unwrap()), &packet[9..]);
            self.replies.push(reply);
        }
    }

    fn serve(&mut self, kind: u8, id: u32, fields: &[u8]) -> Vec<u8> {
        let counted = |bytes: &[u8]| {
            let length = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
            (bytes[4..4 + length].to_vec(), bytes[4 + length..].to_vec())
        };
        let (name, rest) = counted(fields);
        if kind == 3 {
            let free = (0u32..).map(|number| number.to_string()).find(|name| !self.open.contains_key(name)).unwrap();
            self.open.insert(free.clone(), self.files.len());
            self.files.push(FileModel::default());
            return handle_reply(id, &free);
        }
        let handle = String::from_utf8(name).unwrap();
        let file = &mut self.files[self.open[&handle]];
        if kind == 4 {
            file.closed = true;
            self.open.remove(&handle);
            return status(id, 0);
        }
        let offset = u64::from_be_bytes(rest[..8].try_into().unwrap());
        if kind == 6 {
            file.written.push((offset, counted(&rest[8..]).0));
            return status(id, 0);
        }
        let length = u64::from(u32::from_be_bytes(rest[8..12].try_into().unwrap()));
        let found: String = (offset..SIZE.min(offset + length)).map(|at| char::from(b'a' + (at % 26) as u8)).collect();
        file.read.push((offset, found.clone().into_bytes()));
        if found.is_empty() { status(id, 1) } else { data(id, &found) }
    }
}

impl FileModel {
    /// What the tap must say.
    fn outcome(&self, key: usize) -> String {
        let end = if self.closed { "SSH_FX_OK" } else { "NotClosed" };
        let (read, end_of_read) = piece("read", &self.read);
        let (written, _) = piece("written", &self.written);
        let empty = self.read.iter().filter(|(_, data)| data.is_empty()).map(|(offset, _)| *offset).min();
        let to_end = end_of_read.zip(empty).is_some_and(|(end, empty)| empty <= end);
        format!("outcome {key} {end}{read}{written}{}", if to_end { " to-end" } else { "" })
    }
}

/// How pieces are shown, and where they end if they are one.
fn piece(what: &str, pieces: &[(u64, Vec<u8>)]) -> (String, Option<u64>) {
    let Some((first, _)) = pieces.first() else {
        return (String::new(), None);
    };
    let mut sorted: Vec<_> = pieces.iter().filter(|(_, data)| !data.is_empty()).collect();
    sorted.sort();
    let bytes: usize = sorted.iter().map(|(_, data)| data.len()).sum();
    let mut next = *first;
    let mut all = Sha256::new();
    let mut end = None;
    let whole = sorted.iter().all(|(offset, data)| {
        let fits = *offset == next;
        end = Some(next).filter(|_| *offset > next);
        next += data.len() as u64;
        all.update(data);
        fits
    });
    let end = if whole { Some(next) } else { end.filter(|_| sorted.iter().all(|(offset, _)| offset >= first)) };
    let digest = if whole { format!("@{first}:{}", hex(&all.finalize())) } else { " no-digest".to_owned() };
    if !whole && bytes == 0 {
        return (String::new(), end);
    }
    (format!(" {what}={bytes}{digest}"), end)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_said_is_what_the_server_did(acts in prop::collection::vec(act(), 1..80), size in 1..40usize) {
        let limits = Limits { requests_max: 1000, handles_max: 1000, ..Limits::default() };
        let mut session = Session::new(limits, Looks::Hold);
        session.client(&init(3)).unwrap();
        session.server(&version(3)).unwrap();
        session.to_server.clear();
        let mut server = Server::default();
        let mut ends: BTreeMap<u8, u64> = BTreeMap::new();
        for (request, act) in acts.into_iter().chain([Act::AnswerAll]).enumerate() {
            let id = request as u32;
            let packet = match act {
                Act::Open => open(id, "/f", 3),
                Act::Close(handle) => {
                    ends.remove(&handle);
                    close(id, &handle.to_string())
                }
                Act::Read(handle, offset, length) => read(id, &handle.to_string(), offset, length),
                Act::Write(handle, offset, text) => write(id, &handle.to_string(), offset, &text),
                Act::Append(handle, text) => {
                    let end = ends.entry(handle).or_default();
                    let packet = write(id, &handle.to_string(), *end, &text);
                    *end += text.len() as u64;
                    packet
                }
                Act::Answer(which) if !server.replies.is_empty() => {
                    let reply = server.replies.remove(which.index(server.replies.len()));
                    reply.chunks(size).for_each(|piece| session.server(piece).unwrap());
                    continue;
                }
                Act::Answer(_) => continue,
                Act::AnswerAll => {
                    server.replies.drain(..).for_each(|reply| session.server(&reply).unwrap());
                    continue;
                }
            };
            packet.chunks(size).for_each(|piece| session.client(piece).unwrap());
            // The server works in order; it panics at a handle that is not open.
            server.take(&std::mem::take(&mut session.to_server));
        }
        session.end();
        let keys = session.log.iter().filter_map(|line| line.strip_prefix("open ")).map(|line| line.split(' ').next().unwrap());
        let mut expected: Vec<_> =
            server.files.iter().zip(keys).map(|(file, key)| file.outcome(key.parse().unwrap())).collect();
        let mut said: Vec<_> = session.log.iter().filter(|line| line.starts_with("outcome ")).cloned().collect();
        expected.sort();
        said.sort();
        prop_assert_eq!(said, expected);
    }
}

//! What the fuzzer runs on the tap of SFTP, and what `cargo test` replays over the committed corpora.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use super::sftp::*;
use wire::ssh::sftp::Looks;

/// What came of one session.
type Said = (Vec<String>, Vec<u8>, Vec<u8>);

/// A client's bytes, in a new session and in one with two open files: at once and one by one. A third of the operations
/// is denied.
pub fn sftp_client(bytes: &[u8]) {
    let fresh = || Session::new(limits(), Looks::Count);
    for begin in [fresh, || Session::with_open(&["g", "h"])] {
        let run = |size: usize| {
            let mut session = begin();
            session.policy = |operation| (operation.key.0 % 3 == 2).then_some("denied");
            for piece in bytes.chunks(size.max(1)) {
                if session.client(piece).is_err() {
                    break;
                }
            }
            said(session)
        };
        assert_eq!(run(bytes.len()), run(1));
    }
}

/// A server's answers to a client that has asked for one of each kind: at once and one by one.
pub fn sftp_server(bytes: &[u8]) {
    let run = |size: usize| {
        let mut session = Session::with_open(&["d", "g", "h"]);
        let asked = [
            open(2, "/a", 3),
            read(3, "h", 0, 64),
            read(4, "h", 64, 64),
            write(5, "h", 0, "abc"),
            readdir(6, "d"),
            stat(7, "/a"),
            remove(8, "/a"),
            id(9).text("/l").packet(19),
            copy_data(10, "g", "h"),
            extended(11, "limits@openssh.com").packet(200),
            extended(12, "unheard-of@example.com").packet(200),
            close(13, "h"),
        ];
        session.client(&asked.concat()).unwrap();
        for piece in bytes.chunks(size.max(1)) {
            if session.server(piece).is_err() {
                break;
            }
        }
        said(session)
    };
    assert_eq!(run(bytes.len()), run(1));
}

fn said(mut session: Session) -> Said {
    session.end();
    (session.log, session.to_server, session.to_client)
}

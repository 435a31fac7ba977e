//! What the tap of SFTP says of each request, and what it does not let through.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "support/sftp.rs"]
mod support;

use support::*;
use wire::ssh::sftp::{Looked, Looks, PACKET_BYTES_MAX, Violation};

const OPENSSH: [(&str, u8); 8] = [
    ("statvfs@openssh.com", 1),
    ("expand-path@openssh.com", 1),
    ("home-directory", 1),
    ("limits@openssh.com", 0),
    ("posix-rename@openssh.com", 2),
    ("hardlink@openssh.com", 2),
    ("users-groups-by-id@openssh.com", 2),
    ("unheard-of@example.com", 2),
];

#[test]
fn a_file_is_one_operation() {
    let mut session = Session::greeted();
    session.client(&open(1, "/srv/a", 0x1a)).unwrap();
    session.server(&handle_reply(1, "h")).unwrap();
    assert_eq!(session.said(), ["open 0 Change /srv/a write+create+truncate"]);
    // Three writes under way at once, out of order.
    for (request, offset, text) in [(2, 0, "abcd"), (3, 8, "ij"), (4, 4, "efgh")] {
        session.client(&write(request, "h", offset, text)).unwrap();
    }
    session.client(&close(5, "h")).unwrap();
    for request in [3, 2, 5, 4] {
        session.server(&status(request, 0)).unwrap();
    }
    // SHA-256 of "abcdefghij".
    assert_eq!(session.said(), ["outcome 0 SSH_FX_OK written=10@0:72399361"]);
    assert!(session.tap.idle());
    assert_eq!(
        session.to_client,
        [handle_reply(1, "h"), status(3, 0), status(2, 0), status(5, 0), status(4, 0)].concat()
    );
}

#[test]
fn reading_says_whether_the_end_was_reached() {
    for (end, said) in [(10, " to-end"), (42, "")] {
        let mut session = Session::with_open(&["h"]);
        session.client(&[read(1, "h", 0, 8), read(2, "h", 8, 8), read(3, "h", end, 8)].concat()).unwrap();
        session.server(&[data(2, "ij"), data(1, "abcdefgh"), status(3, 1)].concat()).unwrap();
        session.client(&close(4, "h")).unwrap();
        session.server(&status(4, 0)).unwrap();
        assert_eq!(session.said(), [format!("outcome 0 SSH_FX_OK read=10@0:72399361{said}")]);
    }
}

#[test]
fn a_part_has_the_digest_of_a_part() {
    let mut session = Session::with_open(&["h"]);
    session.client(&[write(1, "h", 100, "abcdef"), write(2, "h", 106, "ghij"), close(3, "h")].concat()).unwrap();
    session.server(&[status(1, 0), status(2, 0), status(3, 0)].concat()).unwrap();
    assert_eq!(session.said(), ["outcome 0 SSH_FX_OK written=10@100:72399361"]);
}

#[test]
fn what_is_not_one_piece_has_no_digest() {
    for (first, second) in [((0, "abc"), (4, "e")), ((0, "abc"), (2, "c")), ((9, "j"), (0, "abc"))] {
        let mut session = Session::with_open(&["h"]);
        session.client(&write(1, "h", first.0, first.1)).unwrap();
        session.client(&[write(2, "h", second.0, second.1), close(3, "h")].concat()).unwrap();
        session.server(&[status(1, 0), status(2, 0), status(3, 0)].concat()).unwrap();
        let bytes = first.1.len() + second.1.len();
        assert_eq!(session.said(), [format!("outcome 0 SSH_FX_OK written={bytes} no-digest")]);
    }
}

#[test]
fn what_the_server_did_not_write_has_no_digest() {
    let mut session = Session::with_open(&["h"]);
    session.client(&[write(1, "h", 0, "abc"), write(2, "h", 3, "def"), close(3, "h")].concat()).unwrap();
    session.server(&[status(1, 0), status(2, 4), status(3, 0)].concat()).unwrap();
    assert_eq!(session.said(), ["outcome 0 SSH_FX_OK written=3 no-digest failed=SSH_FX_FAILURE"]);
}

#[test]
fn what_is_appended_has_a_digest_if_it_came_in_order() {
    for (writes, said) in [
        ([(7, "abc"), (10, "de")], "written=5@7:36bbe50e"),
        ([(0, "abc"), (0, "de")], "written=5 no-digest"),
        ([(3, "de"), (0, "abc")], "written=5 no-digest"),
        ([(0, "abc"), (9, "de")], "written=5 no-digest"),
    ] {
        let mut session = Session::greeted();
        session.client(&open(1, "log", 6)).unwrap();
        session.server(&handle_reply(1, "h")).unwrap();
        for (offset, text) in writes {
            session.client(&write(2, "h", offset, text)).unwrap();
            session.server(&status(2, 0)).unwrap();
        }
        session.client(&close(3, "h")).unwrap();
        session.server(&status(3, 0)).unwrap();
        assert_eq!(
            session.said(),
            ["open 0 Change log write+append".to_owned(), format!("outcome 0 SSH_FX_OK {said}")]
        );
    }
}

#[test]
fn what_waits_for_its_turn_is_bounded_over_all_files() {
    let mut session = Session::with_open(&["g", "h"]);
    let wide = "w".repeat(40);
    for (request, handle) in [(1, "g"), (2, "h")] {
        session.client(&read(request, handle, 0, 40)).unwrap();
        session.client(&read(request + 10, handle, 40, 40)).unwrap();
    }
    session.server(&[data(11, &wide), data(12, &wide), data(1, &wide), data(2, &wide)].concat()).unwrap();
    session.client(&[close(3, "g"), close(4, "h")].concat()).unwrap();
    session.server(&[status(3, 0), status(4, 0)].concat()).unwrap();
    let said = session.said();
    assert!(said[0].starts_with("outcome 0 SSH_FX_OK read=80@0:"), "{said:?}");
    assert_eq!(said[1], "outcome 1 SSH_FX_OK read=80 no-digest");
}

#[test]
fn a_directory_is_one_operation() {
    let mut session = Session::greeted();
    session.client(&opendir(1, "/srv")).unwrap();
    session.server(&handle_reply(1, "d")).unwrap();
    session.client(&readdir(2, "d")).unwrap();
    session.server(&names(2, &[".", "..", "a"])).unwrap();
    session.client(&readdir(3, "d")).unwrap();
    session.server(&status(3, 1)).unwrap();
    session.client(&close(4, "d")).unwrap();
    session.server(&status(4, 0)).unwrap();
    assert_eq!(session.said(), ["list 0 Read /srv", "outcome 0 SSH_FX_OK entries=3"]);
}

#[test]
fn each_request_has_its_operation() {
    let with_mode = |fields: Fields| fields.u32(4).u32(0o640);
    let requests = [
        (id(1).text("/l").packet(7), attributes(1), "lstat 1 Look /l"),
        (id(1).text("h").packet(8), attributes(1), "fstat 1 Look /h on=0"),
        (with_mode(id(1).text("/s")).packet(9), status(1, 0), "setstat 1 Change /s mode=640"),
        (id(1).text("h").u32(1).u64(0).packet(10), status(1, 0), "fsetstat 1 Change /h size=0 on=0"),
        (remove(1, "/r"), status(1, 0), "remove 1 Change /r"),
        (with_mode(id(1).text("/m")).packet(14), status(1, 0), "mkdir 1 Change /m mode=640"),
        (id(1).text("/d").packet(15), status(1, 0), "rmdir 1 Change /d"),
        (id(1).text(".").packet(16), names(1, &["/home/me"]), "realpath 1 Look ."),
        (stat(1, "/s"), attributes(1), "stat 1 Look /s"),
        (id(1).text("/a").text("/b").packet(18), status(1, 0), "rename 1 Change /a /b"),
        (id(1).text("/l").packet(19), names(1, &["/home/me"]), "readlink 1 Look /l"),
        (id(1).text("what it says").text("/l").packet(20), status(1, 0), "symlink 1 Change /l what it says"),
        (copy_data(1, "h", "h"), status(1, 0), "copy-data 1 Change /h /h on=0 copy 0@0+0 to 0@0"),
        (extended(1, "fstatvfs@openssh.com").text("h").packet(200), id(1).packet(201), "fstatvfs 1 Look /h on=0"),
        (extended(1, "fsync@openssh.com").text("h").packet(200), status(1, 0), "fsync 1 Change /h on=0"),
        (
            id(1).text("lsetstat@openssh.com").text("/l").u32(10).u32(1).u32(2).u32(3).u32(4).packet(200),
            status(1, 0),
            "lsetstat 1 Change /l owner=1:2 times",
        ),
    ];
    for (request, reply, said) in requests {
        check(&request, &reply, said);
    }
    for ((name, texts), said) in OPENSSH.into_iter().zip([
        "statvfs 1 Look /one",
        "expand-path 1 Look /one",
        "home-directory 1 Look /one",
        "limits 1 Look",
        "posix-rename 1 Change /one /two",
        "hardlink 1 Change /one /two",
        "users-groups 1 Look",
        "extended 1 Change unheard-of@example.com data=[00, 00, 00, 04, 2f, 6f, 6e, 65, 00, 00, 00, 04, 2f, 74, 77, 6f]",
    ]) {
        let texts = ["/one", "/two"].into_iter().take(usize::from(texts));
        let request = texts.fold(extended(1, name), Fields::text).packet(200);
        let reply = match name {
            "expand-path@openssh.com" | "home-directory" => names(1, &["/home/me"]),
            "posix-rename@openssh.com" | "hardlink@openssh.com" => status(1, 0),
            _ => id(1).text("anything").packet(201),
        };
        check(&request, &reply, said);
    }
}

/// One request in a session of its own, answered, and answered with a failure.
fn check(request: &[u8], reply: &[u8], said: &str) {
    for (reply, name) in [(reply.to_vec(), "SSH_FX_OK"), (status(1, 2), "SSH_FX_NO_SUCH_FILE")] {
        let mut session = Session::with_open(&["h"]);
        session.client(request).unwrap();
        assert_eq!(session.to_server, request);
        session.server(&reply).unwrap();
        assert_eq!(session.to_client, reply);
        let answer = if reply[4] == 104 { " answer=/home/me" } else { "" };
        assert_eq!(session.said(), [said.to_owned(), format!("outcome 1 {name}{answer}")]);
        // No trailing byte, no field too few.
        let mut longer = request.to_vec();
        longer.push(0);
        let mut shorter = request.to_vec();
        shorter.pop();
        for mut other in [longer, shorter] {
            let length = u32::try_from(other.len() - 4).unwrap();
            other[..4].copy_from_slice(&length.to_be_bytes());
            let mut session = Session::with_open(&["h"]);
            let done = session.client(&other);
            // What an unknown extension carries is its own affair.
            let free = said.starts_with("extended");
            assert_eq!(done, if free { Ok(()) } else { Err(Violation::ClientMalformed { kind: request[4] }) });
            assert_eq!(session.to_server.is_empty(), !free);
        }
    }
}

#[test]
fn looks_may_pass_and_be_counted() {
    let mut session = Session::new(limits(), Looks::Count);
    session.client(&init(3)).unwrap();
    session.server(&version(3)).unwrap();
    session.client(&[stat(1, "/a"), stat(2, "/b"), stat(3, "/c"), remove(4, "/a")].concat()).unwrap();
    session.server(&[attributes(1), status(2, 2)].concat()).unwrap();
    assert_eq!(session.said(), ["remove 0 Change /a"]);
    assert_eq!(session.tap.looked(), Looked { sent: 3, answered: 1, failed: 1 });
}

#[test]
fn a_denied_operation_is_answered_here() {
    let mut session = Session::greeted();
    session.policy = |operation| (operation.path.as_deref() == Some(b"/no")).then_some("not you");
    session.client(&[stat(7, "/yes"), open(8, "/no", 1), remove(9, "/no"), opendir(10, "/no")].concat()).unwrap();
    assert_eq!(session.to_server, stat(7, "/yes"));
    let denial = |request| id(request).u32(3).text("not you").text("en").packet(101);
    assert_eq!(session.to_client, [denial(8), denial(9), denial(10)].concat());
    // Their ids are free again, and the server knows nothing of them.
    session.client(&stat(8, "/yes")).unwrap();
    assert_eq!(session.server(&status(9, 0)), Err(Violation::ServerUnexpected { kind: 101 }));
}

#[test]
fn a_long_denial_is_cut_between_characters() {
    let mut session = Session::greeted();
    const TEXT: &str = concat!("x", "é");
    session.policy = |_| Some(Box::leak(TEXT.repeat(3000).into_boxed_str()));
    session.client(&remove(1, "/no")).unwrap();
    let said = &session.to_client[17..];
    let length = usize::try_from(u32::from_be_bytes(session.to_client[13..17].try_into().unwrap())).unwrap();
    assert_eq!(length, 4096);
    assert!(std::str::from_utf8(&said[..length]).unwrap().starts_with(TEXT));
}

#[test]
fn nothing_answers_what_is_held() {
    let mut session = Session::greeted();
    session.keep = true;
    session.client(&remove(1, "/a")).unwrap();
    assert!(session.to_server.is_empty());
    assert_eq!(session.server(&status(1, 0)), Err(Violation::ServerUnexpected { kind: 101 }));
}

#[test]
fn what_is_held_is_forwarded_or_denied_later() {
    let mut session = Session::greeted();
    session.keep = true;
    session.client(&[remove(1, "/a"), open(2, "/b", 1), remove(3, "/c")].concat()).unwrap();
    let (c, b, a) = (session.kept.pop().unwrap(), session.kept.pop().unwrap(), session.kept.pop().unwrap());
    assert_eq!(*session.tap.forward(a), remove(1, "/a"));
    assert_eq!(session.tap.deny(b, "no"), id(2).u32(3).text("no").text("en").packet(101));
    session.server(&status(1, 0)).unwrap();
    drop(c);
    session.end();
    let said = session.said();
    assert_eq!(said[3..], ["outcome 0 SSH_FX_OK", "outcome 2 NotSent"]);
}

#[test]
fn the_end_of_the_channel_ends_everything() {
    let mut session = Session::with_open(&["g", "h"]);
    session
        .client(&[open(1, "/x", 1), remove(2, "/y"), write(3, "h", 0, "abc"), write(4, "g", 0, "abc")].concat())
        .unwrap();
    session.client(&close(5, "g")).unwrap();
    session.server(&[status(4, 0)].concat()).unwrap();
    session.said();
    session.end();
    assert_eq!(
        session.said(),
        [
            "outcome 0 NotClosed written=3@0:ba7816bf",
            "outcome 1 NotClosed",
            "outcome 2 Unanswered",
            "outcome 3 Unanswered"
        ]
    );
}

#[test]
fn a_handle_that_was_not_given_is_not_served() {
    // OpenSSH counts from 0, and would have it by the time that it reads the write.
    let mut session = Session::greeted();
    session.client(&[open(1, "/a", 2), write(2, "0", 0, "abc")].concat()).unwrap();
    assert_eq!(session.said(), ["open 0 Change /a write", "stray 1 Change", "refuse 1 NotOpen"]);
    assert_eq!(session.to_server, open(1, "/a", 2));
    let text = "OnRecord refuses this request: its handle is not open";
    assert_eq!(session.to_client, id(2).u32(4).text(text).text("en").packet(101));
}

#[test]
fn a_handle_is_gone_once_its_close_has_gone() {
    let mut session = Session::with_open(&["h"]);
    session.client(&close(1, "h")).unwrap();
    let on_it = [
        close(2, "h"),
        read(2, "h", 0, 1),
        write(2, "h", 0, "x"),
        readdir(2, "h"),
        copy_data(2, "h", "h"),
        id(2).text("h").packet(8),
        id(2).text("h").u32(1).u64(0).packet(10),
        extended(2, "fsync@openssh.com").text("h").packet(200),
        extended(2, "fstatvfs@openssh.com").text("h").packet(200),
    ];
    session.to_server.clear();
    for request in &on_it {
        session.client(request).unwrap();
    }
    assert!(session.to_server.is_empty());
    assert_eq!(session.said().len(), 2 * on_it.len());
    session.server(&status(1, 0)).unwrap();
    assert_eq!(session.said(), ["outcome 0 SSH_FX_OK"]);
}

#[test]
fn a_handle_does_what_it_was_opened_for() {
    // What the operation said that it does is all that may be done in it.
    for (flags, does) in
        [(0, "r"), (1, "r"), (2, "w"), (3, "rw"), (4, "w"), (5, "rw"), (8, ""), (9, "r"), (0x1a, "w"), (1 << 31, "")]
    {
        let requests = [
            ("r", read(2, "f", 0, 1)),
            ("w", write(2, "f", 0, "x")),
            ("r", copy_data(2, "f", "h")),
            ("w", copy_data(2, "h", "f")),
            ("", readdir(2, "f")),
        ];
        for (needs, request) in requests {
            let mut session = Session::with_open(&["h"]);
            session.client(&open(1, "/f", flags)).unwrap();
            session.server(&handle_reply(1, "f")).unwrap();
            (session.to_server, session.to_client) = (Vec::new(), Vec::new());
            session.said();
            session.client(&request).unwrap();
            if !needs.is_empty() && does.contains(needs) {
                assert_eq!(session.to_server, request);
            } else {
                assert_eq!(session.said(), ["stray 2 Change /f on=1", "refuse 2 NotFor"]);
                assert!(session.to_server.is_empty());
                let text = "OnRecord refuses this request: its handle was not opened for this";
                assert_eq!(session.to_client, id(2).u32(4).text(text).text("en").packet(101));
            }
        }
    }
    let mut session = Session::with_open(&["d", "h"]);
    for request in [read(2, "d", 0, 1), write(2, "d", 0, "x"), copy_data(2, "d", "h"), copy_data(2, "h", "d")] {
        session.client(&request).unwrap();
        assert!(session.said()[1].ends_with(" NotFor"));
    }
    session.client(&readdir(3, "d")).unwrap();
    assert!(session.said().is_empty());
}

#[test]
fn a_handle_given_again_is_the_other_file() {
    let mut session = Session::with_open(&["h"]);
    session.client(&[close(1, "h"), open(2, "/other", 1)].concat()).unwrap();
    session.server(&handle_reply(2, "h")).unwrap();
    session.client(&id(3).text("h").u32(1).u64(0).packet(10)).unwrap();
    let keys: Vec<_> = session.said();
    let other: u64 = keys[0].split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(keys[0], format!("open {other} Read /other read"));
    assert!(keys[1].ends_with(&format!("/other size=0 on={other}")), "{keys:?}");
    session.server(&status(1, 0)).unwrap();
    assert_eq!(session.said(), ["outcome 0 SSH_FX_OK"]);
}

#[test]
fn a_handle_is_not_given_twice() {
    let mut session = Session::with_open(&["h"]);
    session.client(&open(1, "/other", 1)).unwrap();
    assert_eq!(session.server(&handle_reply(1, "h")), Err(Violation::ServerHandle));
    session.said();
    session.end();
    assert_eq!(session.said(), ["outcome 0 NotClosed", "outcome 1 Unanswered"]);
}

#[test]
fn renaming_an_open_file_keeps_its_operation() {
    let mut session = Session::with_open(&["h"]);
    session.client(&[id(1).text("/a").text("/h").packet(18), write(2, "h", 0, "abc"), close(3, "h")].concat()).unwrap();
    session.server(&[status(1, 0), status(2, 0), status(3, 0)].concat()).unwrap();
    assert_eq!(
        session.said(),
        ["rename 1 Change /a /h", "outcome 1 SSH_FX_OK", "outcome 0 SSH_FX_OK written=3@0:ba7816bf"]
    );
}

#[test]
fn what_copy_data_writes_is_in_no_digest() {
    let mut session = Session::with_open(&["g", "h"]);
    session.client(&[write(1, "h", 0, "abc"), copy_data(2, "g", "h"), close(3, "h")].concat()).unwrap();
    session.server(&[status(1, 0), status(2, 0), status(3, 0)].concat()).unwrap();
    assert_eq!(
        session.said(),
        [
            "copy-data 2 Change /g /h on=0 copy 0@0+0 to 1@0",
            "outcome 2 SSH_FX_OK",
            "outcome 1 SSH_FX_OK written=3 no-digest"
        ]
    );
}

#[test]
fn reading_is_only_what_cannot_change() {
    for (flags, said) in [
        (0, "open 0 Read /f "),
        (1, "open 0 Read /f read"),
        (0x11, "open 0 Change /f read+truncate"),
        (9, "open 0 Change /f read+create"),
        (5, "open 0 Change /f read+append"),
        (0x21, "open 0 Change /f read+exclusive"),
        (0x8000_0001, "open 0 Change /f read+unknown"),
    ] {
        let mut session = Session::greeted();
        session.client(&open(1, "/f", flags)).unwrap();
        assert_eq!(session.said(), [said]);
    }
}

#[test]
fn too_many_open_files_are_refused_and_recorded() {
    let mut session = Session::with_open(&["a", "b", "c"]);
    session.client(&[open(1, "/d", 1), open(2, "/e", 1), opendir(3, "/f")].concat()).unwrap();
    assert_eq!(
        session.said(),
        [
            "open 3 Read /d read",
            "open 4 Read /e read",
            "refuse 4 TooManyOpen",
            "list 5 Read /f",
            "refuse 5 TooManyOpen"
        ]
    );
    session.server(&status(1, 2)).unwrap();
    session.client(&open(1, "/g", 1)).unwrap();
    assert_eq!(session.said(), ["outcome 3 SSH_FX_NO_SUCH_FILE", "open 6 Read /g read"]);
}

#[test]
fn too_many_requests_wait() {
    let mut session = Session::greeted();
    let requests: Vec<_> = (0..20).map(|request| stat(request, "/a")).collect();
    session.client(&requests.concat()).unwrap();
    assert!(session.waiting);
    assert_eq!(session.to_server, requests[..16].concat());
    session.server(&attributes(3)).unwrap();
    assert_eq!(session.to_server, requests[..17].concat());
}

#[test]
fn nothing_is_sent_before_the_version_is_known() {
    let newest = id(6).text("newer@example.com").text("yes").packet(1);
    for greeting in [init(3), init(6), newest] {
        let mut session = Session::new(limits(), Looks::Hold);
        session.client(&[greeting, remove(1, "/a")].concat()).unwrap();
        assert!(session.waiting);
        // Whatever the client speaks, the server is asked for what is understood.
        assert_eq!(session.to_server, init(3));
        session.server(&version(3)).unwrap();
        assert_eq!(session.said(), ["remove 0 Change /a"]);
    }
}

#[test]
fn another_version_is_not_selected() {
    let mut session = Session::greeted();
    let select = extended(1, "version-select").text("6").packet(200);
    session.client(&[select, stat(1, "/a")].concat()).unwrap();
    assert_eq!(session.said(), ["extended 0 Change version-select", "refuse 0 Version", "stat 1 Look /a"]);
    assert_eq!(session.to_server, stat(1, "/a"));
    let text = "OnRecord refuses this request: it carries version 3 of SFTP only";
    assert_eq!(session.to_client, id(1).u32(4).text(text).text("en").packet(101));
    for odd in [extended(2, "version-select"), extended(2, "version-select").text("6").u32(0)] {
        assert_eq!(session.client(&odd.packet(200)), Err(Violation::ClientMalformed { kind: 200 }));
        session = Session::greeted();
    }
}

#[test]
fn violations_of_the_client() {
    let long = "x".repeat(65);
    let cases = [
        (remove(9, "/a\0b"), Violation::NulInName { kind: 13 }),
        (remove(9, "/a\0"), Violation::NulInName { kind: 13 }),
        (extended(9, "posix-rename@openssh.com\0").text("a").text("b").packet(200), Violation::NulInName { kind: 200 }),
        (remove(9, &long), Violation::NameTooLong { bytes: 65, bytes_max: 64 }),
        (extended(9, &long).packet(200), Violation::NameTooLong { bytes: 65, bytes_max: 64 }),
        (init(3), Violation::ClientUnexpected { kind: 1 }),
        (id(9).packet(2), Violation::ClientUnexpected { kind: 2 }),
        (id(9).packet(21), Violation::ClientUnexpected { kind: 21 }),
        (status(9, 0), Violation::ClientUnexpected { kind: 101 }),
        (stat(8, "/again"), Violation::IdInUse),
        (id(9).text("/a").u32(0x10).u32(0).packet(9), Violation::ClientMalformed { kind: 9 }),
        (id(9).text("/a").u32(1 << 31).u32(u32::MAX).packet(9), Violation::ClientMalformed { kind: 9 }),
        (vec![0, 0, 0, 0], Violation::ClientLength { length: 0 }),
        (vec![0, 4, 0, 1], Violation::ClientLength { length: 262_145 }),
        (b"SSH-2.0-".to_vec(), Violation::ClientLength { length: 0x5353_482d }),
    ];
    for (bytes, violation) in cases {
        let mut session = Session::greeted();
        session.client(&stat(8, "/a")).unwrap();
        session.to_server.clear();
        assert_eq!(session.client(&bytes), Err(violation));
        assert!(session.to_server.is_empty());
        assert!(!violation.by_server());
        assert!(violation.for_client().starts_with("OnRecord ends this SFTP session: "));
    }
    for (bytes, violation) in [
        (stat(1, "/a"), Violation::ClientUnexpected { kind: 17 }),
        (init(2), Violation::ClientVersion { version: 2 }),
        (Fields(vec![0, 0, 0]).packet(1), Violation::ClientMalformed { kind: 1 }),
        (id(3).text("name without data").packet(1), Violation::ClientMalformed { kind: 1 }),
    ] {
        let mut session = Session::new(limits(), Looks::Hold);
        assert_eq!(session.client(&bytes), Err(violation));
        assert!(session.to_server.is_empty());
    }
}

#[test]
fn violations_of_the_server() {
    let unexpected = |kind| Violation::ServerUnexpected { kind };
    let cases = [
        // Nobody asked.
        (stat(1, "/a"), status(2, 0), unexpected(101)),
        (stat(1, "/a"), version(3), unexpected(2)),
        (stat(1, "/a"), stat(1, "/a"), unexpected(17)),
        // Not an answer to this.
        (stat(1, "/a"), status(1, 0), unexpected(101)),
        (stat(1, "/a"), names(1, &["x"]), unexpected(104)),
        (remove(1, "/a"), attributes(1), unexpected(105)),
        (open(1, "/a", 1), status(1, 0), unexpected(101)),
        (open(1, "/a", 1), data(1, "x"), unexpected(103)),
        (read(1, "h", 0, 1), data(1, "xy"), unexpected(103)),
        (read(1, "h", 0, 1), status(1, 0), unexpected(101)),
        (write(1, "h", 0, "x"), data(1, "x"), unexpected(103)),
        (readdir(1, "d"), handle_reply(1, "x"), unexpected(102)),
        (close(1, "h"), handle_reply(1, "x"), unexpected(102)),
        (extended(1, "open-more").packet(200), handle_reply(1, "x"), unexpected(102)),
        // Not whole.
        (stat(1, "/a"), id(1).u32(0).text("m").text("en").u32(0).packet(101), Violation::ServerMalformed { kind: 101 }),
        (open(1, "/a", 1), id(1).packet(102), Violation::ServerMalformed { kind: 102 }),
        (open(1, "/a", 1), handle_reply(1, &"x".repeat(257)), Violation::ServerMalformed { kind: 102 }),
        (
            readdir(1, "d"),
            id(1).u32(9).text("x").text("x").u32(0).packet(104),
            Violation::ServerMalformed { kind: 104 },
        ),
        (readdir(1, "d"), vec![0, 8, 0, 0], Violation::ServerLength { length: 0x80000 }),
    ];
    for (request, reply, violation) in cases {
        let mut session = Session::with_open(&["d", "h"]);
        session.client(&request).unwrap();
        assert_eq!(session.server(&reply), Err(violation));
        assert!(violation.by_server());
        assert!(session.to_client.is_empty());
        // What it should have answered has an outcome all the same.
        session.said();
        session.end();
        let open = session.said();
        assert!(open.iter().all(|line| line.contains("Unanswered") || line.contains("NotClosed")), "{open:?}");
        assert!(!open.is_empty());
    }
    for (reply, violation) in [
        (version(6), Violation::ServerVersion { version: 6 }),
        (version(2), Violation::ServerVersion { version: 2 }),
        (status(0, 0), unexpected(101)),
    ] {
        let mut session = Session::new(limits(), Looks::Hold);
        assert_eq!(session.server(&reply), Err(unexpected(reply[4])));
        let mut session = Session::new(limits(), Looks::Hold);
        session.client(&init(3)).unwrap();
        assert_eq!(session.server(&reply), Err(violation));
    }
}

#[test]
fn old_servers_leave_the_text_out() {
    for reply in [id(1).u32(2).packet(101), id(1).u32(2).text("gone").packet(101)] {
        let mut session = Session::greeted();
        session.client(&remove(1, "/a")).unwrap();
        session.server(&reply).unwrap();
        assert_eq!(session.said()[1..], ["outcome 0 SSH_FX_NO_SUCH_FILE"]);
    }
}

#[test]
fn the_longest_packet_passes() {
    let rest = 1 + 4 + 4 + 1 + 8 + 4;
    let longest = write(1, "h", 0, &"w".repeat(PACKET_BYTES_MAX - rest));
    let mut session = Session::with_open(&["h"]);
    session.client(&longest).unwrap();
    assert_eq!(session.to_server, longest);
    let longer = write(1, "h", 0, &"w".repeat(PACKET_BYTES_MAX - rest + 1));
    let mut session = Session::with_open(&["h"]);
    assert!(matches!(session.client(&longer[..4]), Err(Violation::ClientLength { .. })));
}

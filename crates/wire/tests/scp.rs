//! What the tap of scp says of its two streams.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "support/scp.rs"]
mod support;

use proptest::prelude::*;
use support::{Order, play};
use wire::ssh::scp::{DEPTH_MAX, EARLY_BYTES_MAX, LINE_BYTES_MAX, PATH_BYTES_MAX, Role, Tap};

/// In every order and both roles.
fn said(source: &[u8], sink: &[u8]) -> Vec<String> {
    let said = play(Role::Sink, source, sink, Order::SourceFirst);
    for role in [Role::Sink, Role::Source] {
        for order in [Order::SourceFirst, Order::SinkFirst, Order::InTurn(1, 1), Order::InTurn(5, 2)] {
            assert_eq!(play(role, source, sink, order), said, "{role:?} {order:?}");
        }
    }
    said
}

#[test]
fn a_file() {
    assert_eq!(said(b"C0644 3 a b\nabc\0", b"\0\0\0"), ["file a b 644 3/3 ba7816bf"]);
    assert_eq!(said(b"C0755 0 empty\n\0", b"\0\0\0"), ["file empty 755 0/0 e3b0c442"]);
}

#[test]
fn a_tree_with_times() {
    let source = b"T20 0 10 0\nD0755 0 top\nC0644 1 a\na\0T40 0 30 0\nD0700 0 sub\nC0600 1 b\nb\0E\nC0644 1 c\nc\0E\nC0644 1 d\nd\0";
    assert_eq!(
        said(source, &[0; 16]),
        [
            "directory top 755 times=20,10",
            "file top/a 644 1/1 ca978112",
            "directory top/sub 700 times=40,30",
            "file top/sub/b 600 1/1 3e23e816",
            "file top/c 644 1/1 2e7d2c03",
            "file d 644 1/1 18ac3e73",
        ]
    );
}

#[test]
fn what_the_sink_refuses() {
    // No content follows, and nothing of the directory.
    assert_eq!(
        said(
            b"C0644 3 a\nD0755 0 d\nT1 0 1 0\nC0644 1 b\nb\0",
            b"\0\x01scp: a: Permission denied\n\x01no\n\x01no times\n\0\x01full\n"
        ),
        [
            "file a 644 0/3 source=none sink=1 \"scp: a: Permission denied\"",
            "directory d 755 sink=1 \"no\"",
            "Sink says 1 \"no times\"",
            "file b 644 1/1 3e23e816 sink=1 \"full\"",
        ]
    );
    assert_eq!(said(b"", b"\x01scp: x: Not a directory\n"), ["Sink says 1 \"scp: x: Not a directory\""]);
}

#[test]
fn what_the_source_cannot_read() {
    assert_eq!(
        said(
            b"\x01scp: gone: No such file or directory\nC0644 2 a\n\0\0\x01scp: a: Input/output error\n\x02bye\n",
            b"\0\0\0"
        ),
        [
            "Source says 1 \"scp: gone: No such file or directory\"",
            "file a 644 2/2 96a296d2 source=1 \"scp: a: Input/output error\"",
            "Source says 2 \"bye\"",
        ]
    );
}

#[test]
fn the_end_of_the_channel() {
    for (source, sink, expected) in [
        (&b"C0644 3 a\n"[..], &b"\0"[..], "file a 644 0/3 source=none sink=none"),
        (b"C0644 3 a\nab", b"\0\0", "file a 644 2/3 source=none sink=none"),
        (b"C0644 3 a\nabc", b"\0\0", "file a 644 3/3 ba7816bf source=none sink=none"),
        (b"C0644 3 a\nabc\0", b"\0\0", "file a 644 3/3 ba7816bf sink=none"),
        (b"D0755 0 d\n", b"\0", "directory d 755 sink=none"),
    ] {
        assert_eq!(said(source, sink), [expected]);
    }
    assert!(said(b"C0644 3 a", b"\0").is_empty());
}

#[test]
fn odd_lines_lose_it() {
    let long = [b"C0644 1 ", &[b'x'; LINE_BYTES_MAX][..]].concat();
    for source in [
        &b"\n"[..],
        b"x\n",
        b"\0",
        b"C0644 1\n",
        b"C644 1 a\n",
        b"C0849 1 a\n",
        b"C0644 -1 a\n",
        b"C0644 +1 a\n",
        b"C0644  a\n",
        b"C0644 18446744073709551616 a\n",
        b"C0644 1 \n",
        b"C0644 1 .\n",
        b"C0644 1 ..\n",
        b"C0644 1 ../a\n",
        b"D0755 0 /etc\n",
        b"C0644 1 a\0b\n",
        b"E\n",
        b"E 1\n",
        b"T1 0 1\n",
        b"T1 0 1 0 0\n",
        b"T1 0 x 0\n",
        &long,
    ] {
        let mut with_more = source.to_vec();
        with_more.extend_from_slice(b"C0644 3 a\nabc\0\n");
        let said = said(&with_more, &[0; 9]);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("lost: "), "{said:?}");
    }
    assert_eq!(
        said(b"C0644 1 a\n", b"\0?"),
        ["file a 644 0/1 source=none sink=none", "lost: an answer that scp would not give"]
    );
    assert_eq!(
        said(b"C0644 1 a\nax", b"\0\0"),
        ["file a 644 1/1 ca978112 source=none sink=none", "lost: an answer that scp would not give"]
    );
}

#[test]
fn directories_in_each_other_are_bounded() {
    let source = b"D0755 0 d\n".repeat(DEPTH_MAX + 1);
    let said = said(&source, &[0; DEPTH_MAX + 2]);
    assert_eq!(said.len(), DEPTH_MAX + 2);
    assert_eq!(said[DEPTH_MAX + 1], "lost: too many directories in each other");
}

#[test]
fn a_source_that_does_not_wait_is_followed_for_a_while() {
    let lost = "lost: one side went on without waiting for the other";
    for (size, expected) in [(EARLY_BYTES_MAX - 1, None), (EARLY_BYTES_MAX, Some(lost))] {
        let mut tap = Tap::new(Role::Sink);
        let mut said = Vec::new();
        let mut learnt = |event| said.push(support::show(&event));
        tap.server(b"\0", &mut learnt);
        tap.client(format!("C0644 {size} a\n").as_bytes(), &mut learnt);
        for piece in vec![b'x'; size].chunks(1000) {
            tap.client(piece, &mut learnt);
        }
        tap.client(b"\0", &mut learnt);
        tap.server(b"\0\0", learnt);
        match expected {
            None => assert!(said[0].starts_with(&format!("file a 644 {size}/{size} ")) && said.len() == 1, "{said:?}"),
            Some(lost) => assert_eq!(said[1..], [lost]),
        }
    }
}

#[test]
fn order_does_not_matter_up_to_a_bound() {
    for (spare, same) in [(0, true), (1, false)] {
        let size = EARLY_BYTES_MAX - "C0644 262143 a\n\0".len() + spare;
        let source = [format!("C0644 {size} a\n").as_bytes(), &vec![b'x'; size], b"\0"].concat();
        assert_eq!(source.len(), EARLY_BYTES_MAX + spare);
        let sink_first = play(Role::Sink, &source, b"\0\0\0", Order::SinkFirst);
        assert!(sink_first.len() == 1 && sink_first[0].starts_with("file a "), "{sink_first:?}");
        assert_eq!(play(Role::Sink, &source, b"\0\0\0", Order::SourceFirst) == sink_first, same);
        assert_eq!(play(Role::Sink, &source, b"\0\0\0", Order::InTurn(4096, 1)), sink_first);
    }
}

#[test]
fn paths_are_bounded() {
    // Two directories and a file, joined.
    let (one, two) = ("1".repeat(2000), "2".repeat(2000));
    let name = "n".repeat(PATH_BYTES_MAX - 4002);
    let source = |name: &str| format!("D0755 0 {one}\nD0755 0 {two}\nC0644 0 {name}\n\0");
    assert!(said(source(&name).as_bytes(), &[0; 5])[2].starts_with("file 1"));
    let longer = said(source(&format!("{name}n")).as_bytes(), &[0; 5]);
    assert_eq!(longer[2..], ["lost: a path that is too long"]);
}

/// One thing that a source sends, and the sink's answers.
fn exchange() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let yes = Just(b"\0".to_vec()).boxed();
    let answer = prop_oneof![4 => yes.clone(), 1 => Just(b"\x01no\n".to_vec())];
    prop_oneof![
        6 => ("[a-z]{1,3}", "[a-z]{0,9}", answer.clone()).prop_map(|(name, text, written)| {
            (format!("C0644 {} {name}\n{text}\0", text.len()).into_bytes(), [b"\0", &written[..]].concat())
        }),
        1 => "[a-z]{1,3}".prop_map(|name| (format!("C0644 9 {name}\n").into_bytes(), b"\x01no\n".to_vec())),
        2 => ("[a-z]{1,3}", answer.clone()).prop_map(|(name, yes)| (format!("D0755 0 {name}\n").into_bytes(), yes)),
        2 => yes.prop_map(|yes| (b"E\n".to_vec(), yes)),
        1 => answer.prop_map(|yes| (b"T1 0 2 0\n".to_vec(), yes)),
        1 => Just((b"\x01scp: gone\n".to_vec(), Vec::new())),
        1 => (prop::collection::vec(any::<u8>(), 0..9), prop::collection::vec(any::<u8>(), 0..9)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_says_the_same(exchanges in prop::collection::vec(exchange(), 0..12), sizes in (1..9usize, 1..9usize)) {
        let (source, sink): (Vec<_>, Vec<_>) = exchanges.into_iter().unzip();
        let (source, sink) = (source.concat(), [b"\0".to_vec(), sink.concat()].concat());
        let whole = play(Role::Sink, &source, &sink, Order::SourceFirst);
        for order in [Order::SinkFirst, Order::InTurn(sizes.0, sizes.1)] {
            prop_assert_eq!(&play(Role::Sink, &source, &sink, order), &whole);
        }
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        support::scp(&bytes);
    }
}

//! Drives a tap of scp and writes down what it says; what the fuzzer runs.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::indexing_slicing)]

use std::fmt::Write as _;
use wire::ssh::scp::{Answer, Event, Role, Tap, Times};

pub fn show(event: &Event) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut line = String::new();
    let told = |line: &mut String, who: &str, answer: &Option<Answer>| match answer {
        None => write!(line, " {who}=none").unwrap(),
        Some(answer) if answer.code == 0 => {}
        Some(answer) => write!(line, " {who}={} {:?}", answer.code, text(&answer.message)).unwrap(),
    };
    let dated = |line: &mut String, times: Option<Times>| {
        if let Some(times) = times {
            write!(line, " times={},{}", times.modified, times.accessed).unwrap();
        }
    };
    match event {
        Event::Complaint { by, answer } => {
            write!(line, "{by:?} says {} {:?}", answer.code, text(&answer.message)).unwrap();
        }
        Event::Directory(directory) => {
            write!(line, "directory {} {:o}", text(&directory.path), directory.mode).unwrap();
            dated(&mut line, directory.times);
            told(&mut line, "sink", &directory.sink);
        }
        Event::File(file) => {
            write!(line, "file {} {:o} {}/{}", text(&file.path), file.mode, file.bytes, file.size).unwrap();
            dated(&mut line, file.times);
            if let Some(digest) = file.sha256 {
                let hex: String = digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
                write!(line, " {hex}").unwrap();
            }
            told(&mut line, "source", &file.source);
            told(&mut line, "sink", &file.sink);
        }
        Event::Lost { why } => write!(line, "lost: {why}").unwrap(),
    }
    line
}

/// How the two streams come in.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    SourceFirst,
    SinkFirst,
    /// So many bytes of each in turn.
    InTurn(usize, usize),
}

/// What is said of a source's and a sink's bytes.
pub fn play(role: Role, source: &[u8], sink: &[u8], order: Order) -> Vec<String> {
    let mut tap = Tap::new(role);
    let (of_source, of_sink) = match order {
        Order::SourceFirst => (source.len(), 0),
        Order::SinkFirst => (0, sink.len()),
        Order::InTurn(of_source, of_sink) => (of_source, of_sink),
    };
    let mut said = Vec::new();
    let (mut source, mut sink) = (source, sink);
    let mut first = true;
    while !(source.is_empty() && sink.is_empty()) {
        // Whatever is left goes in whole, one stream after the other.
        let take =
            |left: usize, size: usize| if first || (of_source > 0 && of_sink > 0) { left.min(size) } else { left };
        let (now_source, now_sink) = (take(source.len(), of_source), take(sink.len(), of_sink));
        let (source_now, source_left) = source.split_at(now_source);
        let (sink_now, sink_left) = sink.split_at(now_sink);
        (source, sink) = (source_left, sink_left);
        let mut learnt = |event| said.push(show(&event));
        match role {
            Role::Sink => {
                tap.client(source_now, &mut learnt);
                tap.server(sink_now, learnt);
            }
            Role::Source => {
                tap.server(source_now, &mut learnt);
                tap.client(sink_now, learnt);
            }
        }
        first = false;
    }
    tap.finish(|event| said.push(show(&event)));
    let more = |event| panic!("{event:?}");
    tap.finish(more);
    tap.client(source, more);
    tap.server(sink, more);
    said
}

/// The first byte is the role, the next two are the length of the source's stream; the rest is the sink's.
pub fn scp(bytes: &[u8]) {
    let Some((&[role, high, low], streams)) = bytes.split_first_chunk::<3>() else {
        return;
    };
    let role = if role % 2 == 0 { Role::Sink } else { Role::Source };
    let (source, sink) = streams.split_at(usize::from(u16::from_be_bytes([high, low])).min(streams.len()));
    let said = play(role, source, sink, Order::SourceFirst);
    for order in [Order::SinkFirst, Order::InTurn(1, 1), Order::InTurn(7, 3)] {
        assert_eq!(play(role, source, sink, order), said, "{order:?}");
    }
}

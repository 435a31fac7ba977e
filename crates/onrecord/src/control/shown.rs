//! What somebody who watches is sent: a line for each thing that a program shows, behind the answer to `watch`.
//!
//! ```text
//! {"v":1,"shown":{"at_us":0,"columns":80,"rows":24}}
//! {"v":1,"shown":{"at_us":4180,"stream":"stdout","bytes":"JCA="}}       bytes in base64
//! {"v":1,"shown":{"missed":65536}}                                      bytes that came too fast
//! {"v":1,"shown":"over"}
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gateway::Shown;
use model::transcript::{Frame, Stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::VERSION;

#[derive(Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Line {
    Size { at_us: u64, columns: u32, rows: u32 },
    Bytes { at_us: u64, stream: String, bytes: String },
    Missed { missed: u64 },
    Over(Over),
}

#[derive(Serialize, Deserialize)]
enum Over {
    #[serde(rename = "over")]
    Over,
}

/// Its line, without its end; none for nothing.
pub(super) fn line(shown: &Shown) -> Option<String> {
    let line = match shown {
        Shown::Frame(Frame::Size { at_us, columns, rows }) => {
            Line::Size { at_us: *at_us, columns: *columns, rows: *rows }
        }
        Shown::Frame(Frame::Bytes { stream, at_us, bytes }) => {
            Line::Bytes { at_us: *at_us, stream: stream.as_str().to_owned(), bytes: STANDARD.encode(bytes) }
        }
        Shown::Missed(missed) => Line::Missed { missed: *missed },
        Shown::Over => Line::Over(Over::Over),
        Shown::Frame(Frame::End { .. }) | Shown::Nothing => return None,
    };
    Some(json!({"v": VERSION, "shown": line}).to_string())
}

/// Reads one. None if it is none of this version.
pub(super) fn parse(line: &[u8]) -> Option<Shown> {
    let value: Value = serde_json::from_slice(line).ok()?;
    (value.get("v")?.as_u64()? == VERSION).then_some(())?;
    Some(match serde_json::from_value(value.get("shown")?.clone()).ok()? {
        Line::Size { at_us, columns, rows } => Shown::Frame(Frame::Size { at_us, columns, rows }),
        Line::Bytes { at_us, stream, bytes } => {
            let stream = Stream::ALL.into_iter().find(|known| known.as_str() == stream)?;
            Shown::Frame(Frame::Bytes { stream, at_us, bytes: STANDARD.decode(bytes).ok()? })
        }
        Line::Missed { missed } => Shown::Missed(missed),
        Line::Over(Over::Over) => Shown::Over,
    })
}

//! A gateway without sockets or a record: drives a tap and writes down all that it says.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::fmt::Write as _;
use wire::postgres::tap::*;

pub fn limits() -> TapLimits {
    TapLimits {
        message_bytes_max: 1 << 20,
        buffered_bytes_max: 4096,
        commands_in_flight_max: 64,
        names_max: 16,
        names_bytes_max: 64 * 1024,
    }
}

/// Both directions of one session, and what came of them.
pub struct Session {
    pub tap: Tap,
    from_client: Vec<u8>,
    from_server: Vec<u8>,
    large: Option<(usize, Vec<u8>)>,
    pub to_server: Vec<u8>,
    pub to_client: Vec<u8>,
    pub log: Vec<String>,
    pub ended: bool,
    pub outcomes: Vec<(u64, CommandOutcome)>,
    pub drafted: u64,
    /// What each command runs, in order of keys.
    pub texts: Vec<String>,
    /// Whether the client had to wait at the end of the last call.
    pub waiting: bool,
}

impl Session {
    pub fn new(limits: TapLimits) -> Self {
        let mut tap = Tap::new(limits);
        tap.parameter(b"standard_conforming_strings", b"on");
        tap.parameter(b"client_encoding", b"UTF8");
        Self {
            tap,
            from_client: Vec::new(),
            from_server: Vec::new(),
            large: None,
            to_server: Vec::new(),
            to_client: Vec::new(),
            log: Vec::new(),
            ended: false,
            outcomes: Vec::new(),
            drafted: 0,
            texts: Vec::new(),
            waiting: false,
        }
    }

    pub fn client(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        self.from_client.extend_from_slice(bytes);
        self.pump()
    }

    fn drafted(&mut self, draft: &Draft<'_>) -> String {
        assert_eq!(draft.key.0, self.drafted, "keys are dense");
        self.drafted += 1;
        let text = match &draft.text {
            Text::Inline(text) => format!("{:?}", String::from_utf8_lossy(text)),
            Text::Prepared { text, .. } => format!("{:?}", String::from_utf8_lossy(text)),
            Text::Spooled { .. } => "spooled".to_owned(),
            Text::None => "none".to_owned(),
        };
        self.texts.push(match &draft.text {
            Text::Inline(text) => String::from_utf8_lossy(text).into_owned(),
            Text::Prepared { text, .. } => String::from_utf8_lossy(text).into_owned(),
            Text::Spooled { .. } | Text::None => String::new(),
        });
        let mut line = format!("{} {:?} {text}", draft.key.0, draft.via);
        if let Some(parameters) = draft.parameters.as_ref().filter(|parameters| !parameters.is_empty()) {
            let mut json = Vec::new();
            parameters.to_json(&mut json, 1 << 20).unwrap();
            write!(line, " {}", String::from_utf8(json).unwrap()).unwrap();
        }
        for (what, name) in [("statement", draft.statement), ("portal", draft.portal)] {
            if !name.is_empty() {
                write!(line, " {what}={}", String::from_utf8_lossy(name)).unwrap();
            }
        }
        if let Some(oid) = draft.function_oid {
            write!(line, " function={oid}").unwrap();
        }
        line
    }

    fn pump(&mut self) -> Result<(), Violation> {
        self.waiting = false;
        loop {
            if let Some((left, mut spooled)) = self.large.take() {
                let now = left.min(self.from_client.len());
                let piece: Vec<u8> = self.from_client.drain(..now).collect();
                spooled.extend_from_slice(&piece);
                match self.tap.large(&piece)? {
                    LargeStep::More => {
                        self.large = Some((left - now, spooled));
                        return Ok(());
                    }
                    LargeStep::Done(draft) => self.large_done(draft, &spooled),
                }
                continue;
            }
            let bytes = std::mem::take(&mut self.from_client);
            let mut out = std::mem::take(&mut self.to_server);
            let step = self.tap.client(&bytes);
            let mut more = true;
            let consumed = match step {
                Ok(ClientStep::NeedMore) => {
                    more = false;
                    0
                }
                Ok(ClientStep::Wait) => {
                    assert!(self.tap.waiting());
                    self.waiting = true;
                    more = false;
                    0
                }
                Ok(ClientStep::Pass(passive)) => {
                    let consumed = passive.consumed();
                    passive.write_to(&mut out);
                    consumed
                }
                Ok(ClientStep::Command(executing, draft)) => {
                    let line = self.drafted(&draft);
                    self.log.push(format!("command {line}"));
                    let consumed = executing.consumed();
                    executing.write_to(&mut out);
                    consumed
                }
                Ok(ClientStep::Swallow(consumed)) => {
                    self.log.push("swallow".to_owned());
                    consumed
                }
                Ok(ClientStep::Refuse { consumed, refusal, draft, substitute }) => {
                    let line = draft.map(|draft| self.drafted(&draft)).unwrap_or_default();
                    self.log.push(format!("refuse {line} {refusal:?}"));
                    assert_eq!(consumed, substitute.consumed());
                    substitute.write_to(&mut out);
                    consumed
                }
                Ok(ClientStep::End(passive)) => {
                    self.log.push("end".to_owned());
                    self.ended = true;
                    more = false;
                    let consumed = passive.consumed();
                    passive.write_to(&mut out);
                    consumed
                }
                Ok(ClientStep::Large { header, kind, body_bytes }) => {
                    self.log.push(format!("large {kind:?} {body_bytes}"));
                    self.large = Some((body_bytes, Vec::new()));
                    header.len()
                }
                Err(violation) => {
                    self.log.push(format!("violation {violation}"));
                    self.to_server = out;
                    return Err(violation);
                }
            };
            self.to_server = out;
            self.from_client = bytes[consumed..].to_vec();
            if !more {
                return Ok(());
            }
        }
    }

    fn large_done(&mut self, draft: LargeDraft, spooled: &[u8]) {
        if let Some(key) = draft.key {
            assert_eq!(key.0, self.drafted);
            self.drafted += 1;
            self.texts.push(String::new());
        }
        let text = match &draft.text {
            LargeText::Body(range) => {
                format!("{:?}…", String::from_utf8_lossy(&spooled[range.clone()][..20.min(range.len())]))
            }
            LargeText::Known(text) => format!("{text:?}"),
        };
        self.log.push(format!("large done {:?} {:?} {text}", draft.key, draft.via));
        match draft.pass {
            LargePass::Executing(executing) => {
                executing.write_to(&mut self.to_server);
                self.to_server.extend_from_slice(spooled);
            }
            LargePass::Passive(passive) => {
                passive.write_to(&mut self.to_server);
                self.to_server.extend_from_slice(spooled);
            }
            LargePass::Refuse(refusal, substitute) => {
                self.log.push(format!("refuse large {refusal:?}"));
                substitute.write_to(&mut self.to_server);
            }
        }
    }

    pub fn server(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        self.from_server.extend_from_slice(bytes);
        loop {
            let mut events = Vec::new();
            let step = match self.tap.server(&self.from_server, &mut events) {
                Ok(step) => step,
                Err(violation) => {
                    self.log.push(format!("violation {violation}"));
                    return Err(violation);
                }
            };
            assert!(step.boundary.is_none_or(|boundary| boundary < step.pass));
            self.to_client.extend_from_slice(&self.from_server[..step.pass]);
            self.to_client.extend_from_slice(&step.reply);
            self.from_server.drain(..step.pass + step.skip);
            for event in events {
                self.event(event);
            }
            if !step.more {
                break;
            }
        }
        assert!(self.from_server.len() <= 32 * 1024, "the server's bytes are not hoarded");
        self.pump()
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Outcome { key, outcome } => {
                self.log.push(format!("outcome {} {}", key.0, show(&outcome)));
                self.outcomes.push((key.0, outcome));
            }
            Event::ParseFailed { key, text, statement, outcome } => {
                assert_eq!(key.0, self.drafted, "keys are dense");
                self.drafted += 1;
                self.texts.push(String::new());
                let text = match text {
                    ParseText::Text(text) => String::from_utf8_lossy(&text).into_owned(),
                    ParseText::Spooled(_) => "spooled".to_owned(),
                };
                let statement = String::from_utf8_lossy(&statement).into_owned();
                self.log.push(format!("parse failed {} {text:?} {statement:?} {}", key.0, show(&outcome)));
                self.outcomes.push((key.0, outcome));
            }
            Event::Parameter { name, value } => self.log.push(format!(
                "parameter {}={}",
                String::from_utf8_lossy(&name),
                String::from_utf8_lossy(&value)
            )),
            Event::Ready(status) => self.log.push(format!("ready {status:?}")),
            Event::Fatal { code, message } => self.log.push(format!("fatal {code} {message}")),
        }
    }
}

/// Byte counts of replies are left out where errors have them: they name source lines of the server.
pub fn show(outcome: &CommandOutcome) -> String {
    let mut line = format!("{:?}", outcome.status);
    if let (Some(severity), Some(code), Some(message)) = (&outcome.severity, &outcome.code, &outcome.message) {
        write!(line, " {severity} {code} {message:?}").unwrap();
    }
    let tags: Vec<_> = outcome.results.iter().map(|result| format!("{}={:?}", result.tag, result.rows)).collect();
    write!(line, " [{}] rows={} up={} down={}", tags.join(", "), outcome.rows, outcome.bytes_up, outcome.bytes_down)
        .unwrap();
    for (name, count) in [("notices", outcome.notices), ("fetches", outcome.fetches)] {
        if count > 0 {
            write!(line, " {name}={count}").unwrap();
        }
    }
    if let Some(copy) = outcome.copy {
        write!(line, " copy={:?}:{}", copy.direction, copy.bytes).unwrap();
    }
    if outcome.suspended {
        line.push_str(" suspended");
    }
    if !outcome.executed {
        line.push_str(" not-executed");
    }
    write!(line, " {:?}", outcome.effective).unwrap();
    line
}

/// One message from a line such as `P s1|select 1`, `B portal|statement|a|b`, `E portal|1`, `Q select 1`, `D S s1`.
pub fn message(line: &str) -> Vec<u8> {
    let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
    let fields: Vec<&str> = rest.split('|').collect();
    let field = |index: usize| fields.get(index).copied().unwrap_or("");
    let mut body = Vec::new();
    let string = |body: &mut Vec<u8>, text: &str| {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    };
    match kind {
        "Q" | "f" => string(&mut body, rest),
        "P" => {
            let (name, text) = rest.split_once('|').unwrap();
            string(&mut body, name);
            string(&mut body, text);
            body.extend_from_slice(&[0, 0]);
        }
        "B" => {
            string(&mut body, field(0));
            string(&mut body, field(1));
            body.extend_from_slice(&[0, 0]);
            let values = fields.get(2..).unwrap_or_default();
            body.extend_from_slice(&(values.len() as u16).to_be_bytes());
            for value in values {
                body.extend_from_slice(&(value.len() as u32).to_be_bytes());
                body.extend_from_slice(value.as_bytes());
            }
            body.extend_from_slice(&[0, 0]);
        }
        "E" => {
            string(&mut body, field(0));
            body.extend_from_slice(&field(1).parse::<u32>().unwrap_or(0).to_be_bytes());
        }
        "D" | "C" => {
            let (what, name) = rest.split_once(' ').unwrap_or((rest, ""));
            body.push(what.as_bytes()[0]);
            string(&mut body, name);
        }
        "F" => {
            body.extend_from_slice(&field(0).parse::<u32>().unwrap().to_be_bytes());
            body.extend_from_slice(&[0, 1, 0, 1]);
            let values = fields.get(1..).unwrap_or_default();
            body.extend_from_slice(&(values.len() as u16).to_be_bytes());
            for value in values {
                body.extend_from_slice(&4_u32.to_be_bytes());
                body.extend_from_slice(&value.parse::<i32>().unwrap().to_be_bytes());
            }
            body.extend_from_slice(&[0, 1]);
        }
        "d" => {
            body.extend_from_slice(rest.as_bytes());
            body.push(b'\n');
        }
        "H" | "S" | "X" | "c" => {}
        other => panic!("no such message: {other}"),
    }
    framed(kind.as_bytes()[0], &body)
}

pub fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// What a server would say, from a line such as `C SELECT 1`, `Z I`, `E 26000`, `1`, `D`.
pub fn reply(line: &str) -> Vec<u8> {
    let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
    let body = match kind {
        "C" => [rest.as_bytes(), b"\0"].concat(),
        "Z" => rest.as_bytes().to_vec(),
        "E" => format!("SERROR\0VERROR\0C{rest}\0Mmessage\0\0").into_bytes(),
        "D" => vec![0, 1, 0, 0, 0, 1, b'x'],
        "T" => vec![0, 0],
        "G" | "H" | "W" => vec![0, 0, 0],
        "V" => vec![0xFF; 4],
        "d" => rest.as_bytes().to_vec(),
        "S" => rest.replace('=', "\0").into_bytes().into_iter().chain([0]).collect(),
        "N" => b"SNOTICE\0\0".to_vec(),
        _ => Vec::new(),
    };
    framed(kind.as_bytes()[0], &body)
}

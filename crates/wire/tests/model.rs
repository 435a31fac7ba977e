//! A small PostgreSQL that only knows the protocol's rules, and a client that sends anything in any order: the tap never
//! loses its place, nobody waits for ever, and what is recorded as run is what the server ran.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::map_entry)]

mod support;

use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use support::{Session, message, reply};

#[derive(Clone, Debug)]
struct Portal {
    text: String,
    fetched: usize,
}

#[derive(Default)]
struct Server {
    input: Vec<u8>,
    statements: BTreeMap<String, String>,
    portals: BTreeMap<String, Portal>,
    /// Replies that are held back until something flushes them.
    kept: Vec<u8>,
    sent: Vec<u8>,
    status: char,
    skipping: bool,
    copying: Option<bool>,
    dead: bool,
    ran: Vec<String>,
}

impl Server {
    fn say(&mut self, line: &str) {
        self.kept.extend(reply(line));
    }

    fn flush(&mut self) {
        self.sent.append(&mut self.kept);
    }

    fn step(&mut self) -> bool {
        if self.input.len() < 5 || self.dead {
            return false;
        }
        let end = 1 + u32::from_be_bytes(self.input[1..5].try_into().unwrap()) as usize;
        if self.input.len() < end {
            return false;
        }
        let message: Vec<u8> = self.input.drain(..end).collect();
        self.message(message[0], &message[5..]);
        true
    }

    fn message(&mut self, kind: u8, body: &[u8]) {
        let strings: Vec<String> =
            body.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect();
        let string = |index: usize| strings.get(index).cloned().unwrap_or_default();
        if let Some(simple) = self.copying {
            match kind {
                b'd' | b'H' | b'S' => {}
                b'c' => {
                    self.copying = None;
                    self.say("C COPY 1");
                    if simple {
                        self.ready();
                    }
                }
                b'f' => {
                    self.copying = None;
                    self.fail("57014", !simple);
                    if simple {
                        self.ready();
                    }
                }
                _ => self.dead = true,
            }
            return;
        }
        if self.skipping && kind != b'S' {
            return;
        }
        match kind {
            b'P' => {
                let (name, text) = (string(0), string(1));
                if name.is_empty() {
                    self.statements.remove("");
                }
                if text == "nonsense" {
                    self.fail("42601", true);
                } else if self.refuses(&text) {
                    self.fail("25P02", true);
                } else if self.statements.contains_key(&name) {
                    self.fail("42P05", true);
                } else {
                    self.statements.insert(name, text);
                    self.say("1");
                }
            }
            b'B' => {
                let (portal, statement) = (string(0), string(1));
                let Some(text) = self.statements.get(&statement).cloned() else {
                    return self.fail("26000", true);
                };
                if self.refuses(&text) {
                    self.fail("25P02", true);
                } else if !portal.is_empty() && self.portals.contains_key(&portal) {
                    self.fail("42P03", true);
                } else {
                    self.portals.insert(portal, Portal { text, fetched: 0 });
                    self.say("2");
                }
            }
            b'D' => {
                let name = string(0)[1..].to_owned();
                let known = if body[0] == b'S' {
                    self.statements.contains_key(&name)
                } else {
                    self.portals.contains_key(&name)
                };
                if !known {
                    return self.fail(if body[0] == b'S' { "26000" } else { "34000" }, true);
                }
                if body[0] == b'S' {
                    self.kept.extend(support::framed(b't', &[0, 0]));
                }
                self.say("n");
            }
            b'C' => {
                let name = string(0)[1..].to_owned();
                if body[0] == b'S' {
                    self.statements.remove(&name);
                } else {
                    self.portals.remove(&name);
                }
                self.say("3");
            }
            b'E' => {
                let name = string(0);
                let max = u32::from_be_bytes(body[body.len() - 4..].try_into().unwrap());
                let Some(mut portal) = self.portals.get(&name).cloned() else {
                    return self.fail("34000", true);
                };
                if self.refuses(&portal.text) {
                    return self.fail("25P02", true);
                }
                if portal.fetched == 0 {
                    self.ran.push(portal.text.clone());
                }
                if portal.text.contains("rows") {
                    let left = 3_usize.saturating_sub(portal.fetched);
                    let now = if max == 0 { left } else { left.min(max as usize) };
                    portal.fetched += now.max(1);
                    self.portals.insert(name, portal);
                    for _ in 0..now {
                        self.say("D");
                    }
                    let full = max != 0 && now == max as usize;
                    self.say(if full { "s" } else { "C SELECT 3" });
                } else {
                    portal.fetched += 1;
                    let text = portal.text.clone();
                    self.portals.insert(name, portal);
                    self.run(&text, true);
                }
            }
            b'S' => {
                self.skipping = false;
                self.ready();
            }
            b'H' => self.flush(),
            b'Q' => {
                let text = string(0);
                self.statements.remove("");
                self.portals.remove("");
                if text == "nonsense" {
                    self.ran.push(text);
                    self.fail("42601", false);
                } else if self.refuses(&text) {
                    self.fail("25P02", false);
                } else {
                    self.ran.push(text.clone());
                    self.run(&text, false);
                }
                if self.copying.is_none() {
                    self.ready();
                }
            }
            b'F' => {
                let oid = u32::from_be_bytes(body[..4].try_into().unwrap());
                if self.status == 'E' {
                    self.fail("25P02", false);
                } else if oid == 952 {
                    self.ran.push("function".to_owned());
                    self.say("V");
                } else {
                    self.fail("42883", false);
                }
                self.ready();
            }
            _ => {}
        }
    }

    fn refuses(&self, text: &str) -> bool {
        self.status == 'E' && !matches!(text, "commit" | "rollback")
    }

    fn fail(&mut self, code: &str, extended: bool) {
        self.say(&format!("E {code}"));
        self.flush();
        self.portals.clear();
        if self.status == 'T' {
            self.status = 'E';
        }
        self.skipping = extended;
    }

    fn ready(&mut self) {
        if self.status == 'I' {
            self.portals.clear();
        }
        self.say(&format!("Z {}", self.status));
        self.flush();
    }

    fn run(&mut self, text: &str, extended: bool) {
        let done = match text {
            "begin" => {
                self.status = 'T';
                Some("BEGIN")
            }
            "commit" | "rollback" => {
                let tag = if self.status == 'E' || text == "rollback" { "ROLLBACK" } else { "COMMIT" };
                self.status = 'I';
                self.portals.clear();
                Some(tag)
            }
            "prepare s1 as select 'secret'" => (!self.statements.contains_key("s1")).then(|| {
                self.statements.insert("s1".to_owned(), "select 'secret'".to_owned());
                "PREPARE"
            }),
            "deallocate s1" => self.statements.remove("s1").map(|_| "DEALLOCATE"),
            "do steal" | "select steal()" => {
                self.statements.insert("s1".to_owned(), "select 'secret'".to_owned());
                if self.status == 'T' {
                    let text = "select 'secret rows'".to_owned();
                    self.portals.insert("p1".to_owned(), Portal { text, fetched: 0 });
                }
                Some("DO")
            }
            "declare p1 cursor for select 'secret'" => {
                (self.status == 'T' && !self.portals.contains_key("p1")).then(|| {
                    let text = "select 'secret rows'".to_owned();
                    self.portals.insert("p1".to_owned(), Portal { text, fetched: 0 });
                    "DECLARE CURSOR"
                })
            }
            "close p1" => self.portals.remove("p1").map(|_| "CLOSE CURSOR"),
            "copy t from stdin" => {
                self.say("G");
                self.flush();
                self.copying = Some(!extended);
                return;
            }
            "select 1/0" => None,
            _ => Some("SELECT 1"),
        };
        match done {
            Some(tag) => self.say(&format!("C {tag}")),
            None => self.fail("22012", extended),
        }
    }
}

fn messages() -> impl Strategy<Value = String> {
    let text = prop::sample::select(vec![
        "select 1",
        "select 'rows'",
        "select 1/0",
        "nonsense",
        "begin",
        "commit",
        "rollback",
        "prepare s1 as select 'secret'",
        "deallocate s1",
        "do steal",
        "select steal()",
        "declare p1 cursor for select 'secret'",
        "close p1",
        "copy t from stdin",
    ]);
    let statement = prop::sample::select(vec!["", "s1", "s1", "s2"]);
    let portal = prop::sample::select(vec!["", "p1", "p1", "p2"]);
    prop_oneof![
        3 => text.clone().prop_map(|text| format!("Q {text}")),
        4 => (statement.clone(), text).prop_map(|(name, text)| format!("P {name}|{text}")),
        5 => (portal.clone(), statement.clone()).prop_map(|(portal, name)| format!("B {portal}|{name}")),
        5 => (portal.clone(), 0..3).prop_map(|(portal, max)| format!("E {portal}|{max}")),
        1 => portal.clone().prop_map(|portal| format!("D P{portal}").replace("D P", "D P ")),
        1 => statement.clone().prop_map(|name| format!("D S {name}")),
        1 => portal.prop_map(|portal| format!("C P {portal}")),
        1 => statement.prop_map(|name| format!("C S {name}")),
        5 => Just("S".to_owned()),
        1 => Just("H".to_owned()),
        1 => prop::sample::select(vec!["F 952", "F 89"]).prop_map(str::to_owned),
        1 => prop::sample::select(vec!["d x", "c", "f no"]).prop_map(str::to_owned),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_recorded_is_what_ran(
        script in prop::collection::vec((messages(), 0_usize..4, 1_usize..40), 1..40),
    ) {
        let mut session = Session::new(support::limits());
        let mut server = Server { status: 'I', ..Server::default() };
        let mut violated = false;
        let ends = ["c", "S", "Q rollback", "S"];
        let script: VecDeque<_> =
            script.into_iter().chain(ends.into_iter().map(|line| (line.to_owned(), usize::MAX, usize::MAX))).collect();
        'script: for (line, steps, chunk) in script {
            if session.client(&message(&line)).is_err() {
                violated = true;
                break;
            }
            for _ in 0..steps {
                server.input.append(&mut session.to_server);
                let moved = server.step();
                while !server.sent.is_empty() {
                    let now: Vec<u8> = server.sent.drain(..chunk.min(server.sent.len())).collect();
                    if let Err(violation) = session.server(&now) {
                        let code = violation.to_string();
                        prop_assert!(!code.contains("server"), "{code}\n{}", session.log.join("\n"));
                        violated = true;
                        break 'script;
                    }
                }
                if !moved && session.to_server.is_empty() {
                    break;
                }
            }
        }
        if violated {
            return Ok(());
        }
        prop_assert!(!server.dead, "the tap let a message through that ends the session");
        prop_assert!(!session.waiting, "everyone waits\n{}", session.log.join("\n"));
        prop_assert!(session.tap.idle(), "not idle\n{}", session.log.join("\n"));
        prop_assert_eq!(session.tap.abandon(), vec![], "left open\n{}", session.log.join("\n"));
        let mut recorded: Vec<String> = session
            .outcomes
            .iter()
            .filter(|(_, outcome)| outcome.executed)
            .map(|(key, _)| session.texts[usize::try_from(*key).unwrap()].clone())
            .map(|text| if text.is_empty() { "function".to_owned() } else { text })
            .collect();
        let mut ran = server.ran;
        recorded.sort();
        ran.sort();
        prop_assert_eq!(recorded, ran, "{}", session.log.join("\n"));
    }
}

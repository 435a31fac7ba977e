//! An approval for people, in the style of `onrecord show`.

use serde_json::Value;

use crate::commands::asking::{number, text, when};
use crate::commands::show::parameter;
use crate::output::{Look, Tone, lines, single_line};

/// Columns of a fact's name.
const NAME: usize = 14;

/// Everything that the gateway tells of an approval, a fact a line, safe to look at.
pub(super) fn lines_of(detail: &Value, look: Look) -> Vec<String> {
    let mut facts = Facts::new(look);
    let of = |key: &str| text(detail, key);
    let state = of("state");
    let counted = format!("{state}, {} of {} approved", number(detail, "approvals"), number(detail, "quorum"));
    facts.say("approval", of("id"));
    facts.toned("state", tone(state), &counted);
    facts.say("asked", &in_utc(of("asked")));
    facts.say("expires", &in_utc(of("expires")));
    facts.say("who", of("requester"));
    facts.some("on behalf of", of("on_behalf_of"));
    let place = format!("{}, database {}, as {}", of("connection"), of("database"), of("role"));
    facts.say("connection", &place);
    facts.some("transaction", of("transaction"));
    let rules: Vec<&str> = list(detail, "rules").filter_map(Value::as_str).collect();
    facts.some("rules", &rules.join(", "));
    facts.some("message", of("message"));
    let opaque: Vec<&str> = list(detail, "opaque").filter_map(Value::as_str).collect();
    if !opaque.is_empty() {
        facts.toned("not known", Tone::Warning, &format!("it may do more than it says: {}", opaque.join(", ")));
    }
    if detail.get("signed").and_then(Value::as_bool) == Some(true) {
        facts.say("signature", "who approves must sign with a passkey");
    }
    facts.content("statement", of("statement"));
    for (number, value) in (1..).zip(list(detail, "parameters")) {
        facts.say(&format!("${number}"), &parameter(value));
    }
    for seen in list(detail, "seen") {
        facts.say("seen", &format!("by {} at {}", text(seen, "by"), in_utc(text(seen, "time"))));
    }
    for vote in list(detail, "votes") {
        let decision = text(vote, "decision");
        let tone = if decision == "deny" { Tone::Bad } else { Tone::Good };
        let comment = Some(text(vote, "comment")).filter(|comment| !comment.is_empty());
        let comment = comment.map_or_else(String::new, |comment| format!(": {comment}"));
        facts.toned(decision, tone, &format!("by {} at {}{comment}", text(vote, "by"), in_utc(text(vote, "time"))));
    }
    facts.some("used by", of("used_by"));
    for (name, key) in [("policy", "policy"), ("intent", "intent"), ("request", "request")] {
        facts.digest(name, of(key));
    }
    facts.lines()
}

/// What a state is to the reader.
pub(super) fn tone(state: &str) -> Tone {
    match state {
        "waiting" => Tone::Strong,
        "approved" | "used" => Tone::Good,
        "denied" | "revoked" => Tone::Bad,
        _ => Tone::Faint,
    }
}

fn list<'a>(detail: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    detail.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn in_utc(time: &str) -> String {
    format!("{} UTC", when(time))
}

/// Facts, one a line, with their names in a column of their own.
pub(in crate::commands) struct Facts {
    look: Look,
    lines: Vec<String>,
}

impl Facts {
    pub(in crate::commands) fn new(look: Look) -> Self {
        Self { look, lines: Vec::new() }
    }

    pub(in crate::commands) fn lines(self) -> Vec<String> {
        self.lines
    }

    pub(in crate::commands) fn say(&mut self, name: &str, value: &str) {
        self.toned(name, Tone::Plain, value);
    }

    /// What is left out where there is nothing to say.
    fn some(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.say(name, value);
        }
    }

    fn digest(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.toned(name, Tone::Faint, &format!("sha256 {value}"));
        }
    }

    pub(in crate::commands) fn toned(&mut self, name: &str, tone: Tone, value: &str) {
        let name = single_line(name);
        let name = self.look.paint(Tone::Faint, &format!("{name:NAME$}"));
        self.lines.push(format!("{name}{}", self.look.paint(tone, &single_line(value))));
    }

    /// Content in its own lines.
    pub(in crate::commands) fn content(&mut self, name: &str, content: &str) {
        let mut name = name;
        for line in lines(content) {
            let column = self.look.paint(Tone::Faint, &format!("{name:NAME$}"));
            self.lines.push(format!("{column}{}", self.look.paint(Tone::Strong, &line)));
            name = "";
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn everything_is_told_and_nothing_acts_on_the_terminal() {
        let hostile = "x\u{1b}[2J\u{202e}";
        let detail = json!({
            "id": "S.1", "state": "waiting", "approvals": 1, "quorum": 2, "requester": hostile, "on_behalf_of": hostile,
            "connection": hostile, "database": hostile, "role": hostile, "asked": "2026-11-22T09:35:01.000000Z",
            "expires": "2026-11-22T09:50:01.000000Z", "message": hostile, "rules": [hostile, "b"], "transaction": "open",
            "statement": format!("delete from a\r\nwhere b = '{hostile}'"), "parameters": [null, {"type": "int4", "value": "7"}, hostile],
            "votes": [{"by": hostile, "decision": "approve", "time": "2026-11-22T09:36:01.000000Z", "comment": hostile},
                      {"by": "human:cy", "decision": hostile, "time": hostile, "comment": null}],
            "seen": [{"by": hostile, "time": "2026-11-22T09:36:00.000000Z"}], "used_by": hostile,
            "policy": hostile, "intent": "aa", "request": "bb",
        });
        let lines = lines_of(&detail, Look::default());
        let all = lines.join("\n");
        assert!(!all.contains('\u{1b}') && !all.contains('\u{202e}') && !all.contains('\r'), "{all:?}");
        for said in [
            "approval      S.1\nstate         waiting, 1 of 2 approved\nasked         2026-11-22 09:35:01 UTC\n",
            "statement     delete from a\n              where b = 'x\\x1b[2J\\u{202e}'\n$1            null\n$2            7  (int4)\n",
            "approve       by x\\x1b[2J\\u{202e} at 2026-11-22 09:36:01 UTC: x",
            "request       sha256 bb",
        ] {
            assert!(all.contains(said), "{all}\ndoes not say\n{said}");
        }
    }
}

//! Break-glass for people, in the style of `onrecord show`.

use serde_json::Value;

use crate::commands::approvals::shown::Facts;
use crate::commands::asking::{number, text, when};
use crate::commands::words;
use crate::output::{Look, Tone};

/// Tells one, a fact a line, safe to look at: what it is, each command under it, and how many those were.
pub(super) struct Telling {
    look: Look,
    /// Commands so far, and how many of them would have been held; none if they are not to be had.
    counts: Option<(u64, u64)>,
    begun: bool,
}

impl Telling {
    pub(super) fn new(look: Look) -> Self {
        Self { look, counts: Some((0, 0)), begun: false }
    }

    /// A page of it: of all but the first only the commands are new.
    pub(super) fn page(&mut self, detail: &Value) -> Vec<String> {
        let mut facts = Facts::new(self.look);
        if !std::mem::replace(&mut self.begun, true) {
            what_it_is(&mut facts, detail);
        }
        match (detail.get("commands").and_then(Value::as_array), &mut self.counts) {
            (Some(commands), Some((count, lifted))) => {
                for one in commands {
                    *count += 1;
                    *lifted += u64::from(is(one, "lifted"));
                    command(&mut facts, one);
                }
            }
            _ => self.counts = None,
        }
        facts.lines()
    }

    /// What there is to say once all pages were told.
    pub(super) fn end(&self) -> Vec<String> {
        let mut facts = Facts::new(self.look);
        match self.counts {
            None => facts.toned("commands", Tone::Warning, "they are in the log that this one continues: look there"),
            Some((count, lifted)) => {
                let count = words::counted(count, "command", "commands");
                facts.say("commands", &format!("{count}; {lifted} would have been held"));
            }
        }
        facts.lines()
    }
}

fn what_it_is(facts: &mut Facts, detail: &Value) {
    let of = |key: &str| text(detail, key);
    let utc = |key: &str| format!("{} UTC", when(of(key)));
    facts.say("break-glass", of("id"));
    facts.toned("state", tone(of("state")), &state(detail));
    facts.say("who", &format!("{} ({}, {})", of("opener"), of("known"), of("proof")));
    facts.say("connection", of("connection"));
    facts.say("reason", of("reason"));
    facts.say("opened", &utc("opened"));
    facts.say("until", &utc("until"));
    if !of("closed").is_empty() {
        let by = Some(of("closed_by")).filter(|by| !by.is_empty());
        facts.say("closed", &by.map_or_else(|| utc("closed"), |by| format!("{}, by {by}", utc("closed"))));
    }
    if let Some(review) = detail.get("review").filter(|review| review.is_object()) {
        let (by, finding) = (text(review, "by"), text(review, "finding").replace('_', " "));
        let tone = if finding == "justified" { Tone::Good } else { Tone::Bad };
        let at = when(text(review, "time"));
        facts.toned("review", tone, &format!("{finding}, by {by} at {at} UTC: {}", text(review, "comment")));
    }
}

/// A command under it.
fn command(facts: &mut Facts, one: &Value) {
    let status = text(one, "status");
    let lifted = is(one, "lifted");
    let tone = match (lifted, status) {
        (_, "denied" | "error") => Tone::Bad,
        (true, _) => Tone::Warning,
        (false, _) => Tone::Plain,
    };
    let code = Some(text(one, "code")).filter(|code| !code.is_empty());
    let code = code.map_or_else(String::new, |code| format!(" {code}"));
    let results: Vec<&str> =
        one.get("results").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let results = if results.is_empty() { String::new() } else { format!(", {}", results.join(", ")) };
    let held = if lifted { ", would have been held" } else { "" };
    facts.say("", "");
    facts.say(when(text(one, "time")).get(11..).unwrap_or_default(), text(one, "id"));
    let via = Some(text(one, "via")).filter(|via| !via.is_empty());
    let via = via.map_or_else(String::new, |via| format!("{via}: "));
    let of_database = !text(one, "database").is_empty() || number(one, "rows") > 0;
    let rows = if of_database { format!(", {} rows sent", number(one, "rows")) } else { String::new() };
    facts.toned("", tone, &format!("{via}{status}{code}{results}{rows}{held}"));
    content(facts, one, "statement", |facts, statement| facts.content("", statement));
    content(facts, one, "parameters", |facts, parameters| facts.say("", &format!("with {parameters}")));
    if let Some(streams) = one.get("streams").filter(|streams| streams.is_object()) {
        let [stdin, stdout, stderr] = ["stdin", "stdout", "stderr"].map(|name| number(streams, name));
        let id = text(one, "id");
        let all = stdin.saturating_add(stdout).saturating_add(stderr);
        let kept = match number(streams, "kept") {
            _ if all == 0 => String::new(),
            0 => "; none of it is kept".to_owned(),
            kept if kept < all => format!("; `onrecord output {id}` has the first {kept}"),
            _ => format!("; `onrecord output {id}` has them"),
        };
        facts.say("", &format!("{stdin} bytes in, {stdout} out, {stderr} of errors{kept}"));
    }
    if let Some(file) = one.get("file").filter(|file| file.is_object()) {
        let (read, written) = (number(file, "read"), number(file, "written"));
        let sha256 = Some(text(file, "sha256")).filter(|sha256| !sha256.is_empty());
        let sha256 = sha256.map_or_else(String::new, |sha256| format!(", sha256 {sha256}"));
        facts.say("", &format!("{read} bytes read, {written} written{sha256}"));
    }
}

/// Content of a command, and what of it is missing here.
fn content(facts: &mut Facts, one: &Value, what: &str, say: impl Fn(&mut Facts, &str)) {
    let said = one.get(what).and_then(Value::as_str);
    if let Some(said) = said {
        say(facts, said);
    }
    match (said, is(one, &format!("{what}_shortened"))) {
        (Some(_), true) => {
            let rest = format!("({what}: this is the beginning; `onrecord show {}` has more)", text(one, "id"));
            facts.toned("", Tone::Warning, &rest);
        }
        (None, true) => facts.toned("", Tone::Warning, &format!("({what}: cannot be shown)")),
        (_, false) => {}
    }
}

fn is(one: &Value, key: &str) -> bool {
    one.get(key).and_then(Value::as_bool) == Some(true)
}

/// Where it stands, and why it is over.
pub(super) fn state(one: &Value) -> String {
    match (text(one, "state"), text(one, "how")) {
        ("closed", how) => format!("to be reviewed ({})", how.replace('_', " ")),
        (state, _) => state.to_owned(),
    }
}

/// What a state is to the reader.
pub(super) fn tone(state: &str) -> Tone {
    match state {
        "open" => Tone::Bad,
        "closed" => Tone::Warning,
        "reviewed" => Tone::Good,
        _ => Tone::Faint,
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
            "id": "B", "state": "reviewed", "opener": hostile, "known": "verified", "proof": hostile,
            "connection": hostile, "reason": hostile, "opened": "2026-11-22T09:35:01.000000Z",
            "until": "2026-11-22T10:05:01.000000Z", "closed": "2026-11-22T09:36:01.000000Z", "how": hostile,
            "closed_by": hostile,
            "review": {"by": hostile, "finding": hostile, "comment": hostile, "time": "2026-11-22T09:40:00.000000Z"},
            "commands": [
                {"id": "S.1", "time": "2026-11-22T09:35:30.000000Z", "status": "ok", "rows": 0, "lifted": true,
                 "database": "d", "via": "simple",
                 "statement": format!("update a\r\nset b = '{hostile}'"), "results": [hostile], "parameters": hostile},
                {"id": hostile, "time": hostile, "status": hostile, "code": hostile, "statement": null,
                 "statement_shortened": true, "parameters": "[7", "parameters_shortened": true},
            ],
            "next": 7,
        });
        let mut telling = Telling::new(Look::default());
        let mut all = telling.page(&detail);
        all.extend(telling.page(&json!({"id": "B", "commands": [
            {"id": "S.2", "status": "ok", "via": "exec", "code": "0", "lifted": true,
             "streams": {"stdin": 1, "stdout": 2, "stderr": 3, "kept": 4}},
            {"id": "S.3", "status": "ok", "via": "file", "file": {"read": 0, "written": 7, "sha256": hostile}},
        ]})));
        all.extend(telling.end());
        let all = all.join("\n");
        assert_eq!(all.matches("break-glass   B").count(), 1, "{all}");
        assert!(!all.contains('\u{1b}') && !all.contains('\u{202e}') && !all.contains('\r'), "{all:?}");
        for said in [
            "break-glass   B\nstate         reviewed\nwho           x\\x1b[2J\\u{202e} (verified, ",
            "09:35:30      S.1\n              simple: ok, x\\x1b[2J\\u{202e}, 0 rows sent, would have been held\n              update a\n",
            "(statement: cannot be shown)\n              with [7\n              (parameters: this is the beginning; `onrecord show x",
            "S.2\n              exec: ok 0, would have been held\n              1 bytes in, 2 out, 3 of errors; `onrecord output S.2` has the first 4\n",
            "file: ok\n              0 bytes read, 7 written, sha256 x\\x1b[2J",
            "commands      4 commands; 2 would have been held",
        ] {
            assert!(all.contains(said), "{all}\ndoes not say\n{said}");
        }
    }
}

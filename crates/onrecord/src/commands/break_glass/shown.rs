//! Break-glass for people, in the style of `onrecord show`.

use serde_json::Value;

use crate::commands::approvals::shown::Facts;
use crate::commands::asking::{number, text, when};
use crate::commands::words;
use crate::output::{Look, Tone};

/// Everything that the gateway tells of one, a fact a line, safe to look at.
pub(super) fn lines_of(detail: &Value, look: Look) -> Vec<String> {
    let mut facts = Facts::new(look);
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
    match detail.get("commands").and_then(Value::as_array) {
        None => facts.toned("commands", Tone::Warning, "they are in the log that this one continues: look there"),
        Some(commands) => told(&mut facts, commands, detail.get("more").and_then(Value::as_bool) == Some(true)),
    }
    facts.lines()
}

/// The commands under it.
fn told(facts: &mut Facts, commands: &[Value], more: bool) {
    let lifted = commands.iter().filter(|one| one.get("lifted").and_then(Value::as_bool) == Some(true)).count();
    let count = words::counted(commands.len() as u64, "command", "commands");
    let first = if more { format!("the first {count}; `onrecord commands --break-glass` has all") } else { count };
    facts.say("commands", &format!("{first}; {lifted} would have been held"));
    for one in commands {
        let status = text(one, "status");
        let lifted = one.get("lifted").and_then(Value::as_bool) == Some(true);
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
        facts.toned("", tone, &format!("{status}{code}{results}, {} rows sent{held}", number(one, "rows")));
        match one.get("statement").and_then(Value::as_str) {
            Some(statement) => facts.content("", statement),
            None => facts.toned("", Tone::Faint, "(its text cannot be shown)"),
        }
        if one.get("statement_shortened").and_then(Value::as_bool) == Some(true) {
            facts.toned("", Tone::Warning, "(shortened; `onrecord show` has all of it)");
        }
        if let Some(parameters) = one.get("parameters").and_then(Value::as_str) {
            facts.say("", &format!("with {parameters}"));
        }
    }
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
                 "statement": format!("update a\r\nset b = '{hostile}'"), "results": [hostile], "parameters": hostile},
                {"id": hostile, "time": hostile, "status": hostile, "code": hostile, "statement": null},
            ],
            "more": true,
        });
        let all = lines_of(&detail, Look::default()).join("\n");
        assert!(!all.contains('\u{1b}') && !all.contains('\u{202e}') && !all.contains('\r'), "{all:?}");
        for said in [
            "break-glass   B\nstate         reviewed\nwho           x\\x1b[2J\\u{202e} (verified, ",
            "commands      the first 2 commands; `onrecord commands --break-glass` has all; 1 would have been held\n",
            "09:35:30      S.1\n              ok, x\\x1b[2J\\u{202e}, 0 rows sent, would have been held\n              update a\n",
            "(its text cannot be shown)",
        ] {
            assert!(all.contains(said), "{all}\ndoes not say\n{said}");
        }
    }
}

//! What the record says, through the product's own `onrecord commands`.

use serde_json::Value;

/// The rows of `onrecord commands --output ndjson`, oldest first.
#[derive(Clone, Debug)]
pub struct Record {
    /// One per command.
    pub commands: Vec<Command>,
}

/// One row.
#[derive(Clone, Debug)]
pub struct Command(pub Value);

impl Record {
    /// Reads ndjson.
    #[track_caller]
    pub fn parse(text: &str) -> Record {
        let row = |line: &str| Command(serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in row: {line}")));
        Record { commands: text.lines().map(row).collect() }
    }

    /// The commands on one database.
    pub fn of_database(&self, database: &str) -> Record {
        let here = |c: &&Command| c.str("database") == Some(database);
        Record { commands: self.commands.iter().filter(here).cloned().collect() }
    }

    /// The one command whose text contains `part`.
    #[track_caller]
    pub fn only(&self, part: &str) -> &Command {
        let found: Vec<_> = self.commands.iter().filter(|c| c.text().contains(part)).collect();
        assert_eq!(found.len(), 1, "commands with {part:?}: {found:#?}\nof {:#?}", self.texts());
        found[0]
    }

    /// All texts in order.
    pub fn texts(&self) -> Vec<&str> {
        self.commands.iter().map(Command::text).collect()
    }
}

impl Command {
    /// A string member.
    pub fn str(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// The text, or nothing where the record holds none.
    pub fn text(&self) -> &str {
        self.str("text").unwrap_or("")
    }

    /// The status.
    pub fn status(&self) -> &str {
        self.str("status").unwrap_or("")
    }

    /// SQLSTATE, if there is one.
    pub fn code(&self) -> Option<&str> {
        self.str("code")
    }

    /// Rows returned.
    pub fn rows(&self) -> Option<u64> {
        self.0.get("rows")?.as_u64()
    }

    /// Parameters by their values alone: what is not plain text (bytes) stays JSON.
    pub fn parameters(&self) -> Option<Vec<Option<String>>> {
        let list = self.0.get("parameters")?.as_array()?;
        let value = |p: &Value| match p.get("value") {
            _ if p.is_null() => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(other) => Some(other.to_string()),
            None => Some(p.to_string()),
        };
        Some(list.iter().map(value).collect())
    }

    /// Tags of its results.
    pub fn tags(&self) -> Vec<&str> {
        let results = self.0.get("results").and_then(Value::as_array);
        results.into_iter().flatten().filter_map(|r| r.get("tag")?.as_str()).collect()
    }
}

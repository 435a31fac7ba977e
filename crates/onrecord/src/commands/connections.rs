//! `onrecord connections list`.

use clap::Subcommand;
use serde_json::json;

use super::Context;
use crate::Failure;
use crate::config::{Connection, ConnectionKind};
use crate::output::{Cell, Column, Format, Table, Tone};

/// `connections ...`.
#[derive(Debug, Subcommand)]
pub enum Connections {
    /// List the connections of the configuration
    List,
}

impl Connections {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        let Self::List = self;
        let config = context.load()?;
        let console = &mut context.console;
        if console.format() != Format::Table {
            return console.json_list(config.connections.iter().map(|(name, connection)| {
                Ok(json!({
                    "name": name.as_str(),
                    "kind": connection.kind.as_str(),
                    "address": connection.address.to_string(),
                    "database": connection.database,
                    "databases": connection.databases,
                    "user": connection.user,
                    "tls": encryption(connection),
                    "durability": connection.durability.to_string(),
                    "identities": strings(&connection.identities),
                    "groups": connection.groups,
                }))
            }));
        }
        let mut table = Table::new([
            Column::text("NAME"),
            Column::text("KIND"),
            Column::flexible("ADDRESS"),
            Column::flexible("DATABASE"),
            Column::text("TLS"),
            Column::text("DURABILITY"),
            Column::flexible("IDENTITIES"),
        ]);
        for (name, connection) in &config.connections {
            table.row([
                Cell::toned(Tone::Strong, name.as_str()),
                Cell::new(connection.kind.as_str()),
                Cell::new(connection.address.to_string()),
                Cell::new(&connection.database),
                Cell::new(encryption(connection)),
                Cell::new(connection.durability.to_string()),
                match who(connection) {
                    who if who.is_empty() => Cell::toned(Tone::Warning, "nobody"),
                    who => Cell::new(who.join(", ")),
                },
            ]);
        }
        if table.is_empty() {
            console.line("No connections. Add a [connections.NAME] table to the configuration.")?;
        }
        Ok(console.table(&table)?)
    }
}

/// Who may use it: identities and groups.
fn who(connection: &Connection) -> Vec<String> {
    let groups = connection.groups.iter().map(|group| format!("group {group}"));
    strings(&connection.identities).into_iter().chain(groups).collect()
}

/// How the way to the resource is kept from others.
fn encryption(connection: &Connection) -> String {
    match connection.kind {
        ConnectionKind::Postgres => connection.tls().to_string(),
        ConnectionKind::Ssh => "host-key".to_owned(),
    }
}

fn strings(names: &[model::IdentityName]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

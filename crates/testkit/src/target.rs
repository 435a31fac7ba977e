//! Where a client connects: PostgreSQL itself or a gateway before it. Tests are written against
//! this, so that the direct run and the run through the gateway differ in the address only.

use std::path::PathBuf;
use std::process::Command;

/// An address with what is needed to log in.
#[derive(Clone, Debug)]
pub struct Target {
    /// Always loopback.
    pub host: String,
    /// The port.
    pub port: u16,
    /// User name at the target.
    pub user: String,
    /// Password at the target.
    pub password: String,
    /// Database name as this target wants it (`app/reporting` at a gateway).
    pub database: String,
    /// TLS or not.
    pub tls: Tls,
}

/// Whether a client encrypts.
#[derive(Clone, Debug)]
pub enum Tls {
    /// Plain text.
    Off,
    /// Encrypted, the server's name checked against this certificate authority.
    VerifyFull(PathBuf),
}

impl Target {
    /// The same target over TLS.
    pub fn with_tls(&self, authority: PathBuf) -> Target {
        Target { tls: Tls::VerifyFull(authority), ..self.clone() }
    }

    /// The same target with another database.
    pub fn with_database(&self, database: &str) -> Target {
        Target { database: database.to_owned(), ..self.clone() }
    }

    /// The same target as another user.
    pub fn with_user(&self, user: &str, password: &str) -> Target {
        Target { user: user.to_owned(), password: password.to_owned(), ..self.clone() }
    }

    /// Sets libpq's environment variables, and nothing of the surrounding environment's own.
    pub fn libpq<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        for (key, _) in std::env::vars_os() {
            if key.to_str().is_some_and(|k| k.starts_with("PG")) {
                command.env_remove(key);
            }
        }
        command
            .env("PGHOST", &self.host)
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", &self.user)
            .env("PGPASSWORD", &self.password)
            .env("PGDATABASE", &self.database)
            .env("PGGSSENCMODE", "disable")
            .env("PGCONNECT_TIMEOUT", "60")
            .env("PGPASSFILE", "/dev/null")
            .env("PSQLRC", "/dev/null")
            .env("PSQL_HISTORY", "/dev/null");
        match &self.tls {
            Tls::Off => command.env("PGSSLMODE", "disable"),
            Tls::VerifyFull(ca) => command.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", ca),
        }
    }
}

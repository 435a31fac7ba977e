//! Stands in for `bindgen` where `pg_query` is built.
//!
//! `bindgen` reads C headers with libclang, which a machine with only Rust and a C compiler does not have. `pg_query` uses
//! few declarations of one header: they are written by hand in `declarations.rs`, next to the C that they were written
//! from. The build fails where the header says otherwise.
//!
//! Not for anything else: no other header can be read with this.

mod declarations;

use std::fmt;
use std::path::{Path, PathBuf};

use declarations::{C, RUST, VERSION};

/// What `pg_query`'s build script calls.
#[derive(Debug, Default)]
pub struct Builder {
    header: PathBuf,
}

impl Builder {
    /// The header to declare in Rust.
    #[must_use]
    pub fn header(mut self, path: impl Into<String>) -> Self {
        self.header = PathBuf::from(path.into());
        self
    }

    /// Gives the declarations.
    ///
    /// # Errors
    /// The header is not there, or not the one that they were written from.
    pub fn generate(self) -> Result<Bindings, BindgenError> {
        let deparse = self.header.with_file_name("postgres_deparse.h");
        let mut text = String::new();
        for header in [&self.header, &deparse] {
            let read = std::fs::read_to_string(header);
            text += &read.map_err(|error| BindgenError(format!("{} cannot be read: {error}", header.display())))?;
        }
        let text = squeezed(&text);
        if let Some(missing) = C.iter().find(|wanted| !text.contains(&squeezed(wanted))) {
            return Err(BindgenError(format!(
                "{} does not have what stand-ins/bindgen/src/declarations.rs was written from; write it anew. Missing: {missing}",
                self.header.display()
            )));
        }
        let version = text.split_once(VERSION).and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
        let version: u32 =
            version.ok_or_else(|| BindgenError(format!("{} has no {VERSION}", self.header.display())))?;
        Ok(Bindings(format!("pub const {VERSION}: u32 = {version};\n{RUST}")))
    }
}

/// Declarations in Rust.
#[derive(Debug)]
pub struct Bindings(String);

impl Bindings {
    /// Writes them to a file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_to_file(&self, path: impl AsRef<Path>) -> std::io::Result<()> {
        std::fs::write(path, &self.0)
    }
}

/// Why there are no declarations.
#[derive(Debug)]
pub struct BindgenError(String);

impl fmt::Display for BindgenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BindgenError {}

/// A C text without comments to the end of the line, and with one space for any white space.
fn squeezed(c: &str) -> String {
    let code = c.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    code.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

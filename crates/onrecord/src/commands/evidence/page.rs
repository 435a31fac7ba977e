//! `verify.html`: the page that verifies a bundle in a browser, from the disk and without a network.
//!
//! It is put together from a page that people can read and the verifier as WASM, deflated and in base64. The page's policy
//! names its own script and style by their digests, so that a browser runs nothing else and connects to nothing.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use flate2::Compression;
use flate2::write::DeflateEncoder;
use sha2::{Digest as _, Sha256};

use super::super::Context;
use crate::Failure;
use crate::output::Format;

const PAGE: &str = include_str!("verify.html");
const VERIFIER: &[u8] = include_bytes!("verify.wasm");

/// Arguments of `evidence page`.
#[derive(Debug, Args)]
pub struct Page {
    /// The file to write; it must not exist yet
    #[arg(long, value_name = "FILE", default_value = "verify.html")]
    out: PathBuf,
}

impl Page {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        let failed = |error| Failure::new(format_args!("cannot write {}: {error}", self.out.display()));
        let mut file = OpenOptions::new().write(true).create_new(true).open(&self.out).map_err(failed)?;
        file.write_all(&page()).map_err(failed)?;
        if context.console.format() == Format::Table {
            context.console.line(&format!("{}: open it in a browser", self.out.display()))?;
        } else {
            context.console.json(&serde_json::json!({"file": self.out}))?;
        }
        Ok(())
    }
}

/// The page.
pub fn page() -> Vec<u8> {
    static WHOLE: LazyLock<String> = LazyLock::new(whole);
    WHOLE.clone().into_bytes()
}

fn whole() -> String {
    let policy = format!(
        "default-src 'none'; script-src {} 'wasm-unsafe-eval'; style-src {}; base-uri 'none'; form-action 'none'",
        digest("<script>", "</script>"),
        digest("<style>", "</style>")
    );
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    // Writing to memory cannot fail.
    let verifier = encoder.write_all(VERIFIER).and_then(|()| encoder.finish()).unwrap_or_default();
    PAGE.replacen("{{policy}}", &policy, 1).replacen("{{verifier}}", &STANDARD.encode(verifier), 1)
}

/// What a policy calls the text between two marks of the page.
fn digest(from: &str, to: &str) -> String {
    let text = PAGE.split_once(from).and_then(|(_, rest)| rest.split_once(to)).map_or("", |(text, _)| text);
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_page_is_whole_and_loads_nothing() {
        let page = whole();
        assert!(!page.contains("{{"));
        assert_eq!(page.matches("<script>").count(), 1);
        for foreign in ["http:", "https:", "src=", "href=", "@import", "url(", "fetch(", "innerHTML", "eval("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert!(page.contains("default-src 'none'; script-src 'sha256-"));
    }
}

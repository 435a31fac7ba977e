//! `verify.html`: the page that verifies a bundle in a browser, from the disk and without a network.
//!
//! It is put together from a page that people can read and the verifier as WASM, deflated and in base64. The page's policy
//! names its own script and style by their digests, so that a browser runs nothing else and connects to nothing.

use std::io::Write as _;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::DeflateEncoder;
use sha2::{Digest as _, Sha256};

const PAGE: &str = include_str!("verify.html");
const VERIFIER: &[u8] = include_bytes!("verify.wasm");

/// The page.
pub(super) fn page() -> Vec<u8> {
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

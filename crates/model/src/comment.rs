//! What the comment of a statement claims, in the form of sqlcommenter: `/*key='value',key='value'*/`, first or last in
//! the text, keys and values URL-encoded, a quote in a value as `\'`.
//!
//! Source: <https://google.github.io/sqlcommenter/spec/>. Nobody checks what it says, so it is a claim, like
//! `application_name`; it is derived from the text each time, and erased with it.

use crate::{Claim, Label};

/// Claims of one comment; what comes after them is not read.
pub const COMMENT_CLAIMS_MAX: usize = 32;
/// Bytes of a comment; a longer one claims nothing.
pub const COMMENT_BYTES_MAX: usize = 8 * 1024;

/// The claims of a statement's first or last comment. A comment that is not wholly in the form claims nothing.
#[must_use]
pub fn comment_claims(text: &[u8]) -> Vec<Claim> {
    last(text).and_then(claims).or_else(|| first(text).and_then(claims)).unwrap_or_default()
}

/// The inside of the comment that the text ends with, but for `;` and spaces.
fn last(text: &[u8]) -> Option<&[u8]> {
    let end = text.iter().rposition(|&byte| !(byte == b';' || byte.is_ascii_whitespace()))?;
    let text = text.get(..=end)?.strip_suffix(b"*/")?;
    let window = text.get(text.len().saturating_sub(COMMENT_BYTES_MAX)..)?;
    let begin = window.windows(2).rposition(|two| two == b"/*")?;
    window.get(begin + 2..)
}

/// The inside of the comment that the text begins with.
fn first(text: &[u8]) -> Option<&[u8]> {
    let text = text.trim_ascii_start().strip_prefix(b"/*")?;
    let window = text.get(..text.len().min(COMMENT_BYTES_MAX))?;
    let end = window.windows(2).position(|two| two == b"*/")?;
    window.get(..end)
}

fn claims(comment: &[u8]) -> Option<Vec<Claim>> {
    let mut claims = Vec::new();
    let mut rest = comment.trim_ascii();
    while claims.len() < COMMENT_CLAIMS_MAX {
        let at = rest.iter().position(|&byte| byte == b'=')?;
        let (key, after) = rest.split_at_checked(at)?;
        let key = key.trim_ascii();
        let value = after.get(1..)?.trim_ascii_start().strip_prefix(b"'")?;
        let end = closing(value)?;
        let (value, after) = value.split_at_checked(end)?;
        if key.is_empty() || key.iter().any(|&byte| byte.is_ascii_whitespace() || byte == b'\'') {
            return None;
        }
        claims.push(Claim { name: Label::new(&decoded(key)), value: Label::new(&decoded(&unescaped(value))) });
        rest = after.get(1..)?.trim_ascii();
        match rest.split_first() {
            None => return Some(claims),
            Some((b',', more)) => rest = more,
            Some(_) => return None,
        }
    }
    Some(claims)
}

/// Where the quote stands that ends a value.
fn closing(value: &[u8]) -> Option<usize> {
    let mut escaped = false;
    value.iter().position(|&byte| {
        let ends = byte == b'\'' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

fn unescaped(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut escaped = false;
    for &byte in value {
        if byte == b'\\' && !escaped {
            escaped = true;
        } else {
            out.push(byte);
            escaped = false;
        }
    }
    out
}

/// Undoes percent-encoding (RFC 3986, 2.1). What is not encoded stays.
fn decoded(text: &[u8]) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'%', [high, low, more @ ..]) => match (digit(high), digit(low)) {
                (Some(high), Some(low)) => {
                    out.push(high * 16 + low);
                    rest = more;
                }
                _ => out.push(byte),
            },
            _ => out.push(byte),
        }
    }
    out
}

/// What the fuzzer runs: any bytes as a text.
#[doc(hidden)]
pub fn fuzz_comment(text: &[u8]) {
    assert!(comment_claims(text).len() <= COMMENT_CLAIMS_MAX, "claims are bounded");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        comment_claims(text.as_bytes()).into_iter().map(|c| (c.name.to_string(), c.value.to_string())).collect()
    }

    fn of(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_specification_s_example_is_read() {
        let text = "SELECT * FROM FOO /*action='%2Fparam*d',controller='index',framework='spring',\
                    traceparent='00-5bd66ef5095369c7b0d1f8f4bd33716a-c532cb4098ac3dd2-01',\
                    tracestate='congo%3Dt61rcWkgMzE%2Crojo%3D00f067aa0ba902b7'*/";
        assert_eq!(
            read(text),
            of(&[
                ("action", "/param*d"),
                ("controller", "index"),
                ("framework", "spring"),
                ("traceparent", "00-5bd66ef5095369c7b0d1f8f4bd33716a-c532cb4098ac3dd2-01"),
                ("tracestate", "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"),
            ])
        );
    }

    #[test]
    fn first_or_last_and_escaped() {
        assert_eq!(read("/* a='1' */ select 1"), of(&[("a", "1")]));
        assert_eq!(read("select 1 /*a='it\\'s',b=''*/ ;\n"), of(&[("a", "it's"), ("b", "")]));
        assert_eq!(read("select '/*a=''x''*/'; select 2 /*b='2'*/"), of(&[("b", "2")]));
    }

    #[test]
    fn other_comments_claim_nothing() {
        for text in [
            "",
            "*/",
            "/*/",
            "/**/",
            "select 1",
            "select 1 /* hello */",
            "select 1 /*a=1*/",
            "select 1 /*a='1*/",
            "select 1 /*a='1' b='2'*/",
            "select 1 /*='1'*/",
            "select 1 /*a b='1'*/",
            "select 1 -- a='1'",
        ] {
            assert_eq!(read(text), [], "{text}");
        }
    }

    #[test]
    fn the_corpus_is_read_without_a_panic() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/comment");
        let texts: Vec<_> = std::fs::read_dir(corpus).into_iter().flatten().flatten().collect();
        assert!(texts.len() > 5);
        texts.iter().for_each(|text| fuzz_comment(&std::fs::read(text.path()).unwrap_or_default()));
    }

    #[test]
    fn it_is_bounded() {
        let many: Vec<String> = (0..100).map(|n| format!("k{n}='v'")).collect();
        assert_eq!(comment_claims(format!("select 1 /*{}*/", many.join(",")).as_bytes()).len(), COMMENT_CLAIMS_MAX);
        let long = format!("select 1 /*a='{}'*/", "x".repeat(COMMENT_BYTES_MAX));
        assert_eq!(comment_claims(long.as_bytes()), []);
    }
}

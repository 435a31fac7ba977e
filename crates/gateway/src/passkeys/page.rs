//! The page on which people make passkeys and decide. Three files in the program, nothing from elsewhere; everything that
//! the page shows comes over the API, with the bearer's token, and is put into it as text.

use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};

/// Scripts and styles are files of their own, so that none that somebody smuggled in is run.
const HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// A file of the page, if this is the path of one.
pub(crate) fn page(path: &str) -> Option<Response<Full<Bytes>>> {
    let (text, kind) = match path {
        "/approve" => (include_str!("approve.html"), "text/html; charset=utf-8"),
        "/approve.js" => (include_str!("approve.js"), "text/javascript; charset=utf-8"),
        "/approve.css" => (include_str!("approve.css"), "text/css; charset=utf-8"),
        _ => return None,
    };
    let mut answer = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    Some(answer)
}

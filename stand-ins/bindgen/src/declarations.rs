//! What `pg_query` uses of `pg_query.h` and `postgres_deparse.h`: the C, and the same in Rust.

/// The macro that is the parser's version.
pub(crate) const VERSION: &str = "PG_VERSION_NUM";

/// The C declarations, each in one line. Enumerations of `pg_query_scan_tokens.h` without negative values are `unsigned int`
/// for the C compilers that Rust supports on Unix.
pub(crate) const C: &[&str] = &[
    "typedef struct { char* message; char* funcname; char* filename; int lineno; int cursorpos; char* context; } PgQueryError;",
    "typedef struct { int length; bool *items; PgQueryError* error; } PgQueryIsUtilityResult;",
    "typedef struct { size_t len; char* data; } PgQueryProtobuf;",
    "typedef struct { PgQueryProtobuf pbuf; char* stderr_buffer; PgQueryError* error; } PgQueryScanResult;",
    "typedef struct { int start; int end; PgQueryToken token; PgQueryKeywordKind keyword_kind; } PgQueryScanToken;",
    "typedef struct { PgQueryScanToken* tokens; int n_tokens; PgQueryError* error; } PgQueryScanTokensResult;",
    "typedef struct { PgQueryProtobuf parse_tree; char* stderr_buffer; PgQueryError* error; } PgQueryProtobufParseResult;",
    "typedef struct { int stmt_location; int stmt_len; } PgQuerySplitStmt;",
    "typedef struct { PgQuerySplitStmt **stmts; int n_stmts; char* stderr_buffer; PgQueryError* error; } PgQuerySplitResult;",
    "typedef struct { char* query; PgQueryError* error; } PgQueryDeparseResult;",
    "typedef struct { PostgresDeparseComment **comments; size_t comment_count; PgQueryError* error; } PgQueryDeparseCommentsResult;",
    "typedef struct { char* plpgsql_funcs; PgQueryError* error; } PgQueryPlpgsqlParseResult;",
    "typedef struct { uint64_t fingerprint; char* fingerprint_str; char* stderr_buffer; PgQueryError* error; } PgQueryFingerprintResult;",
    "typedef struct { char* normalized_query; PgQueryError* error; } PgQueryNormalizeResult;",
    "typedef struct { PgQueryProtobuf summary; char* stderr_buffer; PgQueryError* error; } PgQuerySummaryParseResult;",
    "typedef struct PostgresDeparseComment { int match_location; int newlines_before_comment; int newlines_after_comment; char *str; } PostgresDeparseComment;",
    "typedef struct PostgresDeparseOpts { PostgresDeparseComment **comments; size_t comment_count; bool pretty_print; int indent_size; int max_line_length; bool trailing_newline; bool commas_start_of_line; } PostgresDeparseOpts;",
    "PgQueryDeparseCommentsResult pg_query_deparse_comments_for_query(const char *query);",
    "PgQueryDeparseResult pg_query_deparse_protobuf_opts(PgQueryProtobuf parse_tree, struct PostgresDeparseOpts opts);",
    "PgQueryFingerprintResult pg_query_fingerprint_opts(const char* input, int parser_options, int fingerprint_options);",
    "void pg_query_free_deparse_comments_result(PgQueryDeparseCommentsResult result);",
    "void pg_query_free_deparse_result(PgQueryDeparseResult result);",
    "void pg_query_free_fingerprint_result(PgQueryFingerprintResult result);",
    "void pg_query_free_is_utility_result(PgQueryIsUtilityResult result);",
    "void pg_query_free_normalize_result(PgQueryNormalizeResult result);",
    "void pg_query_free_plpgsql_parse_result(PgQueryPlpgsqlParseResult result);",
    "void pg_query_free_protobuf_parse_result(PgQueryProtobufParseResult result);",
    "void pg_query_free_scan_result(PgQueryScanResult result);",
    "void pg_query_free_scan_tokens_result(PgQueryScanTokensResult result);",
    "void pg_query_free_split_result(PgQuerySplitResult result);",
    "void pg_query_free_summary_parse_result(PgQuerySummaryParseResult result);",
    "PgQueryIsUtilityResult pg_query_is_utility_stmt(const char *query);",
    "PgQueryNormalizeResult pg_query_normalize(const char* input);",
    "PgQueryPlpgsqlParseResult pg_query_parse_plpgsql(const char* input);",
    "PgQueryProtobufParseResult pg_query_parse_protobuf_opts(const char* input, int parser_options);",
    "PgQueryScanResult pg_query_scan(const char* input);",
    "PgQueryScanTokensResult pg_query_scan_tokens(const char* input);",
    "PgQuerySplitResult pg_query_split_with_parser(const char *input);",
    "PgQuerySplitResult pg_query_split_with_scanner(const char *input);",
    "PgQuerySummaryParseResult pg_query_summary(const char* input, int parser_options, int truncate_limit);",
];

/// The same in Rust.
pub(crate) const RUST: &str = r#"
use std::ffi::{c_char, c_int, c_uint};

#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PostgresDeparseComment {
    pub match_location: c_int,
    pub newlines_before_comment: c_int,
    pub newlines_after_comment: c_int,
    pub str_: *mut c_char,
}

#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PostgresDeparseOpts {
    pub comments: *mut *mut PostgresDeparseComment,
    pub comment_count: usize,
    pub pretty_print: bool,
    pub indent_size: c_int,
    pub max_line_length: c_int,
    pub trailing_newline: bool,
    pub commas_start_of_line: bool,
}

#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQueryError {
    pub message: *mut c_char,
    pub funcname: *mut c_char,
    pub filename: *mut c_char,
    pub lineno: c_int,
    pub cursorpos: c_int,
    pub context: *mut c_char,
}

#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQueryIsUtilityResult {
    pub length: c_int,
    pub items: *mut bool,
    pub error: *mut PgQueryError,
}

#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQueryProtobuf {
    pub len: usize,
    pub data: *mut c_char,
}

#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQueryScanResult {
    pub pbuf: PgQueryProtobuf,
    pub stderr_buffer: *mut c_char,
    pub error: *mut PgQueryError,
}

#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQueryScanToken {
    pub start: c_int,
    pub end: c_int,
    pub token: c_uint,
    pub keyword_kind: c_uint,
}

#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQueryScanTokensResult {
    pub tokens: *mut PgQueryScanToken,
    pub n_tokens: c_int,
    pub error: *mut PgQueryError,
}

#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQueryProtobufParseResult {
    pub parse_tree: PgQueryProtobuf,
    pub stderr_buffer: *mut c_char,
    pub error: *mut PgQueryError,
}

#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQuerySplitStmt {
    pub stmt_location: c_int,
    pub stmt_len: c_int,
}

#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQuerySplitResult {
    pub stmts: *mut *mut PgQuerySplitStmt,
    pub n_stmts: c_int,
    pub stderr_buffer: *mut c_char,
    pub error: *mut PgQueryError,
}

#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQueryDeparseResult {
    pub query: *mut c_char,
    pub error: *mut PgQueryError,
}

#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQueryDeparseCommentsResult {
    pub comments: *mut *mut PostgresDeparseComment,
    pub comment_count: usize,
    pub error: *mut PgQueryError,
}

#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQueryPlpgsqlParseResult {
    pub plpgsql_funcs: *mut c_char,
    pub error: *mut PgQueryError,
}

#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQueryFingerprintResult {
    pub fingerprint: u64,
    pub fingerprint_str: *mut c_char,
    pub stderr_buffer: *mut c_char,
    pub error: *mut PgQueryError,
}

#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQueryNormalizeResult {
    pub normalized_query: *mut c_char,
    pub error: *mut PgQueryError,
}

#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQuerySummaryParseResult {
    pub summary: PgQueryProtobuf,
    pub stderr_buffer: *mut c_char,
    pub error: *mut PgQueryError,
}

unsafe extern "C" {
    pub fn pg_query_deparse_comments_for_query(query: *const c_char) -> PgQueryDeparseCommentsResult;
    pub fn pg_query_deparse_protobuf_opts(parse_tree: PgQueryProtobuf, opts: PostgresDeparseOpts) -> PgQueryDeparseResult;
    pub fn pg_query_fingerprint_opts(input: *const c_char, parser_options: c_int, fingerprint_options: c_int) -> PgQueryFingerprintResult;
    pub fn pg_query_free_deparse_comments_result(result: PgQueryDeparseCommentsResult);
    pub fn pg_query_free_deparse_result(result: PgQueryDeparseResult);
    pub fn pg_query_free_fingerprint_result(result: PgQueryFingerprintResult);
    pub fn pg_query_free_is_utility_result(result: PgQueryIsUtilityResult);
    pub fn pg_query_free_normalize_result(result: PgQueryNormalizeResult);
    pub fn pg_query_free_plpgsql_parse_result(result: PgQueryPlpgsqlParseResult);
    pub fn pg_query_free_protobuf_parse_result(result: PgQueryProtobufParseResult);
    pub fn pg_query_free_scan_result(result: PgQueryScanResult);
    pub fn pg_query_free_scan_tokens_result(result: PgQueryScanTokensResult);
    pub fn pg_query_free_split_result(result: PgQuerySplitResult);
    pub fn pg_query_free_summary_parse_result(result: PgQuerySummaryParseResult);
    pub fn pg_query_is_utility_stmt(query: *const c_char) -> PgQueryIsUtilityResult;
    pub fn pg_query_normalize(input: *const c_char) -> PgQueryNormalizeResult;
    pub fn pg_query_parse_plpgsql(input: *const c_char) -> PgQueryPlpgsqlParseResult;
    pub fn pg_query_parse_protobuf_opts(input: *const c_char, parser_options: c_int) -> PgQueryProtobufParseResult;
    pub fn pg_query_scan(input: *const c_char) -> PgQueryScanResult;
    pub fn pg_query_scan_tokens(input: *const c_char) -> PgQueryScanTokensResult;
    pub fn pg_query_split_with_parser(input: *const c_char) -> PgQuerySplitResult;
    pub fn pg_query_split_with_scanner(input: *const c_char) -> PgQuerySplitResult;
    pub fn pg_query_summary(input: *const c_char, parser_options: c_int, truncate_limit: c_int) -> PgQuerySummaryParseResult;
}
"#;

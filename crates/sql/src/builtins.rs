//! What is known of PostgreSQL's own functions, operators and types.
//!
//! The lists are data (`data/`, with the query that made them); a name that is on none is not known. Which function an
//! unqualified name means is the server's to say: one of the same name in another schema can be a better match for its
//! arguments. That is a blind spot, and named in docs/facts.md.

use std::collections::HashSet;
use std::sync::LazyLock;

use model::{Effect, Opaque};

/// What a call of a function does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Computes or reads; no more.
    Pure,
    /// These effects, which are the whole.
    Effects(&'static [Effect]),
    /// These effects, and for this reason they are not the whole.
    Opaque(&'static [Effect], &'static [Opaque]),
}

/// What can be said of a function that nothing is known of.
pub(crate) const UNKNOWN: Call = Call::Opaque(&[Effect::Unknown], &[Opaque::Function]);

/// What a call of the function of this name in `pg_catalog` does.
pub(crate) fn function(name: &str) -> Call {
    if FUNCTIONS.contains(name) {
        return Call::Pure;
    }
    match name {
        "nextval" | "setval" => Call::Effects(&[Effect::Write]),
        "currval" | "lastval" => Call::Effects(&[Effect::Read]),
        "pg_notify" => Call::Effects(&[Effect::Session, Effect::Write]),
        "setseed" | "txid_current" | "pg_current_xact_id" => Call::Effects(&[Effect::Session]),
        "set_config" => Call::Opaque(&[Effect::Session], &[Opaque::Settings]),
        _ if name.starts_with("pg_advisory_") || name.starts_with("pg_try_advisory_") => {
            Call::Effects(&[Effect::Session])
        }
        "lo_import"
        | "lo_export"
        | "pg_stat_file"
        | "pg_read_file"
        | "pg_read_binary_file"
        | "pg_read_file_old"
        | "pg_hba_file_rules"
        | "pg_ident_file_mappings"
        | "pg_show_all_file_settings"
        | "pg_current_logfile" => FILES,
        _ if name.starts_with("pg_ls_") => FILES,
        _ => UNKNOWN,
    }
}

const FILES: Call = Call::Opaque(&[Effect::Unknown], &[Opaque::Function, Opaque::File]);

/// Whether `pg_catalog` has an operator of this name. All of them compute.
pub(crate) fn operator(name: &str) -> bool {
    OPERATORS.contains(name)
}

/// Whether `pg_catalog` has a type of this name whose input runs nobody's code.
pub(crate) fn data_type(name: &str) -> bool {
    TYPES.contains(name)
}

/// Whether this is an operator class of `pg_catalog` that statements name.
pub(crate) fn operator_class(name: &str) -> bool {
    matches!(
        name,
        "text_ops"
            | "text_pattern_ops"
            | "varchar_ops"
            | "varchar_pattern_ops"
            | "bpchar_ops"
            | "bpchar_pattern_ops"
            | "int4_ops"
            | "int8_ops"
            | "uuid_ops"
            | "date_ops"
            | "timestamp_ops"
            | "timestamptz_ops"
            | "numeric_ops"
            | "inet_ops"
            | "range_ops"
            | "array_ops"
            | "tsvector_ops"
            | "jsonb_ops"
            | "jsonb_path_ops"
    )
}

/// Whether a setting changes neither what a later statement names nor who may do what, whatever its value.
#[must_use]
pub fn harmless_setting(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SETTINGS.contains(&name.as_str())
        || ["enable_", "jit", "geqo", "max_parallel_", "tcp_", "vacuum_cost_"]
            .iter()
            .any(|start| name.starts_with(start))
}

/// Settings that a client may change without a statement naming, calling or being allowed anything else: time-outs, how
/// values are printed and read, how plans are made. All others are taken to change that.
const SETTINGS: &[&str] = &[
    "application_name",
    "bytea_output",
    "client_connection_check_interval",
    "client_min_messages",
    "commit_delay",
    "cpu_index_tuple_cost",
    "cpu_operator_cost",
    "cpu_tuple_cost",
    "cursor_tuple_fraction",
    "datestyle",
    "deadlock_timeout",
    "default_statistics_target",
    "effective_cache_size",
    "effective_io_concurrency",
    "extra_float_digits",
    "from_collapse_limit",
    "hash_mem_multiplier",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "intervalstyle",
    "join_collapse_limit",
    "lc_messages",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "lock_timeout",
    "logical_decoding_work_mem",
    "maintenance_io_concurrency",
    "maintenance_work_mem",
    "parallel_leader_participation",
    "parallel_setup_cost",
    "parallel_tuple_cost",
    "plan_cache_mode",
    "random_page_cost",
    "seed",
    "seq_page_cost",
    "statement_timeout",
    "synchronous_commit",
    "temp_buffers",
    "timezone",
    "track_io_timing",
    "transaction_timeout",
    "work_mem",
    "xmlbinary",
];

static FUNCTIONS: LazyLock<HashSet<&str>> = LazyLock::new(|| include_str!("../data/functions.txt").lines().collect());
static OPERATORS: LazyLock<HashSet<&str>> = LazyLock::new(|| include_str!("../data/operators.txt").lines().collect());
static TYPES: LazyLock<HashSet<&str>> = LazyLock::new(|| include_str!("../data/types.txt").lines().collect());

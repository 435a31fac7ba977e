-- Makes the lists of what is known of PostgreSQL's own functions, operators and types:
--
--   psql -XAtq -v what=functions -f builtins.sql > functions.txt
--   psql -XAtq -v what=operators -f builtins.sql > operators.txt
--   psql -XAtq -v what=types     -f builtins.sql > types.txt
--
-- on a freshly made cluster. The lists here are of PostgreSQL 15.18; run on a newer one, they may only be replaced after
-- somebody has read what is new. A name that is on no list is not known, which is the safe side.
--
-- A function is on the list if no function in pg_catalog of that name
--   * is volatile, but for those that are named below because they only read,
--   * is for internal use: trigger functions, handlers, input functions (those run code of user-defined types),
--   * is not for everybody to execute,
--   * runs statements that come in as text or by name, reads files, reads other sessions, or begins a transaction id.
\if :{?what}
\else
\set what functions
\endif
select set_config('my.what', :'what', false) \g /dev/null
with own as (
    select p.proname as name,
           bool_or(p.provolatile = 'v') as volatile,
           bool_or(p.prokind = 'p') as procedure,
           bool_or(p.proacl is not null) as restricted,
           bool_or(p.prorettype in ('internal'::regtype, 'trigger'::regtype, 'event_trigger'::regtype,
                                    'language_handler'::regtype, 'fdw_handler'::regtype,
                                    'index_am_handler'::regtype, 'tsm_handler'::regtype, 'table_am_handler'::regtype)
                   or 'internal'::regtype = any (p.proargtypes)
                   or 'cstring'::regtype = any (p.proargtypes)) as internal
      from pg_proc p
     where p.pronamespace = 'pg_catalog'::regnamespace
     group by p.proname),
lists as (
    select 'functions' as what, name from own
     where not procedure and not restricted and not internal
       and (not volatile or name in (
            'clock_timestamp', 'current_query', 'gen_random_uuid', 'pg_blocking_pids', 'pg_collation_actual_version',
            'pg_current_wal_flush_lsn', 'pg_current_wal_insert_lsn', 'pg_current_wal_lsn', 'pg_database_size',
            'pg_indexes_size', 'pg_is_in_recovery', 'pg_is_wal_replay_paused', 'pg_jit_available',
            'pg_last_wal_receive_lsn', 'pg_last_wal_replay_lsn', 'pg_last_xact_replay_timestamp',
            'pg_notification_queue_usage', 'pg_partition_ancestors', 'pg_partition_tree', 'pg_relation_size',
            'pg_sequence_last_value', 'pg_sleep', 'pg_sleep_for', 'pg_sleep_until', 'pg_table_size',
            'pg_tablespace_size', 'pg_total_relation_size', 'pg_xact_commit_timestamp', 'pg_xact_status', 'random',
            'timeofday', 'txid_status'))
       and name !~ '^pg_stat_get_(activity|backend)'
       and name !~ '_to_xml(schema|_and_xmlschema)?$'          -- run a statement that comes in as text, or a table by name
       and name !~ '_populate_record'                          -- run input functions of a row's types
       and name !~ '^pg_event_trigger_'
       and name !~ '^binary_upgrade_'
       and name not in ('ts_rewrite', 'ts_stat',               -- run a statement that comes in as text
                        'txid_current', 'pg_current_xact_id',  -- begin a transaction id
                        'pg_cursor', 'pg_prepared_statement', 'pg_prepared_xact',
                        'pg_available_extensions', 'pg_available_extension_versions', 'pg_extension_update_paths',
                        'pg_config', 'pg_tablespace_databases', 'satisfies_hash_partition')
    union all
    select distinct 'operators', oprname::text from pg_operator where oprnamespace = 'pg_catalog'::regnamespace
    union all
    select 'types', typname from pg_type
     where typnamespace = 'pg_catalog'::regnamespace and typtype in ('b', 'r', 'm') and typname !~ '^_')
select name from lists where what = current_setting('my.what') order by name collate "C";

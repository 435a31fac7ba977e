# The catalogue with psql. It speaks the simple protocol only, so there are no parameters and no
# pipelines; several statements go in one message with `\;`. What came of each statement is what
# psql's own variables say.
set -eu

"$PSQL" -XAtq <<'SQL'
\o /dev/null
select 1 as one;
\echo '{"via":"simple","text":"select 1 as one;","status":"ok","rows":':ROW_COUNT'}'
select 1\; select 2\; select 3;
\echo '{"via":"simple","text":"select 1; select 2; select 3;","status":"ok","rows":3}'
select * from missing_table;
\echo '{"via":"simple","text":"select * from missing_table;","status":"error","code":"':SQLSTATE'"}'
this is no sql;
\echo '{"via":"simple","text":"this is no sql;","status":"error","code":"':SQLSTATE'"}'
begin;
\echo '{"via":"simple","text":"begin;","status":"ok","tags":["BEGIN"]}'
select 1 / 0;
\echo '{"via":"simple","text":"select 1 / 0;","status":"error","code":"':SQLSTATE'"}'
select 1;
\echo '{"via":"simple","text":"select 1;","status":"error","code":"':SQLSTATE'"}'
rollback;
\echo '{"via":"simple","text":"rollback;","status":"ok","tags":["ROLLBACK"]}'
select 1\; select 1 / 0\; select 3;
\echo '{"via":"simple","text":"select 1; select 1 / 0; select 3;","status":"error","code":"':SQLSTATE'"}'
create temp table numbers (n int4 primary key, note text);
\echo '{"via":"simple","text":"create temp table numbers (n int4 primary key, note text);","status":"ok","tags":["CREATE TABLE"]}'
insert into numbers values (1, 'one'), (2, 'two');
\echo '{"via":"simple","text":"insert into numbers values (1, ''one''), (2, ''two'');","status":"ok","tags":["INSERT 0 2"]}'
copy numbers from stdin;
10	ten
11	eleven
\.
\echo '{"via":"simple","text":"copy numbers from stdin;","status":"ok","tags":["COPY 2"]}'
copy numbers from stdin;
10	a duplicate
\.
-- psql 15 leaves SQLSTATE at 00000 when a COPY fails.
\echo '{"via":"simple","text":"copy numbers from stdin;","status":"error","code":"23505"}'
copy (select n from numbers order by n) to stdout;
\echo '{"via":"simple","text":"copy (select n from numbers order by n) to stdout;","status":"ok","tags":["COPY 4"]}'
listen news;
\echo '{"via":"simple","text":"listen news;","status":"ok","tags":["LISTEN"]}'
notify news, 'fresh';
\echo '{"via":"simple","text":"notify news, ''fresh'';","status":"ok","tags":["NOTIFY"]}'
select repeat('x', 8000000) as big;
\echo '{"via":"simple","text":"select repeat(''x'', 8000000) as big;","status":"ok","rows":':ROW_COUNT'}'
SQL

# Ctrl-C: psql sends a CancelRequest on a connection of its own.
"$PSQL" -XAtq -v ON_ERROR_STOP=1 -c "select pg_sleep(60), 'psql'" 2>/dev/null &
psql=$!
sh "$RUNNING" "pg_sleep(60), 'psql'" >/dev/null
kill -INT "$psql"
if wait "$psql"; then
    echo "the statement was not cancelled" >&2
    exit 1
fi
echo '{"via":"simple","text":"select pg_sleep(60), '"'psql'"'","status":"cancelled","code":"57014"}'

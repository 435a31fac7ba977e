# The catalogue with pgbench, as far as it goes: its three protocol modes and a pipeline. pgbench
# puts the value into the text in simple mode, and binds it as text otherwise.
set -eu

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/plain.sql" <<'SQL'
\set a 7
select :a + 1;
select 'x' where false;
SQL
cat >"$dir/pipeline.sql" <<'SQL'
\set a 7
\startpipeline
select :a + 1;
select :a + 2;
\endpipeline
SQL
cat >"$dir/broken.sql" <<'SQL'
\set a 0
\startpipeline
select 5;
select 1 / :a;
select 6;
\endpipeline
SQL

bench() {
    "$PGBENCH" --no-vacuum --client 1 --jobs 1 "$@" >/dev/null 2>"$dir/stderr"
}
extended() {
    echo '{"via":"extended","status":"'"$1"'","code":'"$2"',"rows":'"$3"',"text":"'"$4"'","params":['"$5"']}'
}

bench --protocol simple --transactions 2 --file "$dir/plain.sql"
for _ in 1 2; do
    echo '{"via":"simple","text":"select 7 + 1;","status":"ok","rows":1}'
    echo '{"via":"simple","text":"select '"'x'"' where false;","status":"ok","rows":0}'
done
for protocol in extended prepared; do
    bench --protocol $protocol --transactions 3 --file "$dir/plain.sql"
    for _ in 1 2 3; do
        extended ok null 1 'select $1 + 1;' '"7"'
        extended ok null 0 "select 'x' where false;" ''
    done
    bench --protocol $protocol --transactions 2 --file "$dir/pipeline.sql"
    for _ in 1 2; do
        extended ok null 1 'select $1 + 1;' '"7"'
        extended ok null 1 'select $1 + 2;' '"7"'
    done
done
bench --protocol extended --transactions 1 --file "$dir/broken.sql" && exit 1
extended ok null 1 'select 5;' ''
extended error '"22012"' null 'select 1 / $1;' '"0"'
extended skipped null null 'select 6;' ''

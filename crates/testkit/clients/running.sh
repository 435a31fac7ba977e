# Waits until the server runs a statement that contains $1, looking at it directly (never through
# the gateway), and prints the process id of the backend that does.
set -eu
# What the client under test asks of its own connection is not asked of this one.
unset PGCHANNELBINDING PGOPTIONS PGMAXPROTOCOLVERSION PGSSLNEGOTIATION
deadline=$(($(date +%s) + 60))
while [ "$(date +%s)" -lt "$deadline" ]; do
    pid=$(PGHOST=127.0.0.1 PGPORT=$DIRECT_PORT PGUSER=app_owner PGPASSWORD=$DIRECT_PASSWORD \
        PGDATABASE=template1 PGSSLMODE=disable PGGSSENCMODE=disable \
        "$PSQL" -XAtq -v "part=$1" <<'SQL'
select pid from pg_stat_activity
where state = 'active' and pid <> pg_backend_pid() and position(:'part' in query) > 0 limit 1
SQL
    )
    if [ -n "$pid" ]; then
        echo "$pid"
        exit 0
    fi
    sleep 0.02
done
echo "no backend runs: $1" >&2
exit 1

"""The catalogue with psycopg 3, which brings a libpq of its own (18)."""

import json
import os
import subprocess
import threading

import psycopg

PREPARED = "select $1::int4 * 2 as double"


def told(text, params=None, status="ok", code=None, rows=None, via=None, tags=None):
    row = {"text": text, "params": params, "status": status, "code": code,
           "rows": rows, "via": via, "tags": tags}
    print(json.dumps(row), flush=True)


def attempt(connection, query, params=None, text=None, **more):
    """Runs one command and tells what the driver said of it."""
    shown = None if params is None else [None if p is None else str(p) for p in params]
    via = "simple" if params is None else "extended"
    text = text or query
    try:
        cursor = connection.execute(query, params, **more)
    except psycopg.Error as error:
        status = "cancelled" if error.sqlstate == "57014" else "error"
        return told(text, shown, status, error.sqlstate, via=via)
    rows = len(cursor.fetchall()) if cursor.description else None
    told(text, shown, rows=rows, via=via)


def main():
    # libpq reads the rest from the environment; verify-full as the harness asks.
    with psycopg.connect("", autocommit=True) as c:
        attempt(c, "select 1 as one")
        cursor = c.execute("select 1; select 2; select 3")
        rows = len(cursor.fetchall())
        while cursor.nextset():
            rows += len(cursor.fetchall())
        told("select 1; select 2; select 3", rows=rows, via="simple")

        attempt(c, "select %s::int4 + %s::int4 as sum, %s::text as note",
                (7, 8, "naïve ✓ 'quoted'"), text="select $1::int4 + $2::int4 as sum, $3::text as note")
        attempt(c, "select %s::text is null as empty", (None,), text="select $1::text is null as empty")
        for value in (1, 2, 3):
            attempt(c, "select %s::int4 * 2 as double", (value,), text=PREPARED, prepare=True)

        attempt(c, "select * from missing_table")
        attempt(c, "select * from missing_table where a = %s", (1,),
                text="select * from missing_table where a = $1")
        attempt(c, "select 1 / %s::int4 as quotient", (0,), text="select 1 / $1::int4 as quotient")
        for text in ("begin", "select 1 / 0", "select 1", "rollback"):
            attempt(c, text)
        # psycopg drops its prepared statements after a rollback that it saw.
        told("DEALLOCATE ALL", via="simple", tags=["DEALLOCATE ALL"])
        transaction(c)

        attempt(c, "create temp table numbers (n int4 primary key, note text)")
        pipeline(c)
        copy(c)

        attempt(c, "listen news")
        attempt(c, "notify news, 'fresh'")
        note = next(c.notifies(timeout=30, stop_after=1))
        assert (note.payload, note.pid) == ("fresh", c.info.backend_pid), note
        attempt(c, "select repeat('x', 8000000) as big")
        cancel(c)


def transaction(c):
    """psycopg's own BEGIN and ROLLBACK around a block that fails."""
    try:
        with c.transaction():
            told("BEGIN", via="simple", tags=["BEGIN"])
            c.execute("select 1 / 0")
    except psycopg.errors.DivisionByZero:
        told("select 1 / 0", status="error", code="22012", via="simple")
    told("ROLLBACK", via="simple", tags=["ROLLBACK"])


def pipeline(c):
    """Sent together under one Sync: the second fails, the third and fourth never run."""
    insert = "insert into numbers values (%s, 'pipelined')"
    text = "insert into numbers values ($1, 'pipelined')"
    # By libpq itself: psycopg's own pipeline may notice the error before it has sent all four.
    libpq = c.pgconn
    libpq.enter_pipeline_mode()
    for value in (b"1", b"1", b"2", b"3"):
        libpq.send_query_params(text.encode(), [value], param_types=[23])
    libpq.pipeline_sync()
    statuses = []
    while not statuses or statuses[-1] != psycopg.pq.ExecStatus.PIPELINE_SYNC:
        result = libpq.get_result()
        if result is not None:
            statuses.append(psycopg.pq.ExecStatus(result.status))
    libpq.exit_pipeline_mode()
    assert [status.name for status in statuses[:4]] == [
        "COMMAND_OK",
        "FATAL_ERROR",
        "PIPELINE_ABORTED",
        "PIPELINE_ABORTED",
    ], statuses
    told(text, ["1"], via="extended")
    told(text, ["1"], "error", "23505", via="extended")
    told(text, ["2"], "skipped", via="extended")
    told(text, ["3"], "skipped", via="extended")
    with c.pipeline():
        cursors = [c.execute(insert, (value,), prepare=False) for value in (1, 2)]
    assert [x.rowcount for x in cursors] == [1, 1]
    told(text, ["1"], via="extended", tags=["INSERT 0 1"])
    told(text, ["2"], via="extended", tags=["INSERT 0 1"])


def copy(c):
    cursor = c.cursor()
    with cursor.copy("copy numbers from stdin") as stream:
        stream.write_row((10, "ten"))
        stream.write_row((11, "eleven"))
    told("copy numbers from stdin", via="simple", tags=["COPY 2"])
    try:
        with cursor.copy("copy numbers from stdin") as stream:
            stream.write_row((12, "twelve"))
            raise RuntimeError("changed my mind")
    except RuntimeError:
        told("copy numbers from stdin", status="cancelled", code="57014", via="simple")
    with cursor.copy("copy (select n from numbers order by n) to stdout") as stream:
        assert b"".join(stream) == b"1\n2\n10\n11\n"
    told("copy (select n from numbers order by n) to stdout", via="simple", tags=["COPY 4"])


def cancel(c):
    text = "select pg_sleep(60), 'psycopg'"

    def canceller():
        subprocess.run(["sh", os.environ["RUNNING"], text[7:]], check=True,
                       stdout=subprocess.DEVNULL)
        c.cancel_safe()

    thread = threading.Thread(target=canceller)
    thread.start()
    attempt(c, text)
    thread.join()


main()

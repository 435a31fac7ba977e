"""The catalogue with asyncpg: binary parameters, named statements, portals with a row limit."""

import asyncio
import json
import os
import ssl

import asyncpg

PREPARED = "select $1::int4 * 2 as double"


def told(text, params=None, status="ok", code=None, rows=None, via=None, tags=None):
    row = {"text": text, "params": params, "status": status, "code": code,
           "rows": rows, "via": via, "tags": tags}
    print(json.dumps(row), flush=True)


async def simple(c, text, rows=None):
    """`execute` without arguments is a simple query; asyncpg tells the last tag only."""
    try:
        await c.execute(text)
        told(text, rows=rows, via="simple")
    except asyncpg.PostgresError as error:
        status = "cancelled" if error.sqlstate == "57014" else "error"
        told(text, status=status, code=error.sqlstate, via="simple")


async def extended(c, text, *args):
    shown = [None if a is None else str(a) for a in args]
    try:
        told(text, shown, rows=len(await c.fetch(text, *args)), via="extended")
    except asyncpg.UndefinedTableError as error:
        # asyncpg prepares first and waits: the server refused the text, nothing was bound.
        told(text, status="error", code=error.sqlstate, via="parse")
    except asyncpg.PostgresError as error:
        told(text, shown, "error", error.sqlstate, via="extended")


async def main():
    context = False
    if "TLS_CA" in os.environ:
        context = ssl.create_default_context(cafile=os.environ["TLS_CA"])
    c = await asyncpg.connect(
        host=os.environ["PGHOST"], port=os.environ["PGPORT"], user=os.environ["PGUSER"],
        password=os.environ["PGPASSWORD"], database=os.environ["PGDATABASE"], ssl=context)

    await simple(c, "select 1 as one", 1)
    await simple(c, "select 1; select 2; select 3", 3)
    await extended(c, "select $1::int4 + $2::int4 as sum, $3::text as note", 7, 8, "naïve ✓ 'quoted'")
    await extended(c, "select $1::text is null as empty", None)
    statement = await c.prepare(PREPARED)
    for value in (1, 2, 3):
        told(PREPARED, [str(value)], rows=len(await statement.fetch(value)), via="extended")

    await simple(c, "select * from missing_table")
    await extended(c, "select * from missing_table")
    await extended(c, "select 1 / $1::int4 as quotient", 0)
    for text in ("begin", "select 1 / 0", "select 1", "rollback"):
        await simple(c, text)
    await simple(c, "create temp table numbers (n int4 primary key, note text)")
    await pipeline(c)
    await cursor(c)
    await copy(c)
    await listen(c)
    await extended(c, "select repeat('x', 8000000) as big")
    await cancel(c)
    await c.close()


async def pipeline(c):
    """executemany sends its Binds and Executes together under one Sync."""
    text = "insert into numbers values ($1, 'pipelined')"
    try:
        await c.executemany(text, [(1,), (1,), (2,), (3,)])
    except asyncpg.UniqueViolationError:
        pass
    told(text, ["1"], via="extended")
    told(text, ["1"], "error", "23505", via="extended")
    told(text, ["2"], "skipped", via="extended")
    told(text, ["3"], "skipped", via="extended")
    await c.executemany(text, [(1,), (2,)])
    told(text, ["1"], via="extended", tags=["INSERT 0 1"])
    told(text, ["2"], via="extended", tags=["INSERT 0 1"])


async def cursor(c):
    """A portal read in pieces of two: one command, however many fetches."""
    text = "select n from generate_series(1, 5) as n"
    async with c.transaction():
        told("BEGIN;", via="simple", tags=["BEGIN"])
        rows = [row["n"] async for row in c.cursor(text, prefetch=2)]
        assert rows == [1, 2, 3, 4, 5]
        told(text, [], rows=5, via="extended")
    told("COMMIT;", via="simple", tags=["COMMIT"])


async def copy(c):
    tag = await c.copy_records_to_table("numbers", records=[(10, "ten"), (11, "eleven")])
    told('COPY "numbers" FROM STDIN (FORMAT binary) ', tags=[tag])
    out = bytearray()

    async def receive(data):
        out.extend(data)

    query = "select n from numbers order by n"
    tag = await c.copy_from_query(query, output=receive)
    assert bytes(out) == b"1\n2\n10\n11\n", out
    told(f"COPY ({query}) TO STDOUT ", tags=[tag])


async def listen(c):
    heard = asyncio.get_running_loop().create_future()
    await c.add_listener("news", lambda _c, pid, _channel, payload: heard.set_result((pid, payload)))
    told('LISTEN "news"', [], via="extended", tags=["LISTEN"])
    await simple(c, "notify news, 'fresh'")
    assert await asyncio.wait_for(heard, 30) == (c.get_server_pid(), "fresh")




async def cancel(c):
    """Cancelling the task makes asyncpg send a CancelRequest."""
    text = "select pg_sleep(60), 'asyncpg'"
    task = asyncio.ensure_future(c.execute(text))
    watch = await asyncio.create_subprocess_exec(
        "sh", os.environ["RUNNING"], text[7:], stdout=asyncio.subprocess.DEVNULL)
    assert await watch.wait() == 0
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        told(text, status="cancelled", code="57014", via="simple")


asyncio.run(main())

// The catalogue with node-postgres. It has neither pipelines nor COPY streams of its own: a COPY
// from it ends early with CopyFail, which is worth seeing too.
'use strict'

const assert = require('node:assert')
const { execFile } = require('node:child_process')
const fs = require('node:fs')
const { promisify } = require('node:util')
const { Client } = require('pg')

const PREPARED = 'select $1::int4 * 2 as double'

const settings = () => ({
  host: process.env.PGHOST,
  port: Number(process.env.PGPORT),
  user: process.env.PGUSER,
  password: process.env.PGPASSWORD,
  database: process.env.PGDATABASE,
  ssl: process.env.TLS_CA ? { ca: fs.readFileSync(process.env.TLS_CA, 'utf8') } : false,
})

function told(row) {
  console.log(JSON.stringify({ status: 'ok', ...row }))
}

async function attempt(client, query, more = {}) {
  const text = query.text ?? query
  // Without values node-postgres sends a simple query.
  const params = query.values?.map((v) => (v === null ? null : String(v)))
  const via = params ? 'extended' : 'simple'
  try {
    const result = [await client.query(query)].flat()
    const rows = result.reduce((sum, r) => sum + r.rows.length, 0)
    told({ text, params, via, rows: result.some((r) => r.fields.length) ? rows : null, ...more })
  } catch (error) {
    if (!error.code) throw error
    const status = error.code === '57014' ? 'cancelled' : 'error'
    told({ text, params, via, status, code: error.code, ...more })
  }
}

async function main() {
  const client = new Client(settings())
  await client.connect()
  await attempt(client, 'select 1 as one')
  await attempt(client, 'select 1; select 2; select 3')
  await attempt(client, {
    text: 'select $1::int4 + $2::int4 as sum, $3::text as note',
    values: [7, 8, "naïve ✓ 'quoted'"],
  })
  await attempt(client, { text: 'select $1::text is null as empty', values: [null] })
  for (const value of [1, 2, 3]) {
    await attempt(client, { name: 'double', text: PREPARED, values: [value] })
  }
  await attempt(client, 'select * from missing_table')
  await attempt(client, { text: 'select * from missing_table where a = $1', values: [1] })
  await attempt(client, { text: 'select 1 / $1::int4 as quotient', values: [0] })
  for (const text of ['begin', 'select 1 / 0', 'select 1', 'rollback']) await attempt(client, text)

  await attempt(client, 'create temp table numbers (n int4 primary key, note text)')
  await attempt(client, "insert into numbers values (1, 'one')")
  await attempt(client, 'copy numbers from stdin')
  await attempt(client, 'copy (select n from numbers order by n) to stdout', { tags: ['COPY 1'] })

  const heard = new Promise((resolve) => client.once('notification', resolve))
  await attempt(client, 'listen news')
  await attempt(client, "notify news, 'fresh'")
  const note = await heard
  assert.deepStrictEqual([note.processId, note.payload], [client.processID, 'fresh'])
  await attempt(client, "select repeat('x', 8000000) as big")
  await cancel(client)
  await client.end()
}

// Another client object sends the CancelRequest, as node-postgres has it.
async function cancel(client) {
  const text = "select pg_sleep(60), 'node'"
  const { Query } = require('pg')
  const query = new Query(text)
  const ended = new Promise((resolve) => {
    query.on('error', resolve)
    query.on('end', resolve)
  })
  client.query(query)
  await promisify(execFile)('sh', [process.env.RUNNING, text.slice(7)])
  new Client(settings()).cancel(client, query)
  const error = await ended
  assert.strictEqual(error?.code, '57014')
  told({ text, via: 'simple', status: 'cancelled', code: error.code })
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})

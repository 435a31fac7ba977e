// An issuer whose tokens can have any claims: the engine of oauth2-mock-server behind a listener of our own, which counts
// what is asked for and can fail on request. Its keys are in a file, so that it can be restarted with them.
//
//   node issuer.mjs PORT KEYS_FILE [CERTIFICATE KEY]
//
// Below /test/: mint, publish, withdraw, behave, count. Each takes and gives JSON.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const load = (path) => import(pathToFileURL(join(process.env.MODULES, path)));
const { OAuth2Issuer, OAuth2Service } = await load('oauth2-mock-server/dist/index.mjs');

const [port, file, certificate, key] = process.argv.slice(2);
const tls = certificate && { cert: readFileSync(certificate), key: readFileSync(key) };
const url = `${tls ? 'https' : 'http'}://127.0.0.1:${port}`;

// Three sets of keys: those that are published, those that sign though they are not, and a stranger's.
const stored = existsSync(file) ? JSON.parse(readFileSync(file)) : { published: [], hidden: [] };
let hidden = stored.hidden;
let issuer, service;

async function serve(keys) {
  issuer = new OAuth2Issuer();
  issuer.url = url;
  for (const jwk of keys) await issuer.keys.add(jwk);
  service = new OAuth2Service(issuer);
  writeFileSync(file, JSON.stringify({ published: issuer.keys.toJSON(true), hidden }), { mode: 0o600 });
}

async function generate(alg, kid) {
  const one = new OAuth2Issuer();
  await one.keys.generate(alg, { kid });
  return one.keys.toJSON(true)[0];
}

const counts = {};
let behaviour = 'well';
await serve(stored.published.length ? stored.published : [await generate('RS256', 'first')]);

const control = {
  // A token: claims and header go over the usual ones, null takes one away; `kid` chooses the key.
  async mint({ claims = {}, header = {}, kid }) {
    const all = new OAuth2Issuer();
    all.url = url;
    for (const jwk of [...issuer.keys.toJSON(true), ...hidden]) await all.keys.add(jwk);
    const scopesOrTransform = (toHeader, payload) => {
      Object.assign(toHeader, header);
      Object.assign(payload, claims);
      for (const object of [toHeader, payload]) {
        for (const name of Object.keys(object)) if (object[name] === null) delete object[name];
      }
    };
    return { token: await all.buildToken({ kid: kid ?? issuer.keys.toJSON()[0].kid, scopesOrTransform }) };
  },
  // Makes a key and publishes it, or keeps it from the document.
  async publish({ kid, alg = 'RS256', hide = false }) {
    const jwk = hidden.find((one) => one.kid === kid) ?? await generate(alg, kid);
    hidden = hidden.filter((one) => one.kid !== kid);
    if (hide) hidden.push(jwk);
    await serve(hide ? issuer.keys.toJSON(true) : [...issuer.keys.toJSON(true), jwk]);
    return {};
  },
  // Takes a key from the document; it can still sign.
  async withdraw({ kid }) {
    const keys = issuer.keys.toJSON(true);
    hidden.push(...keys.filter((jwk) => jwk.kid === kid));
    await serve(keys.filter((jwk) => jwk.kid !== kid));
    return {};
  },
  // well, error, hang, garbage, other-issuer, private, redirect, huge
  async behave({ how }) {
    behaviour = how;
    return {};
  },
  async count() {
    return counts;
  },
};

const misbehaving = {
  error: (response) => response.writeHead(500).end('not today'),
  hang: () => {},
  garbage: (response) => response.writeHead(200, { 'content-type': 'application/json' }).end('<html>'),
  'other-issuer': (response) =>
    response.writeHead(200).end(JSON.stringify({ issuer: `${url}/`, jwks_uri: `${url}/jwks` })),
  private: (response) => response.writeHead(200).end(JSON.stringify({ issuer: url, jwks_uri: `${url}/jwks`, keys: issuer.keys.toJSON(true) })),
  redirect: (response) => response.writeHead(302, { location: `${url}/jwks` }).end(),
  huge: (response) => response.writeHead(200).end(' '.repeat(3 << 20)),
};

async function answer(request, response) {
  const path = request.url.split('?')[0];
  if (path.startsWith('/test/')) {
    let body = '';
    for await (const chunk of request) body += chunk;
    try {
      const result = await control[path.slice(6)](body ? JSON.parse(body) : {});
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(result));
    } catch (error) {
      response.writeHead(500).end(String(error));
    }
    return;
  }
  counts[path] = (counts[path] ?? 0) + 1;
  if (behaviour !== 'well') misbehaving[behaviour](response);
  else service.requestHandler(request, response);
}

const server = tls ? https.createServer(tls, answer) : http.createServer(answer);
server.listen(Number(port), '127.0.0.1');

// An issuer of tokens to try OnRecord with, when no other is at hand: `node contrib/try-issuer.mjs [PORT]`.
//
// It gives anybody a token about anybody, so it is for trying alone. It listens on loopback, keeps nothing, and needs
// nothing but Node: http://localhost:8080/token?agent=copilot&person=bea answers with a token by which the agent `copilot`
// acts for `bea` (RFC 8693, `act`); its key is where OpenID Connect Discovery says.

import { createServer } from "node:http";
import { createHash, generateKeyPairSync, randomUUID, sign } from "node:crypto";

const port = Number(process.argv[2] ?? 8080);
const issuer = `http://localhost:${port}`;
const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const jwk = publicKey.export({ format: "jwk" });
const kid = createHash("sha256").update(JSON.stringify(jwk)).digest("base64url").slice(0, 16);

function token({ agent, person = "nobody", audience = "onrecord", seconds = "600" }) {
  const now = Math.floor(Date.now() / 1000);
  const claims = { iss: issuer, aud: audience, sub: person, jti: randomUUID(), iat: now, exp: now + Number(seconds) };
  if (agent) claims.act = { sub: agent };
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part({ alg: "ES256", typ: "JWT", kid })}.${part(claims)}`;
  const signature = sign("sha256", Buffer.from(signed), { key: privateKey, dsaEncoding: "ieee-p1363" });
  return `${signed}.${signature.toString("base64url")}`;
}

createServer((request, response) => {
  const url = new URL(request.url, issuer);
  const json = (value) => {
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify(value));
  };
  switch (url.pathname) {
    case "/.well-known/openid-configuration":
      return json({ issuer, jwks_uri: `${issuer}/jwks` });
    case "/jwks":
      return json({ keys: [{ ...jwk, kid, use: "sig", alg: "ES256" }] });
    case "/token":
      return response.end(`${token(Object.fromEntries(url.searchParams))}\n`);
    default:
      response.statusCode = 404;
      return response.end();
  }
}).listen(port, "localhost", () => console.log(`an issuer for trying: ${issuer}`));

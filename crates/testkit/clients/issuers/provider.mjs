// An OpenID provider as a company has one: oidc-provider, with a client that has a secret (client credentials) and one
// that people log in with (device flow). Access tokens for a resource are JWTs.
//
//   node provider.mjs PORT RESOURCE
//
// POST /test/approve {"user_code", "account"} is the person who types the code and agrees.
import { join } from 'node:path';
import http from 'node:http';
import { pathToFileURL } from 'node:url';

const { Provider } = await import(pathToFileURL(join(process.env.MODULES, 'oidc-provider/lib/index.js')));

const [port, resource] = process.argv.slice(2);
const url = `http://127.0.0.1:${port}`;
const scope = 'db:read db:write';

const provider = new Provider(url, {
  clients: [
    {
      client_id: 'reporting',
      client_secret: 'reporting-secret',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    },
    {
      client_id: 'onrecord',
      token_endpoint_auth_method: 'none',
      application_type: 'native',
      grant_types: ['urn:ietf:params:oauth:grant-type:device_code', 'refresh_token'],
      redirect_uris: [],
      response_types: [],
    },
  ],
  claims: { openid: ['sub'], email: ['email'], groups: ['groups'] },
  scopes: ['openid', 'offline_access', 'email', 'groups'],
  conformIdTokenClaims: false,
  async findAccount(_context, id) {
    return { accountId: id, claims: () => ({ sub: id, email: `${id}@example.org`, groups: ['people'] }) };
  },
  async extraTokenClaims(_context, token) {
    return token.accountId ? { groups: ['people'] } : { groups: ['services'] };
  },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => resource,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({ scope, audience: resource, accessTokenFormat: 'jwt', accessTokenTTL: 900 }),
    },
  },
});

async function approve({ user_code: userCode, account }) {
  const code = await provider.DeviceCode.findByUserCode(userCode.replace(/-/g, ''), { ignoreExpiration: true });
  const grant = new provider.Grant({ accountId: account, clientId: code.clientId });
  grant.addOIDCScope('openid email groups');
  grant.addResourceScope(resource, scope);
  Object.assign(code, {
    accountId: account,
    authTime: Math.floor(Date.now() / 1000),
    grantId: await grant.save(),
    scope: code.params.scope,
    resource,
  });
  await code.save();
}

const handle = provider.callback();
http.createServer(async (request, response) => {
  if (request.url !== '/test/approve') return handle(request, response);
  let body = '';
  for await (const chunk of request) body += chunk;
  try {
    await approve(JSON.parse(body));
    response.writeHead(200).end('{}');
  } catch (error) {
    response.writeHead(500).end(String(error.stack));
  }
}).listen(Number(port), '127.0.0.1');

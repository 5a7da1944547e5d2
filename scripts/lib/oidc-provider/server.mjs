// Identity providers on loopback for the tests of relay/provider: npm's `oidc-provider`, each instance at a port of its own.
// Standard input has one line, a JSON array with what each instance is like; standard output gets one with their issuers.
// All ends when standard input does.
import { createServer } from 'node:http'
import { createInterface } from 'node:readline'
import { generateKeyPairSync } from 'node:crypto'
import { Provider } from 'oidc-provider'

// What the library has to say; standard output is for issuers.
console.info = console.error

const keyTypes = {
  RS256: ['rsa', { modulusLength: 2048 }],
  PS256: ['rsa', { modulusLength: 2048 }],
  ES256: ['ec', { namedCurve: 'P-256' }],
  EdDSA: ['ed25519', {}],
}

function key(alg) {
  const { privateKey } = generateKeyPairSync(...keyTypes[alg])
  return { ...privateKey.export({ format: 'jwk' }), kid: `key-${alg}`, use: 'sig', alg }
}

// Whoever signs in is who they say. The address of `unverified` nobody has verified.
function account(login) {
  const claims = {
    sub: login,
    email: `${login}@example.com`,
    email_verified: login !== 'unverified',
    preferred_username: login,
  }
  return { accountId: login, claims: () => claims }
}

async function start({ alg, auth, claimsInIdToken, redirectUri }) {
  const server = createServer()
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening))
  const issuer = `http://127.0.0.1:${server.address().port}`
  const client = (id) => ({
    client_id: id,
    ...(auth === 'none' ? {} : { client_secret: `secret+of %${id}` }),
    token_endpoint_auth_method: auth,
    id_token_signed_response_alg: alg,
    redirect_uris: [redirectUri],
  })
  const provider = new Provider(issuer, {
    clients: [client('relay'), client('other')],
    clientAuthMethods: [auth],
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['preferred_username'] },
    conformIdTokenClaims: !claimsInIdToken,
    cookies: { keys: ['of this test'] },
    enabledJWA: { idTokenSigningAlgValues: [alg] },
    features: { devInteractions: { enabled: true } },
    findAccount: (_, login) => account(login),
    jwks: { keys: [key(alg)] },
    pkce: { required: () => true },
    responseTypes: ['code'],
  })
  server.on('request', provider.callback())
  return issuer
}

const lines = createInterface({ input: process.stdin })
lines.once('line', async (line) => {
  process.stdout.write(`${JSON.stringify(await Promise.all(JSON.parse(line).map(start)))}\n`)
})
lines.once('close', () => process.exit(0))

import assert from "node:assert/strict";
import { createPrivateKey, generateKeyPairSync } from "node:crypto";
import { test } from "node:test";
import { parseCertificateResponse } from "../../src/tls/certificate-chain.ts";
import { summarizeCertificate } from "../../src/tls/certificate-summary.ts";
import { TlsError, type TlsErrorCode } from "../../src/tls/tls-error.ts";
import { testCa, testIdentity, uriName } from "../support/test-ca.ts";

const cart = testIdentity("cart", "shop");
const thief = testIdentity("thief", "shop");
const ca = await testCa();
const other = await testCa();
const issued = await ca.certificate(cart, { intermediate: true });
const [leaf, intermediate] = issued.chainPem as [string, string];
const strict = { checkIdentity: true, warn: (message: string) => assert.fail(message) };

function parse(chain: readonly string[], key = issued.privateKeyPem, identity = cart) {
  return parseCertificateResponse(chain, key, identity, strict);
}

test("leaf, intermediates and a bundle of roots are told apart", () => {
  const parsed = parse([leaf, intermediate, ca.rootPem + other.rootPem]);

  assert.deepEqual(parsed, {
    ...issued,
    rootsPem: [ca.rootPem, other.rootPem],
    // X.509 keeps whole seconds.
    notBeforeAt: Math.floor(issued.notBeforeAt / 1000) * 1000,
    notAfterAt: Math.floor(issued.notAfterAt / 1000) * 1000,
  });
});

test("text around blocks, CRLF and further blocks of leaf elements are ignored", async () => {
  const direct = await ca.certificate(cart);
  const [own] = direct.chainPem as [string];
  const parsed = parse(
    [`a comment\r\n${own.replaceAll("\n", "\r\n")}${intermediate}`, `${ca.rootPem.trimEnd()}`],
    direct.privateKeyPem,
  );
  assert.equal(parsed.chainPem.length, 1);
  assert.deepEqual(parsed.rootsPem, [ca.rootPem]);
});

const garbage = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
const key = issued.privateKeyPem;
const sec1 = createPrivateKey(key).export({ type: "sec1", format: "pem" }) as string;
const foreign = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({
  type: "pkcs8",
  format: "pem",
}) as string;
const roots = ca.rootPem;
const wrong: readonly (readonly [
  what: string,
  chain: readonly string[],
  code: TlsErrorCode,
  message: string,
  key?: string,
])[] = [
  [
    "an empty list",
    [],
    "incomplete-chain",
    "chain returned from CA is empty for: spiffe://cluster.local/ns/shop/sa/cart",
  ],
  [
    "a leaf alone",
    [leaf],
    "incomplete-chain",
    "no root certificate present in the chain for: spiffe://cluster.local/ns/shop/sa/cart",
  ],
  [
    "an empty root element",
    [leaf, ""],
    "incomplete-chain",
    "no root certificate present in the chain for: spiffe://cluster.local/ns/shop/sa/cart",
  ],
  ["a leaf that is no PEM", ["leaf", roots], "bad-certificate", "leaf is not PEM"],
  [
    "a leaf that is no X.509",
    [garbage, roots],
    "bad-certificate",
    "leaf is not an X.509 certificate",
  ],
  [
    "a bad intermediate",
    [leaf, garbage, roots],
    "bad-certificate",
    "intermediate 1 is not an X.509 certificate",
  ],
  [
    "one bad root among good ones",
    [leaf, roots + garbage],
    "bad-certificate",
    "root 2 is not an X.509 certificate",
  ],
  [
    "a key among the roots",
    [leaf, roots + foreign],
    "bad-certificate",
    "root 2 is PEM of PRIVATE KEY, not of CERTIFICATE",
  ],
  [
    "roots that were cut short",
    [leaf, roots.slice(0, -40)],
    "bad-certificate",
    "PEM of CERTIFICATE has no end",
  ],
  ["a key that is not PKCS#8", [leaf, roots], "bad-key", "private key is not PKCS#8", sec1],
  [
    "a certificate for another key",
    [leaf, roots],
    "bad-key",
    "the certificate for spiffe://cluster.local/ns/shop/sa/cart is not for the requested key",
    foreign,
  ],
];
for (const [what, chain, code, message, keyPem = key] of wrong) {
  test(`${what} is refused`, () => {
    assert.throws(
      () => parse(chain, keyPem),
      (error) => {
        assert.ok(error instanceof TlsError);
        assert.deepEqual([error.code, error.message], [code, message]);
        return true;
      },
    );
  });
}

test("the first URI SAN has to be the requested identity, unless the authority decides", async () => {
  const both = await ca.certificate(cart, {
    names: [
      uriName("spiffe://cluster.local/ns/shop/sa/thief"),
      uriName("spiffe://cluster.local/ns/shop/sa/cart"),
    ],
  });
  const chain = [...both.chainPem, ca.rootPem];
  assert.throws(() => parse(chain, both.privateKeyPem), {
    message: "did not find expected SAN: spiffe://cluster.local/ns/shop/sa/cart",
  });

  const dedicated = { ...strict, checkIdentity: false };
  assert.deepEqual(
    parseCertificateResponse(chain, both.privateKeyPem, cart, dedicated).identity,
    thief,
  );
});

test("in dedicated mode a leaf without SPIFFE ID goes by the requested identity", async () => {
  const nameless = await ca.certificate(cart, { names: [] });
  const chain = [...nameless.chainPem, ca.rootPem];
  const dedicated = { ...strict, checkIdentity: false };
  assert.deepEqual(
    parseCertificateResponse(chain, nameless.privateKeyPem, cart, dedicated).identity,
    cart,
  );
});

for (const [what, chain] of [
  ["another authority's root", [leaf, intermediate, other.rootPem]],
  ["no intermediate", [leaf, ca.rootPem]],
] as const) {
  test(`a leaf with ${what} is taken, with a warning that nobody vouches for it`, () => {
    const warnings: string[] = [];
    const parsed = parseCertificateResponse(chain, issued.privateKeyPem, cart, {
      checkIdentity: true,
      warn: (message) => warnings.push(message),
    });
    assert.equal(parsed.chainPem[0], leaf);
    assert.deepEqual(warnings, [
      "no root in the chain vouches for the certificate of: spiffe://cluster.local/ns/shop/sa/cart",
    ]);
  });
}

test("a root that can't vouch for anything is left out with a warning", () => {
  const warnings: string[] = [];
  const options = { checkIdentity: true, warn: (message: string) => warnings.push(message) };
  const parsed = parseCertificateResponse(
    [leaf, intermediate, leaf + ca.rootPem],
    key,
    cart,
    options,
  );
  assert.deepEqual(parsed.rootsPem, [ca.rootPem]);
  assert.deepEqual(warnings, ["found 1 invalid root certs"]);
});

test("a summary has the shape of the config dump", () => {
  const pem =
    "-----BEGIN CERTIFICATE-----\nMIICdDCCAVygAwIBAgIRAIH72yYFGk1ABbDfXnw4O20wDQYJKoZIhvcNAQELBQAwGDEWMBQGA1UEChMNY2x1c3Rlci5sb2NhbDAeFw0yNjExMjMwMjAyMTJaFw0yNjExMjQwMjA0MTJaMAAwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQxJSJB/AV7DtrWh6aP0T/kDSInlQApCLfAyPWjAQUux1FIRtD9xJGL2efXZ1VIATG6QlSoIHIAACBS1ey+u0zOo4GbMIGYMA4GA1UdDwEB/wQEAwIFoDAdBgNVHSUEFjAUBggrBgEFBQcDAQYIKwYBBQUHAwIwDAYDVR0TAQH/BAIwADAfBgNVHSMEGDAWgBTrHDC3SI7KKqk8vo9/6jJm1f/YlTA4BgNVHREBAf8ELjAshipzcGlmZmU6Ly9jbHVzdGVyLmxvY2FsL25zL3Nob3Avc2EvZnJvbnRlbmQwDQYJKoZIhvcNAQELBQADggEBAKemDZ2HyD6Qq1dVpFQmU4oOavOKFBFBUoDyBq2ydgqjf1eTAwlT+O2J94eF+CEWLV11gR5HE1oqJ3GUGM9Vej4JAzNj+XQLjNHKmj2LWevfXfGXF6vLvDBDo7u8X5ks4zZPt2cSaJKyDpA4rZ0kt4R2ls581HQmbLkLcWyxMER7ROzHsChAKTN7DbTOFJEtysjgHYjK2M6EZuosglvsCTjAni4V7c4rEVoDwy87WEWdpxh8AkHXelgFOgd6jnwbSZxvSwR+rk+jKUuYPzoLBD6KIDiN0OmiH7CU680+OeIo0+LtL9HcnTkCMFjcPGJ0L4S67ilMgmMu0x9F8KahR3c=\n-----END CERTIFICATE-----\n";
  assert.deepEqual(summarizeCertificate(pem), {
    expirationTime: "2026-11-24T02:04:12Z",
    pem: Buffer.from(
      pem.replace(/(?<=-----\n)[^-\n]+/, (line) => line.replaceAll(/.{60}/g, "$&\n")),
    ).toString("base64"),
    serialNumber: BigInt("0x81fbdb26051a4d4005b0df5e7c383b6d").toString(),
    validFrom: "2026-11-23T02:02:12Z",
  });
});

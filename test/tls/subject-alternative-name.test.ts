import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import { Certificate } from "pkijs";
import type { AlternativeName } from "../../src/embedded/certificate-builder.ts";
import { subjectAltUris } from "../../src/tls/subject-alternative-name.ts";
import { dnsName, testCa, testIdentity, uriName } from "../support/test-ca.ts";

const ca = await testCa();
const cart = testIdentity("cart", "shop");

async function leafDer(names: readonly AlternativeName[]): Promise<Uint8Array> {
  const [pem] = (await ca.certificate(cart, { names })).chainPem;
  return new X509Certificate(pem as string).raw;
}

test("a leaf that a real istiod issued shows its one URI", () => {
  const der = Buffer.from(
    "MIICdDCCAVygAwIBAgIRAIH72yYFGk1ABbDfXnw4O20wDQYJKoZIhvcNAQELBQAwGDEWMBQGA1UEChMNY2x1c3Rlci5sb2NhbDAeFw0yNjExMjMwMjAyMTJaFw0yNjExMjQwMjA0MTJaMAAwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQxJSJB/AV7DtrWh6aP0T/kDSInlQApCLfAyPWjAQUux1FIRtD9xJGL2efXZ1VIATG6QlSoIHIAACBS1ey+u0zOo4GbMIGYMA4GA1UdDwEB/wQEAwIFoDAdBgNVHSUEFjAUBggrBgEFBQcDAQYIKwYBBQUHAwIwDAYDVR0TAQH/BAIwADAfBgNVHSMEGDAWgBTrHDC3SI7KKqk8vo9/6jJm1f/YlTA4BgNVHREBAf8ELjAshipzcGlmZmU6Ly9jbHVzdGVyLmxvY2FsL25zL3Nob3Avc2EvZnJvbnRlbmQwDQYJKoZIhvcNAQELBQADggEBAKemDZ2HyD6Qq1dVpFQmU4oOavOKFBFBUoDyBq2ydgqjf1eTAwlT+O2J94eF+CEWLV11gR5HE1oqJ3GUGM9Vej4JAzNj+XQLjNHKmj2LWevfXfGXF6vLvDBDo7u8X5ks4zZPt2cSaJKyDpA4rZ0kt4R2ls581HQmbLkLcWyxMER7ROzHsChAKTN7DbTOFJEtysjgHYjK2M6EZuosglvsCTjAni4V7c4rEVoDwy87WEWdpxh8AkHXelgFOgd6jnwbSZxvSwR+rk+jKUuYPzoLBD6KIDiN0OmiH7CU680+OeIo0+LtL9HcnTkCMFjcPGJ0L4S67ilMgmMu0x9F8KahR3c=",
    "base64",
  );
  assert.deepEqual(subjectAltUris(der), ["spiffe://cluster.local/ns/shop/sa/frontend"]);
});

test("only URIs are read, in their order", async () => {
  const names = [
    dnsName("spiffe://cluster.local/ns/a/sa/dns"),
    uriName("spiffe://two"),
    { kind: "ip", bytes: Uint8Array.of(127, 0, 0, 1) } as const,
    uriName("https://one"),
  ];
  assert.deepEqual(subjectAltUris(await leafDer(names)), ["spiffe://two", "https://one"]);
});

test("a certificate without the extension has no URIs", async () => {
  assert.deepEqual(subjectAltUris(await leafDer([])), []);
});

test("a URI that poses as two, or holds a control character, is no URI", async () => {
  const names = [
    uriName("spiffe://td/ns/a/sa/b, URI:spiffe://td/ns/a/sa/admin"),
    uriName("spiffe://td/ns/a/sa/b\0"),
    uriName("spiffe://td/ns/a/sa/b\n"),
    uriName(""),
  ];
  assert.deepEqual(subjectAltUris(await leafDer(names)), [""]);
});

test("the extension there twice counts as not there", async () => {
  const der = await leafDer([uriName("spiffe://td/ns/a/sa/b")]);
  const certificate = Certificate.fromBER(new Uint8Array(der).buffer);
  const extensions = certificate.extensions ?? [];
  const san = extensions.find(({ extnID }) => extnID === "2.5.29.17");
  assert.ok(san);
  certificate.extensions = [...extensions, san];
  // The bytes to be signed are kept from decoding; encode anew.
  const twice = new Uint8Array(certificate.toSchema(true).toBER());
  assert.ok(twice.length > der.length);
  assert.deepEqual(subjectAltUris(twice), []);
});

test("every certificate cut short has no URIs", async () => {
  const der = await leafDer([uriName("spiffe://td/ns/a/sa/b")]);
  for (let length = 0; length < der.length; length++) {
    assert.deepEqual(subjectAltUris(der.subarray(0, length)), []);
  }
});

const uri = fc.webUrl().map((url) => url.replace(/^https?/, "spiffe"));
const name = fc.oneof(uri.map(uriName), fc.domain().map(dnsName));

test("what the walk finds is what pkijs finds", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(name, { maxLength: 6 }), async (names) => {
      const der = await leafDer(names);
      assert.deepEqual(subjectAltUris(der), pkijsUris(der));
    }),
    { numRuns: 100 },
  );
});

const mutation = fc.record({ at: fc.nat(), byte: fc.nat(255) });

test("in damaged certificates the walk never throws and never finds more than pkijs", async () => {
  const names = [uriName("spiffe://td/ns/a/sa/b"), dnsName("x"), uriName("spiffe://td/ns/c/sa/d")];
  const der = await leafDer(names);
  let found = 0;
  fc.assert(
    fc.property(fc.array(mutation, { minLength: 1, maxLength: 3 }), (mutations) => {
      const damaged = Uint8Array.from(der);
      for (const { at, byte } of mutations) damaged[at % damaged.length] = byte;
      const uris = subjectAltUris(damaged);
      const oracle = pkijsUris(damaged);
      // asn1js tries octet and bit strings as nested BER, and loses extensions over rare keys.
      if (oracle === undefined || oracle.length === 0) return;
      found += uris.length;
      if (uris.length > 0) assert.deepEqual(uris, oracle);
    }),
    { numRuns: 1500 },
  );
  assert.ok(found > 0, "no damaged certificate was compared");
});

test("any bytes at all are read without a throw", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      assert.deepEqual(subjectAltUris(bytes), []);
    }),
    { numRuns: 3000 },
  );
});

/** @returns `undefined` when pkijs can't read the certificate. */
function pkijsUris(der: Uint8Array): readonly string[] | undefined {
  try {
    const certificate = Certificate.fromBER(new Uint8Array(der).buffer);
    const san = certificate.extensions?.find(({ extnID }) => extnID === "2.5.29.17");
    const names: readonly { type: number; value: unknown }[] = san?.parsedValue.altNames ?? [];
    return names
      .filter(({ type }) => type === 6)
      .map(({ value }) => String(value))
      .filter((text) => /^[\x21-\x7e]*$/.test(text));
  } catch {
    // Damaged beyond what the oracle reads: nothing to compare with.
    return undefined;
  }
}

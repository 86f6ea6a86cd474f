import assert from "node:assert/strict";
import { test } from "node:test";
import { Enumerated, Integer, Sequence } from "asn1js";
import fc from "fast-check";
import { Extension } from "pkijs";
import { hasSerial, parseRevocationLists, serialNumbers } from "../../src/tls/revocation-list.ts";
import { isReadableChain, Revocations } from "../../src/tls/revocations.ts";
import { TlsError } from "../../src/tls/tls-error.ts";
import { expired, testCa, testIdentity } from "../support/test-ca.ts";
import { buildCrl, type CrlOverrides, chainDer, crlPem } from "../support/test-crl.ts";

const ca = await testCa();
const other = await testCa();
const root = ca.signer();
const plain = await ca.certificate(testIdentity("plain"));
const sibling = await ca.certificate(testIdentity("sibling"));
const deep = await ca.certificate(testIdentity("deep"), { intermediate: true });
const [plainLeaf] = plain.chainPem as [string];
const [siblingLeaf] = sibling.chainPem as [string];
const [deepLeaf, intermediate] = deep.chainPem as [string, string];
const plainChain = chainDer([plainLeaf, ca.rootPem]);
const siblingChain = chainDer([siblingLeaf, ca.rootPem]);
const deepChain = chainDer([deepLeaf, intermediate, ca.rootPem]);

/** Which of the three chains a file revokes. */
function revokedBy(file: Uint8Array | string): string[] {
  const bytes = typeof file === "string" ? Buffer.from(file) : file;
  const revocations = new Revocations(parseRevocationLists(bytes));
  const chains = { plain: plainChain, sibling: siblingChain, deep: deepChain };
  return Object.entries(chains)
    .filter(([, chain]) => revocations.isRevoked(chain))
    .map(([name]) => name);
}

const ofLeaf = await buildCrl(root, [plainLeaf]);
const ofIntermediate = await buildCrl(root, [intermediate]);
const ofDeepLeaf = await buildCrl(ca.signer(intermediate), [deepLeaf]);
const files: readonly (readonly [what: string, file: Uint8Array | string, revoked: string[]])[] = [
  ["an empty file", "", []],
  ["white space", " \n", []],
  ["PEM of other things", ca.rootPem, []],
  ["a list without entries", await buildCrl(root, []), []],
  ["a list in DER", ofLeaf, ["plain"]],
  ["a list in PEM among other blocks", `text\n${ca.rootPem}${crlPem(ofLeaf)}`, ["plain"]],
  ["several lists", crlPem(ofLeaf) + crlPem(ofDeepLeaf), ["plain", "deep"]],
  [
    "a list of several certificates",
    await buildCrl(root, [plainLeaf, siblingLeaf]),
    ["plain", "sibling"],
  ],
  ["a revoked intermediate", ofIntermediate, ["deep"]],
  ["an intermediate's list", ofDeepLeaf, ["deep"]],
  ["a serial number of another issuer", await buildCrl(root, [deepLeaf]), []],
  ["a list that has expired", await buildCrl(root, [plainLeaf], { nextUpdateAt: 0 }), ["plain"]],
  [
    "a list signed by somebody else",
    await buildCrl(root, [plainLeaf], { signedBy: other.signer() }),
    [],
  ],
  ["a list that revokes the root", await buildCrl(root, [ca.rootPem]), []],
];
for (const [what, file, revoked] of files) {
  test(`${what} revokes ${revoked.length === 0 ? "nobody" : revoked.join(" and ")}`, () => {
    assert.deepEqual(revokedBy(file), revoked);
  });
}

test("any link of a longer chain revokes it", async () => {
  const { chainPem } = await ca.certificate(testIdentity("deeper"), { intermediate: 2 });
  const [leaf, lower, upper] = chainPem as [string, string, string];
  const chain = chainDer([leaf, lower, upper, ca.rootPem]);
  const revokes = (list: Uint8Array): boolean =>
    new Revocations(parseRevocationLists(list)).isRevoked(chain);
  assert.ok(revokes(await buildCrl(ca.signer(lower), [leaf])));
  assert.ok(revokes(await buildCrl(ca.signer(upper), [lower])));
  assert.ok(revokes(await buildCrl(root, [upper])));
  assert.ok(!revokes(await buildCrl(ca.signer(upper), [leaf])));
  assert.ok(!revokes(await buildCrl(root, [lower])));
});

test("an authority of the same name revokes only what it issued itself", async () => {
  const [name, sameName] = [root, other.signer()].map(({ certificate }) =>
    Buffer.from(certificate.subject.toSchema().toBER()).toString("hex"),
  );
  assert.equal(name, sameName);
  assert.deepEqual(revokedBy(await buildCrl(other.signer(), [plainLeaf])), []);
});

test("a certificate that has expired is revoked all the same", async () => {
  const { chainPem } = await ca.certificate(testIdentity("old"), expired());
  const [leaf] = chainPem as [string];
  const lists = parseRevocationLists(await buildCrl(root, [leaf]));
  assert.ok(new Revocations(lists).isRevoked(chainDer([leaf, ca.rootPem])));
});

test("a forged list beside a good one takes nothing from it", async () => {
  const forged = await buildCrl(root, [siblingLeaf], { signedBy: other.signer() });
  assert.deepEqual(revokedBy(crlPem(forged) + crlPem(ofLeaf)), ["plain"]);
});

test("serial numbers of any length are found, and no others", () => {
  const serial = fc.bigInt({ min: 0n, max: 2n ** 160n }).map((value) => {
    const hex = value.toString(16);
    return hex.padStart(hex.length + (hex.length % 2), "0");
  });
  fc.assert(
    fc.property(fc.uniqueArray(serial, { maxLength: 20 }), serial, (listed, other) => {
      const serials = serialNumbers(listed);
      for (const one of listed) assert.ok(hasSerial(serials, one));
      assert.equal(hasSerial(serials, other), listed.includes(other));
    }),
  );
});

test("lists cross threads", () => {
  const lists = parseRevocationLists(ofLeaf);
  assert.ok(new Revocations(structuredClone(lists)).isRevoked(plainChain));
});

function extension(id: string, critical: boolean, value: ArrayBuffer): Extension {
  return new Extension({ extnID: id, critical, extnValue: value });
}
const reason = extension("2.5.29.21", false, new Enumerated({ value: 1 }).toBER());
const delta = extension("2.5.29.27", true, new Integer({ value: 1 }).toBER());
const named = extension("2.5.29.29", true, new Sequence({ value: [] }).toBER());
/** IssuingDistributionPoint with one BOOLEAN field set. */
const point = (tag: number): Extension =>
  extension("2.5.29.28", true, Uint8Array.of(0x30, 3, tag, 1, 0xff).buffer);

test("reasons, numbers and lists for leaves only are taken as they are", async () => {
  const number = extension("2.5.29.20", false, new Integer({ value: 7 }).toBER());
  const overrides: CrlOverrides = { extensions: [number, point(0x81)], entryExtensions: [reason] };
  assert.deepEqual(revokedBy(await buildCrl(root, [plainLeaf], overrides)), ["plain"]);
});

const refused: readonly (readonly [
  what: string,
  file: () => Promise<Uint8Array>,
  reason: RegExp,
])[] = [
  ["text", async () => Buffer.from("revoked"), /it is no certificate list$/],
  [
    "a certificate",
    async () => chainDer([plainLeaf]),
    /unknown signature algorithm|issuer or date/,
  ],
  ["two lists in DER", async () => Buffer.concat([ofLeaf, ofLeaf]), /it is no certificate list$/],
  ["half a list", async () => ofLeaf.subarray(0, 90), /it is no certificate list$/],
  ["PEM without an end", async () => Buffer.from(crlPem(ofLeaf).slice(0, 200)), /has no end$/],
  [
    "a delta",
    () => buildCrl(root, [plainLeaf], { extensions: [delta] }),
    /critical extension 551d1b$/,
  ],
  [
    "an indirect list",
    () => buildCrl(root, [plainLeaf], { extensions: [point(0x84)] }),
    /indirect/,
  ],
  [
    "a list of some reasons",
    () => buildCrl(root, [plainLeaf], { extensions: [point(0x83)] }),
    /indirect/,
  ],
  [
    "an entry of another issuer",
    () => buildCrl(root, [plainLeaf], { entryExtensions: [named] }),
    /an entry has a critical extension$/,
  ],
];
for (const [what, file, message] of refused) {
  test(`${what} is refused as a whole`, async () => {
    const bytes = await file();
    assert.throws(
      () => parseRevocationLists(bytes),
      (error) => {
        assert.ok(error instanceof TlsError);
        assert.match(error.message, message);
        return true;
      },
    );
  });
}

test("a chain is readable when it has an issuer and every link can be read", () => {
  assert.ok(isReadableChain(plainChain));
  assert.ok(!isReadableChain(chainDer([plainLeaf])));
  assert.ok(!isReadableChain(new Uint8Array()));
  assert.ok(!isReadableChain(plainChain.subarray(0, -1)));
  assert.ok(!isReadableChain(Uint8Array.of(0x30, 0, 0x30, 0)));
});

test("whatever the bytes, a file is read or refused and a chain is judged", () => {
  const revocations = new Revocations(parseRevocationLists(ofLeaf));
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc
      .tuple(fc.constantFrom(ofLeaf, ofDeepLeaf, plainChain, deepChain), fc.nat(), fc.nat(255))
      .map(([good, at, value]) => {
        const bad = Uint8Array.from(good);
        bad[at % bad.length] = value;
        return bad;
      }),
  );
  fc.assert(
    fc.property(bytes, (input) => {
      revocations.isRevoked(input);
      try {
        new Revocations(parseRevocationLists(input)).isRevoked(plainChain);
      } catch (error) {
        assert.ok(error instanceof TlsError, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import { EmbeddedAuthority } from "../../src/embedded/certificate-authority.ts";
import { CertificateCache } from "../../src/identity/certificate-cache.ts";
import { certificateOrder } from "../../src/identity/certificate-order.ts";
import type { WorkloadCertificate } from "../../src/mesh/workload-certificate.ts";
import { systemRandom } from "../../src/runtime/random.ts";
import { CapturedLog } from "../support/captured-log.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { testCa, testIdentity } from "../support/test-ca.ts";

const cart = testIdentity("cart", "shop");

/** Every piece of a key that could be recognised in a text, also when that is base64 once more. */
function pieces(privateKeyPem: string): string[] {
  const lines = privateKeyPem.split("\n").filter((line) => line !== "" && !line.startsWith("-"));
  return ["PRIVATE KEY", Buffer.from(privateKeyPem).toString("base64").slice(40, 80), ...lines];
}

test("no log, dump, request or error holds a piece of a private key", async () => {
  const clock = new FakeClock();
  const authority = await EmbeddedAuthority.inMemory(clock);
  const stranger = await (await testCa()).certificate(cart);
  const log = new CapturedLog("trace");
  const told: string[] = [];
  const certificates: WorkloadCertificate[] = [];
  let answer: "good" | "foreign" | "none" = "good";
  const order = certificateOrder(
    {
      authority: {
        async sign(identity, csrPem) {
          told.push(csrPem);
          if (answer === "none") throw new Error("no");
          if (answer === "foreign") return [...stranger.chainPem, ...stranger.rootsPem];
          return authority.sign(identity, csrPem);
        },
      },
      log: log.root,
    },
    { checkIdentity: true },
  );
  const fetch = async (identity: typeof cart): Promise<WorkloadCertificate> => {
    const certificate = await order(identity);
    certificates.push(certificate);
    return certificate;
  };
  const cache = new CertificateCache(
    {
      fetch,
      clock,
      random: systemRandom(),
      log: log.root,
      skew: { observe() {} },
      metrics: { ended() {} },
    },
    { waitMs: 10_000 },
  );
  await cache.certificate(cart, "real-time");
  told.push(JSON.stringify(cache.dump()));
  for (answer of ["foreign", "none"] as const) {
    const other = testIdentity(answer, "shop");
    const error: unknown = await cache.certificate(other, "real-time").catch((thrown) => thrown);
    told.push(inspect(error, { depth: 10 }));
  }
  cache.prefetch(testIdentity("next", "shop"));
  await clock.advance(10);
  told.push(JSON.stringify(cache.dump()), JSON.stringify(log.lines), inspect(cache));
  cache.close();

  const [certificate] = certificates;
  assert.ok(certificate !== undefined);
  for (const piece of pieces(certificate.privateKeyPem)) {
    for (const text of told) assert.ok(!text.includes(piece), `${piece} in ${text}`);
  }
});

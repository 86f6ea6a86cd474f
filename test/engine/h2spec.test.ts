/**
 * The conformance tests of h2spec against the batch engine, whose owner takes any request and
 * answers as a file server would. `test/netns/h2spec.test.ts` runs them against the daemon.
 */
import assert from "node:assert/strict";
import { connect } from "node:net";
import { test } from "node:test";
import { BatchEngine } from "../../src/engine/batch-engine.ts";
import { native } from "../../src/net/native.ts";
import { createReactor } from "../../src/net/reactor.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { connectOptions, HALF_CLOSED, SETTINGS, TunnelLab } from "../conformance/engine-lab.ts";
import { RawServer } from "../conformance/raw-peer.ts";
import { requireH2spec, runH2spec } from "../support/h2spec/h2spec.ts";
import { testIdentity } from "../support/test-ca.ts";
import { startTlsShim } from "../support/tls-shim.ts";

/** What h2spec expects and we do not do. Each must fail, or it leaves the table. */
const EXCEPTIONS: ReadonlyMap<string, string> = new Map([
  [
    "generic/4: Sends a POST request with trailers",
    "a tunnel has none: RFC 9113 section 8.5 takes only DATA after the request",
  ],
  [
    "http2/5.3.1: Sends HEADERS frame that depend on itself",
    "RFC 9113 section 5.3.2 took priorities away; they are read over",
  ],
  ["http2/5.3.1: Sends PRIORITY frame that depend on itself", "the same"],
  [
    'http2/8.1.2.6: Sends a HEADERS frame with the "content-length" header field which does not equal the DATA frame payload length',
    "a CONNECT has no content whose length could be wrong: RFC 9110 section 9.3.6",
  ],
  [
    'http2/8.1.2.6: Sends a HEADERS frame with the "content-length" header field which does not equal the sum of the multiple DATA frames payload length',
    "the same",
  ],
]);

/** Of the version in go.mod. */
const CASES = 146;

test("h2spec finds what is listed, nothing else", { skip: requireH2spec() }, async () => {
  const engine = new BatchEngine(
    {
      native,
      clock: systemClock,
      makeReactor: createReactor,
      unexpected: (error) => assert.fail(String(error)),
    },
    HALF_CLOSED,
  );
  // The size that h2spec believes everybody to have.
  const lab = await TunnelLab.open(engine, { settings: { ...SETTINGS, frameBytesMax: 16_384 } });
  const application = await RawServer.listen();
  lab.requested = (request) => {
    void engine.connect(connectOptions(application.address)).then((upstream) => {
      engine.relay(request.accept([]), upstream, () => {});
    });
  };
  void serve(application);
  const { chainPem, privateKeyPem } = await lab.ca.certificate(testIdentity("client"));
  const { ip, port } = lab.listener.address;
  const shim = await startTlsShim(async () => connect({ host: ip, port }), {
    cert: chainPem.join(""),
    key: privateKeyPem,
    ca: lab.ca.rootPem,
  });
  try {
    const { failed, passedCount } = await runH2spec(shim.port);
    assert.deepEqual(failed, [...EXCEPTIONS.keys()]);
    assert.equal(passedCount, CASES - EXCEPTIONS.size);
  } finally {
    shim.close();
    lab.listener.close();
    application.close();
    engine.close();
  }
});

/** Says something at once, and ends when the client has. */
async function serve(application: RawServer): Promise<void> {
  for (;;) {
    const peer = await application.accept();
    peer.send("what was asked for");
    void peer.seenEnd.then(() => peer.end());
  }
}

/**
 * The conformance tests of h2spec against 15008 of the built daemon. It asks for pages, which the
 * daemon refuses at once as it refuses whatever is no CONNECT, so that cases about streams that
 * stay open can't be met here: `test/engine/h2spec.test.ts` has those.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { requireH2spec, runH2spec } from "../support/h2spec/h2spec.ts";
import { connectFrom } from "../support/lab-application.ts";
import { labCertificate, workloadName } from "../support/lab-certificate.ts";
import { MeshLab } from "../support/mesh-lab.ts";
import { requireNetns } from "../support/netns-lab.ts";
import { startTlsShim } from "../support/tls-shim.ts";

const POD_IP = "10.80.0.21";

const MESH = `workloads:
- {uid: lab//Pod/default/server, name: server, namespace: default, serviceAccount: server,
   trustDomain: cluster.local, workloadIps: [${POD_IP}], protocol: HBONE, node: node,
   clusterId: Kubernetes, workloadName: server, workloadType: deployment, canonicalName: server,
   canonicalRevision: v1, services: {}, authorizationPolicies: []}
services: []
policies: []
`;

const REFUSED =
  "the stream is refused and reset by then, and frames on their way to it mean nothing";
const PRIORITY = "RFC 9113 section 5.3.2 took priorities away; they are read over";

/** What h2spec expects and the daemon does not do. Each must fail, or it leaves the table. */
const EXCEPTIONS: ReadonlyMap<string, string> = new Map([
  [
    "generic/2: Sends a WINDOW_UPDATE frame on half-closed (remote) stream",
    "a refusal has no content",
  ],
  ["generic/2: Sends a PRIORITY frame on half-closed (remote) stream", "the same"],
  [
    "http2/4.2: Sends a large size HEADERS frame that exceeds the SETTINGS_MAX_FRAME_SIZE",
    "ours is 1 MiB, as the original's; h2spec sends 20 kB",
  ],
  ["http2/5.1: closed: Sends a DATA frame after sending RST_STREAM frame", REFUSED],
  ["http2/5.1: closed: Sends a HEADERS frame after sending RST_STREAM frame", REFUSED],
  [
    "http2/5.1.2: Sends HEADERS frames that causes their advertised concurrent stream limit to be exceeded",
    "a refused stream does not count any more",
  ],
  ["http2/5.3.1: Sends HEADERS frame that depend on itself", PRIORITY],
  ["http2/5.3.1: Sends PRIORITY frame that depend on itself", PRIORITY],
  [
    "http2/6.9: Sends a WINDOW_UPDATE frame with a flow control window increment of 0 on a stream",
    REFUSED,
  ],
  [
    "http2/6.9.1: Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 on a stream",
    REFUSED,
  ],
  ["http2/8.1: Sends a second HEADERS frame without the END_STREAM flag", REFUSED],
  ["http2/8.1.2.1: Sends a HEADERS frame that contains a pseudo-header field as trailers", REFUSED],
  [
    'http2/8.1.2.6: Sends a HEADERS frame with the "content-length" header field which does not equal the DATA frame payload length',
    REFUSED,
  ],
  [
    'http2/8.1.2.6: Sends a HEADERS frame with the "content-length" header field which does not equal the sum of the multiple DATA frames payload length',
    REFUSED,
  ],
]);

/** Of 146, less four that h2spec itself leaves out for want of content. */
const CASES = 142;

const SKIP = requireNetns("iptables") || requireH2spec();

test("h2spec finds what is listed, nothing else", { skip: SKIP }, async () => {
  const lab = await MeshLab.start({
    nodes: {
      node: { ip: "10.80.0.2", pods: [{ name: "server", ip: POD_IP }] },
    },
    outsiders: { outside: "10.80.0.34" },
    mesh: MESH,
    controlIp: "10.80.0.250",
    gatewayIp: "10.80.0.254",
    prefixLength: 24,
  });
  try {
    const certificate = await labCertificate(lab, workloadName("client"));
    const dial = () => connectFrom(lab.host("outside"), POD_IP, 15008);
    const shim = await startTlsShim(dial, certificate);
    const { failed, passedCount } = await runH2spec(shim.port);
    shim.close();
    assert.deepEqual(failed, [...EXCEPTIONS.keys()]);
    assert.equal(passedCount, CASES - EXCEPTIONS.size);
  } finally {
    await lab.close();
  }
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { EngineError } from "../../src/engine/engine-error.ts";
import {
  applicationConnectError,
  bindError,
  handshakeError,
  httpStatusError,
  outboundConnectError,
} from "../../src/proxy/engine-failure.ts";
import {
  drainError,
  identityError,
  localWorkloadError,
  type ProxyError,
  policyChangeError,
  policyRejectionError,
  responseFlag,
} from "../../src/proxy/proxy-error.ts";
import { unroutableError } from "../../src/proxy/route-error.ts";
import { address, mesh } from "../support/mesh-fixture.ts";

const refused = new EngineError("system", "connect ECONNREFUSED", { errno: "ECONNREFUSED" });
const timeout = new EngineError("connect-timeout", "no answer in 10000 ms");
const mismatch = new EngineError(
  "peer-identity",
  "identity verification error: peer did not present the expected SAN (a), got b",
);
const IN_USE = new EngineError("system", "bind", { errno: "EADDRINUSE" });
const ENROLLED = { uid: "u", name: "web-1", namespace: "shop", serviceAccount: "web" };

const texts: readonly [ProxyError, flag: string, message: string][] = [
  [outboundConnectError(refused, true), "CONNECT", "io error: Connection refused (os error 111)"],
  [outboundConnectError(refused, false), "CONNECT", "io error: Connection refused (os error 111)"],
  [
    outboundConnectError(new EngineError("system", "x", { errno: "EHOSTUNREACH" }), false),
    "CONNECT",
    "io error: No route to host (os error 113)",
  ],
  [outboundConnectError(timeout, false), "CONNECT", "io error: deadline has elapsed"],
  [
    outboundConnectError(timeout, true),
    "NETWORK_POLICY",
    "connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: deadline has elapsed",
  ],
  [
    outboundConnectError(mismatch, true),
    "CONNECT",
    "io error: invalid peer certificate: Other(OtherError(identity verification error: peer did not present the expected SAN (a), got b))",
  ],
  [
    outboundConnectError(new EngineError("handshake", "received fatal alert"), true),
    "CONNECT",
    "io error: received fatal alert",
  ],
  [
    outboundConnectError(new EngineError("stream-reset", "stream error"), true),
    "H2_HANDSHAKE_FAILURE",
    "h2 failed: stream error",
  ],
  [
    outboundConnectError(new EngineError("tunnel-closed", "broken pipe"), true),
    "H2_HANDSHAKE_FAILURE",
    "h2 failed: broken pipe",
  ],
  [httpStatusError(401), "CONNECT", "http status: 401 Unauthorized"],
  [httpStatusError(503), "CONNECT", "http status: 503 Service Unavailable"],
  [httpStatusError(299), "CONNECT", "http status: 299 <unknown status code>"],
  [
    applicationConnectError(refused),
    "CONNECT",
    "connection failed: Connection refused (os error 111)",
  ],
  [applicationConnectError(timeout), "CONNECT", "connection failed: deadline has elapsed"],
  [
    handshakeError(new EngineError("handshake", "no certificate")),
    "TLS_FAILURE",
    "tls handshake error: no certificate",
  ],
  [identityError(new Error("signing failed")), "IDENTITY_ERROR", "identity error: signing failed"],
  [
    policyRejectionError("explicitly denied by: a/b"),
    "DENY",
    "connection closed due to policy rejection: explicitly denied by: a/b",
  ],
  [policyChangeError(), "DENY", "connection closed due to policy change"],
  [drainError(), "-", "connection closed due to connection drain"],
  [
    localWorkloadError(ENROLLED),
    "CONNECT",
    "failed to fetch information about local workload: web.shop (web-1)",
  ],
  [
    unroutableError(mesh.workload("w").with({ uid: "" }).value),
    "CONNECT",
    "no valid routing destination for workload: w",
  ],
  [
    bindError(address("[::]:15006"), IN_USE),
    "CONNECT",
    'Bind([::]:15006, Os { code: 98, kind: AddrInUse, message: "Address already in use" })',
  ],
  [
    bindError(address("0.0.0.0:15001"), new EngineError("system", "no such option")),
    "CONNECT",
    "Bind(0.0.0.0:15001, no such option)",
  ],
];
for (const [error, flag, message] of texts) {
  test(`the log says "${message}" and the metrics ${flag}`, () => {
    assert.equal(error.message, message);
    assert.equal(responseFlag(error), flag);
  });
}

test("a connection that ended well has no flag", () => {
  assert.equal(responseFlag(undefined), "-");
});

/** The engine that stories about the data path are told with must end and count as the real ones. */
import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";
import { byteStreamSuite } from "../conformance/byte-stream.ts";
import { memoryApplications } from "../conformance/memory-peer.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { LeakCheck } from "../support/leak-check.ts";
import { memoryCertificate } from "../support/memory-certificate.ts";
import { type MemoryEngine, MemoryNetwork } from "../support/memory-engine.ts";

byteStreamSuite("memory engine", {
  makeEngine() {
    const network = new MemoryNetwork(new FakeClock());
    network.host("127.0.0.1");
    return network.engine;
  },
  surroundings(engine) {
    const { network } = engine as MemoryEngine;
    return {
      applications: memoryApplications(network, network.podOf(undefined)),
      ca: {
        rootPem: "root",
        signer: () => assert.fail("its certificates are not signed"),
        certificate: async (identity) => memoryCertificate(identity),
      },
    };
  },
  hasBackPressure: false,
  leakCheck: () => new LeakCheck(),
  delay,
});

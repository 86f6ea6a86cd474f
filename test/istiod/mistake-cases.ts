/** A daemon that is set up wrong: what its log says, and that it never becomes ready by accident. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { waitUntil } from "../support/wait-until.ts";
import { outcome } from "./calls.ts";
import { IstiodNode } from "./istiod-node.ts";
import { PODS, type Stage } from "./stage.ts";

const { frontend, db1 } = PODS;

export async function mistakeCases(stage: Stage): Promise<void> {
  const { istiod } = stage;
  const host = stage.addHost("node3", "10.244.3.2");
  const node = await IstiodNode.start(stage.net, host, istiod, {
    name: "node3",
    pod: "ztunnel-node1",
  });
  const file = (name: string, text: string): string => {
    const path = join(istiod.folder, name);
    writeFileSync(path, text);
    return path;
  };
  const frontendToken = await istiod.token("shop", frontend.serviceAccount, frontend.name);

  for (const [mistake, environment, said] of [
    [
      "a token that nobody signed",
      { AUTH_TOKEN: file("nonsense", "nonsense") },
      /status: Unauthenticated, message: "authentication failure" \(hint: check the control plane logs/,
    ],
    [
      "the token of another service account",
      { AUTH_TOKEN: file("frontend-token", frontendToken) },
      /status: PermissionDenied, message: "authorization failed: no identities \(\[spiffe:\/\/cluster\.local\/ns\/shop\/sa\/frontend\]\) matched istio-system\/"/,
    ],
    [
      "the name of a cluster that istiod does not know",
      { ISTIO_META_CLUSTER_ID: "Elsewhere" },
      /status: Unauthenticated, message: "authentication failure"/,
    ],
    [
      "a root that did not sign istiod's certificate",
      { XDS_ROOT_CA: "/etc/ssl/certs/ca-certificates.crt" },
      /connecting to https:\/\/localhost:15012: status: Unavailable, message: ".*certificate/,
    ],
  ] as const) {
    test(`${mistake}: no readiness, and the log says why`, async () => {
      const before = node.daemon.lines.length;
      await node.spawnDaemon(environment);
      try {
        await waitUntil(
          () => node.daemon.lines.slice(before).some((line) => said.test(messageOf(line))),
          `never said ${said}`,
        );
        assert.equal(await node.daemon.isReady(), false);
      } finally {
        await node.daemon.stop();
      }
    });
  }

  test("the token of another node: the mesh is known, certificates are refused, so are connections", async () => {
    const token = await istiod.token("istio-system", "ztunnel", "ztunnel-node2");
    const before = node.daemon.lines.length;
    await node.startDaemon({ AUTH_TOKEN: file("node2-token", token) });
    const pod = stage.addHost("copy", "10.244.3.10");
    await node.attach(pod, frontend);
    try {
      assert.equal(await outcome(pod, db1.ip, 5432), "refused");
      const said = "request impersonation authentication failure";
      for (const scope of ["ztunnel::identity", "access"]) {
        await waitUntil(
          () =>
            node.daemon.lines
              .slice(before)
              .some((line) => line.includes(scope) && line.includes(said)),
          `${scope} never said ${said}`,
        );
      }
      assert.ok(
        istiod.log.some((line) =>
          line.includes('no instances of "shop/frontend" found on node "node2"'),
        ),
      );
    } finally {
      await node.detach(frontend.name);
      await node.daemon.stop();
      node.close();
    }
  });
}

function messageOf(line: string): string {
  return (JSON.parse(line) as { readonly message: string }).message;
}

/** Every combination of modes is judged by the evaluator that proxies use. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { KubernetesFields } from "../../src/embedded/kubernetes-fields.ts";
import {
  PeerAuthentications,
  readPeerAuthentication,
} from "../../src/embedded/kubernetes-peer-authentications.ts";
import { policyKey } from "../../src/embedded/kubernetes-policies.ts";
import { parseIpAddress } from "../../src/mesh/ip-address.ts";
import { evaluatePolicies } from "../../src/rbac/evaluate.ts";
import { decodeAuthorization } from "../../src/wire/authorization-resource.ts";
import { Authorization } from "../../src/wire/proto/istio-security.ts";

const MODES = ["", "UNSET", "DISABLE", "PERMISSIVE", "STRICT"] as const;
const SET = ["DISABLE", "PERMISSIVE", "STRICT"] as const;
const PORT = 8080;
const LABELS = new Map([["app", "a"]]);
const ip = parseIpAddress("10.0.0.1");

type Mode = (typeof MODES)[number];

/** What holds for a port: the first word that is said, from the port outwards. */
function expectedMode(...saidFromInside: readonly Mode[]): Mode {
  return saidFromInside.find((mode) => mode !== "" && mode !== "UNSET") ?? "PERMISSIVE";
}

function authentication(name: string, namespace: string, spec: Record<string, unknown>) {
  const fail = (path: unknown, problem: string) => assert.fail(`${path}: ${problem}`);
  const fields = new KubernetesFields({ spec }, [], fail);
  const metadata = { name, namespace, labels: new Map(), annotations: new Map() };
  return readPeerAuthentication(metadata, fields);
}

/** Whether a connection without an identity may come to the port. */
function admitsPlaintext(all: PeerAuthentications, port: number): boolean {
  const policies = new Map(all.policies().map((policy) => [policyKey(policy), policy]));
  const named = all.keysFor("shop", LABELS).map((key) => {
    const policy = policies.get(key);
    assert.ok(policy, `${key} is named and not there`);
    return decodeAuthorization(Authorization.encode(policy).finish());
  });
  assert.ok(ip);
  const connection = {
    source: { ip, port: 1 },
    sourceIdentity: undefined,
    destination: { ip, port },
    destinationNetwork: "",
  };
  return evaluatePolicies(named, connection).kind === "allow";
}

test("a connection without identity is denied exactly where STRICT holds", () => {
  for (const mesh of MODES)
    for (const namespace of MODES)
      for (const workload of MODES)
        for (const port of MODES) {
          const all = new PeerAuthentications(
            [
              ...(mesh ? [authentication("default", "root", { mtls: { mode: mesh } })] : []),
              ...(namespace ? [authentication("ns", "shop", { mtls: { mode: namespace } })] : []),
              ...(workload || port
                ? [
                    authentication("own", "shop", {
                      selector: { matchLabels: { app: "a" } },
                      ...(workload && { mtls: { mode: workload } }),
                      ...(port && { portLevelMtls: { [PORT]: { mode: port } } }),
                    }),
                  ]
                : []),
            ],
            "root",
          );
          const rest = expectedMode(workload, namespace, mesh);
          // In a STRICT namespace or mesh istiod lets only the word PERMISSIVE open a port.
          const inherits = workload === "" || workload === "UNSET";
          const stays = port === "DISABLE" && inherits && rest === "STRICT";
          const here = stays ? rest : expectedMode(port, rest);
          const words = JSON.stringify({ mesh, namespace, workload, port });
          assert.equal(admitsPlaintext(all, PORT), here !== "STRICT", `port, ${words}`);
          assert.equal(admitsPlaintext(all, 9999), rest !== "STRICT", `others, ${words}`);
        }
});

test("of two for the same workloads the older counts", () => {
  const [strict, open] = ["STRICT", "PERMISSIVE"].map((mode, index) =>
    authentication(`n${index}`, "shop", { mtls: { mode } }),
  );
  assert.ok(strict && open);
  assert.equal(admitsPlaintext(new PeerAuthentications([strict, open], "root"), PORT), false);
  assert.equal(admitsPlaintext(new PeerAuthentications([open, strict], "root"), PORT), true);
});

test("the strict policy is there with the first peer authentication, whatever it says", () => {
  for (const mode of SET) {
    const all = new PeerAuthentications([authentication("a", "shop", { mtls: { mode } })], "root");
    assert.deepEqual(all.policies().map(policyKey), ["root/istio_converted_static_strict"]);
  }
  assert.deepEqual(new PeerAuthentications([], "root").policies(), []);
});

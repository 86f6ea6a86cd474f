import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { connectHeaders, workloadBaggage } from "../../src/hbone/connect-request.ts";
import type { IpAddress } from "../../src/mesh/ip-address.ts";
import type { Workload } from "../../src/mesh/workload.ts";
import { parseBaggage } from "../../src/wire/baggage.ts";
import { mesh } from "../support/mesh-fixture.ts";

const client1 = mesh
  .workload("client1")
  .with({ uid: "cluster1//v1/Pod/default/client1" })
  .at("10.77.0.11")
  .on("node-a")
  .hbone().value;

describe("the headers of a CONNECT", () => {
  test("are those of the original, in its order", () => {
    assert.deepEqual(
      connectHeaders({
        baggage: workloadBaggage(client1),
        client: { ip: "10.77.0.11" as IpAddress, port: 42152 },
        serviceHostname: undefined,
        traceparent: "00-a8d04109924644e61a70fa51a6c26c3f-6be57aab08e5058f-00",
      }),
      [
        [
          "baggage",
          "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=client1,service.name=client1,service.version=v1",
        ],
        ["forwarded", 'for="10.77.0.11:42152"'],
        ["traceparent", "00-a8d04109924644e61a70fa51a6c26c3f-6be57aab08e5058f-00"],
      ],
    );
  });

  test("name the service when it is known, and baggage stays when it is empty", () => {
    const nobody: Workload = {
      ...client1,
      clusterId: "",
      namespace: "",
      workloadName: "",
      canonicalName: "",
      canonicalRevision: "",
    };
    assert.deepEqual(
      connectHeaders({
        baggage: workloadBaggage(nobody),
        client: { ip: "::1" as IpAddress, port: 80 },
        serviceHostname: "echo.default.svc.cluster.local",
        traceparent: "t",
      }),
      [
        ["baggage", ""],
        ["forwarded", 'for="[::1]:80";host=echo.default.svc.cluster.local'],
        ["traceparent", "t"],
      ],
    );
  });
});

test("a workload's baggage has its region and zone, not its subzone", () => {
  const locality = { region: "r1", zone: "z1", subzone: "rack1" };
  const { region, zone } = parseBaggage(workloadBaggage({ ...client1, locality }));
  assert.deepEqual([region, zone], ["r1", "z1"]);
});

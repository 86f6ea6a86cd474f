import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { type Baggage, formatBaggage, parseBaggage } from "../../src/wire/baggage.ts";

const NOTHING: Baggage = {
  clusterId: "",
  namespace: "",
  workloadType: "",
  workloadName: "",
  canonicalName: "",
  canonicalRevision: "",
  region: "",
  zone: "",
};

const both: readonly (readonly [what: string, baggage: Partial<Baggage>, header: string])[] = [
  ["nothing known (empty)", {}, ""],
  [
    "a deployment as recorded",
    {
      clusterId: "Kubernetes",
      namespace: "default",
      workloadType: "deployment",
      workloadName: "client1",
      canonicalName: "client1",
      canonicalRevision: "v1",
    },
    "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=client1,service.name=client1,service.version=v1",
  ],
  [
    "a job with its locality",
    { workloadType: "job", workloadName: "report", region: "r1", zone: "z1" },
    "k8s.job.name=report,cloud.region=r1,cloud.availability_zone=z1",
  ],
  ["a cron job", { workloadType: "cronjob", workloadName: "c" }, "k8s.cronjob.name=c"],
  ["a pod", { workloadType: "pod", workloadName: "p" }, "k8s.pod.name=p"],
];

const parsed: readonly (readonly [what: string, header: string, baggage: Partial<Baggage>])[] = [
  [
    "multi-line: several header lines joined",
    "k8s.cluster.name=a,service.name=b",
    { clusterId: "a", canonicalName: "b" },
  ],
  ["an empty value", "k8s.namespace.name=,service.name=b", { canonicalName: "b" }],
  ["a later empty value", "k8s.pod.name=a,k8s.pod.name=", { workloadType: "", workloadName: "" }],
  [
    "another kind of workload later",
    "k8s.pod.name=a,k8s.job.name=b",
    { workloadType: "job", workloadName: "b" },
  ],
  ["a second equals sign", "service.name=a=b", { canonicalName: "a" }],
  ["a key with blanks", " service.name=a,service.name =a", {}],
  ["a value with blanks", "service.name= a ", { canonicalName: " a " }],
  ["no equals sign", "service.name", {}],
  ["unknown keys", "x=1,k8s.daemonset.name=d,k8s..name=e,constructor=1", {}],
  ["a character that is not ASCII", "service.name=a,cloud.region=é", {}],
  ["a control character", "service.name=a\n", {}],
];

describe("baggage", () => {
  for (const [what, baggage, header] of both) {
    test(`${what} is written`, () => {
      assert.equal(formatBaggage({ ...NOTHING, ...baggage }), header);
    });
    test(`${what} is read`, () => {
      assert.deepEqual(parseBaggage(header), { ...NOTHING, ...baggage });
    });
  }

  for (const [what, header, baggage] of parsed) {
    test(`${what}: ${JSON.stringify(header)}`, () => {
      assert.deepEqual(parseBaggage(header), { ...NOTHING, ...baggage });
    });
  }

  test("round trip: what is written is read again", () => {
    const text = fc.stringMatching(/^[A-Za-z0-9._/-]{1,16}$/);
    const kind = fc.constantFrom("deployment", "job", "cronjob", "pod");
    const baggages = fc.record({
      clusterId: text,
      namespace: text,
      workloadType: kind,
      workloadName: text,
      canonicalName: text,
      canonicalRevision: text,
      region: text,
      zone: text,
    });
    fc.assert(
      fc.property(baggages, (baggage) => {
        assert.deepEqual(parseBaggage(formatBaggage(baggage)), { ...baggage });
      }),
      { verbose: true },
    );
  });

  test("a value that no header can carry is left out", () => {
    const baggage = { ...NOTHING, clusterId: "münchen", namespace: "a\r\nb: c", region: "r1" };
    assert.equal(formatBaggage(baggage), "cloud.region=r1");
  });

  test("a name without a kind is not written", () => {
    assert.equal(formatBaggage({ ...NOTHING, workloadName: "a" }), "");
  });
});

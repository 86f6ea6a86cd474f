/** Resources as the mesh's nouns, against what a real control plane sent. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { AuthorizationPolicy } from "../../src/mesh/authorization.ts";
import { parseCidr } from "../../src/mesh/cidr.ts";
import { parseIpAddress } from "../../src/mesh/ip-address.ts";
import { serviceKey } from "../../src/mesh/service.ts";
import { decodeAddress, encodeAddress } from "../../src/wire/address-resource.ts";
import { decodeAuthorization, encodeAuthorization } from "../../src/wire/authorization-resource.ts";
import { deltaDiscoveryMethod } from "../../src/wire/delta-discovery.ts";
import { encodeMessage } from "../../src/wire/message-codec.ts";
import * as security from "../../src/wire/proto/istio-security.ts";
import * as workloads from "../../src/wire/proto/istio-workload.ts";
import { WireError } from "../../src/wire/wire-error.ts";

/** Name → bytes of each resource of a recorded discovery response. */
function recorded(file: string): ReadonlyMap<string, Uint8Array> {
  const bytes = readFileSync(new URL(`recorded/${file}.bin`, import.meta.url));
  const { resources } = deltaDiscoveryMethod.responseDeserialize(bytes);
  return new Map(
    resources.map(({ name, resource }) => [name, resource?.value ?? new Uint8Array()]),
  );
}

const addresses = recorded("addresses");
const authorizations = recorded("authorizations");

const EMPTY_WORKLOAD = workloads.Workload.decode(new Uint8Array());
const EMPTY_SERVICE = workloads.Service.decode(new Uint8Array());
const EMPTY_POLICY = security.Authorization.decode(new Uint8Array());
const EMPTY_MATCH = security.Match.decode(new Uint8Array());

function workloadBytes(fields: Partial<workloads.Workload>): Uint8Array {
  const value = { ...EMPTY_WORKLOAD, uid: "w", ...fields };
  return encodeMessage(workloads.Address, { type: { $case: "workload", value } });
}

function serviceBytes(fields: Partial<workloads.Service>): Uint8Array {
  const value = { ...EMPTY_SERVICE, ...fields };
  return encodeMessage(workloads.Address, { type: { $case: "service", value } });
}

function matchBytes(fields: Partial<security.Match>): Uint8Array {
  return encodeMessage(security.Authorization, {
    ...EMPTY_POLICY,
    rules: [{ clauses: [{ matches: [{ ...EMPTY_MATCH, ...fields }] }] }],
  });
}

describe("address resources", () => {
  test("every recorded one is known by the name that its content gives it", () => {
    assert.equal(addresses.size, 66);
    for (const [name, bytes] of addresses) {
      const resource = decodeAddress(bytes);
      const own =
        resource.kind === "workload" ? resource.workload.uid : serviceKey(resource.service);
      assert.equal(own, name);
    }
  });

  test("every recorded one encodes to bytes that mean the same", () => {
    for (const bytes of addresses.values()) {
      const resource = decodeAddress(bytes);
      assert.deepEqual(decodeAddress(encodeAddress(resource)), resource);
    }
  });

  test("a recorded pod has what the cluster says of it", () => {
    const resource = decodeAddress(addresses.get("Kubernetes//Pod/shop/db-0") ?? new Uint8Array());
    assert(resource.kind === "workload");
    const { workload } = resource;
    assert.equal(workload.protocol, "HBONE");
    assert.deepEqual(workload.ips, ["10.244.1.20"]);
    assert.equal(workload.trustDomain, "cluster.local");
    assert.equal(workload.workloadType, "pod");
    assert.equal(workload.capacity, 1);
    assert.deepEqual(workload.waypoint, {
      destination: {
        kind: "hostname",
        namespace: "shop",
        hostname: "waypoint.shop.svc.cluster.local",
      },
      hboneMtlsPort: 15008,
    });
  });

  test("what a control plane leaves out gets the original's defaults", () => {
    const resource = decodeAddress(workloadBytes({}));
    assert(resource.kind === "workload");
    const { trustDomain, serviceAccount, clusterId, capacity, workloadType } = resource.workload;
    assert.deepEqual(
      { trustDomain, serviceAccount, clusterId, capacity, workloadType },
      {
        trustDomain: "cluster.local",
        serviceAccount: "default",
        clusterId: "Kubernetes",
        capacity: 1,
        workloadType: "deployment",
      },
    );
  });

  test("a capacity of 0 stays 0", () => {
    const resource = decodeAddress(workloadBytes({ capacity: 0 }));
    assert(resource.kind === "workload");
    assert.equal(resource.workload.capacity, 0);
  });

  test("an address with a shorter prefix than its own is a range", () => {
    const address = Uint8Array.of(192, 0, 2, 7);
    const resource = decodeAddress(
      serviceBytes({
        addresses: [
          { network: "", address, length: 24 },
          { network: "", address, length: 32 },
          { network: "n", address },
        ],
      }),
    );
    assert(resource.kind === "service");
    const ip = parseIpAddress("192.0.2.7");
    assert.deepEqual(resource.service.vips, [
      { network: "", ip },
      { network: "n", ip },
    ]);
    assert.deepEqual(resource.service.cidrVips, [{ network: "", cidr: parseCidr("192.0.2.7/24") }]);
  });

  const refused: readonly [what: string, bytes: Uint8Array, reason: string | RegExp][] = [
    ["neither a workload nor a service", new Uint8Array(), "unknown address type"],
    ["bytes that are no message", Uint8Array.of(0x0a, 5, 1), /^undecodable Address: /],
    [
      "an address of five bytes",
      workloadBytes({ addresses: [new Uint8Array(5)] }),
      "failed to parse address, had 5 bytes",
    ],
    [
      "a service name without namespace",
      workloadBytes({ services: new Map([["web", { ports: [] }]]) }),
      "failed to parse namespaced hostname: web",
    ],
    [
      "Istio's mutual TLS of sidecars",
      workloadBytes({ tunnelProtocol: 2 }),
      "unknown enum: unsupported tunnel protocol: legacy istio mtls",
    ],
    [
      "a network mode of the future",
      workloadBytes({ networkMode: 7 as workloads.NetworkMode }),
      "decode error: network mode 7",
    ],
    [
      "a waypoint that is nowhere",
      workloadBytes({ waypoint: { destination: undefined, hboneMtlsPort: 15008 } }),
      "nonempty gateway address is missing address",
    ],
    [
      "a range longer than its address",
      serviceBytes({
        addresses: [{ network: "", address: Uint8Array.of(10, 0, 0, 0), length: 33 }],
      }),
      "invalid cidr: 10.0.0.0/33",
    ],
    [
      "a routing preference for nothing",
      serviceBytes({ loadBalancing: { routingPreference: [0], mode: 0, healthPolicy: 0 } }),
      "unknown enum: invalid target",
    ],
  ];
  for (const [what, bytes, reason] of refused) {
    test(`${what} is refused`, () => {
      assert.throws(() => decodeAddress(bytes), { name: "WireError", message: reason });
    });
  }

  test("a visibility of the future is public", () => {
    const resource = decodeAddress(serviceBytes({ visibility: 9 as workloads.Service_Visibility }));
    assert(resource.kind === "service");
    assert.equal(resource.service.visibility, "Public");
  });

  test("bytes of any kind are decoded or refused with a WireError", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
        for (const decode of [decodeAddress, decodeAuthorization]) {
          try {
            decode(bytes);
          } catch (error) {
            assert(error instanceof WireError);
          }
        }
      }),
    );
  });
});

describe("authorization resources", () => {
  test("every recorded one is known by its name and encodes to bytes that mean the same", () => {
    assert.equal(authorizations.size, 14);
    for (const [name, bytes] of authorizations) {
      const policy = decodeAuthorization(bytes);
      assert.equal(`${policy.namespace}/${policy.name}`, name);
      assert.deepEqual(decodeAuthorization(encodeAuthorization(policy)), policy);
    }
  });

  test("every kind of match survives", () => {
    const cidrs = ["10.0.0.0/8", "2001:db8::/32"].map((text) => parseCidr(text));
    const strings = [
      { kind: "exact", value: "a" },
      { kind: "prefix", value: "b" },
      { kind: "suffix", value: "c" },
      { kind: "presence" },
    ] as const;
    const accounts = [{ namespace: "n", serviceAccount: "s" }];
    const policy = {
      name: "p",
      namespace: "n",
      scope: "WorkloadSelector",
      action: "Deny",
      dryRun: true,
      rules: [
        [],
        [[]],
        [
          [
            {
              namespaces: strings,
              notNamespaces: strings,
              principals: strings,
              notPrincipals: strings,
              serviceAccounts: accounts,
              notServiceAccounts: accounts,
              sourceIps: cidrs,
              notSourceIps: cidrs,
              destinationIps: cidrs,
              notDestinationIps: cidrs,
              destinationPorts: [80, 443],
              notDestinationPorts: [22],
            },
          ],
        ],
      ],
    } as AuthorizationPolicy;
    assert.deepEqual(decodeAuthorization(encodeAuthorization(policy)), policy);
  });

  const refused: readonly [what: string, bytes: Uint8Array, reason: string][] = [
    [
      "a string match of no kind",
      matchBytes({ principals: [{ matchType: undefined }] }),
      "string match of an unknown kind",
    ],
    [
      "a range longer than its address",
      matchBytes({ sourceIps: [{ address: Uint8Array.of(10, 0, 0, 0), length: 99 }] }),
      "invalid cidr: 10.0.0.0/99",
    ],
    [
      "a range of three bytes",
      matchBytes({ notSourceIps: [{ address: new Uint8Array(3), length: 8 }] }),
      "invalid cidr: 3 bytes/8",
    ],
    [
      "an action of the future",
      encodeMessage(security.Authorization, { ...EMPTY_POLICY, action: 2 as security.Action }),
      "decode error: policy action 2",
    ],
  ];
  for (const [what, bytes, reason] of refused) {
    test(`a policy with ${what} is refused as a whole`, () => {
      assert.throws(() => decodeAuthorization(bytes), { name: "WireError", message: reason });
    });
  }
});

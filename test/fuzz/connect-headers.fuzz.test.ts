import assert from "node:assert/strict";
import fc from "fast-check";
import { formatSocketAddress } from "../../src/mesh/socket-address.ts";
import { type Baggage, formatBaggage, parseBaggage } from "../../src/wire/baggage.ts";
import { parseAuthority } from "../../src/wire/connect-authority.ts";
import { formatForwarded, parseForwardedHost } from "../../src/wire/forwarded.ts";
import { parseTraceparent } from "../../src/wire/traceparent.ts";
import { naiveAuthority, naiveBaggage, naiveForwardedHost } from "../support/naive-codecs.ts";
import { fuzz } from "./fuzz.ts";

/** Text made of the pieces that matter, so that deep branches are reached. */
function textOf(...pieces: string[]): fc.Arbitrary<string> {
  const piece = fc.oneof(
    fc.constantFrom(...pieces),
    fc.string({ unit: "grapheme-ascii", maxLength: 3 }),
  );
  return fc.array(piece, { maxLength: 8 }).map((parts) => parts.join(""));
}

const name = fc.stringMatching(/^[a-z0-9.-]{0,12}$/);
const baggage: fc.Arbitrary<Baggage> = fc
  .record({
    clusterId: name,
    namespace: name,
    workloadType: fc.constantFrom("deployment", "cronjob", "pod", "job"),
    workloadName: name,
    canonicalName: name,
    canonicalRevision: name,
    region: name,
    zone: name,
  })
  .map((value) => ({ ...value, workloadType: value.workloadName && value.workloadType }));

fuzz(
  "baggage reads back as it was written",
  fc.property(baggage, (value) => assert.deepEqual(parseBaggage(formatBaggage(value)), value)),
);

fuzz(
  "baggage of any text is what the naive parser sees",
  fc.property(
    textOf("k8s.cluster.name", "k8s.pod.name", "k8s.job.name", "service.name", "=", "=", ",", ","),
    (header) => assert.deepEqual(parseBaggage(header), naiveBaggage(header)),
  ),
);

fuzz(
  "what baggage writes can stand in a header",
  fc.property(fc.string({ unit: "binary" }), name, (wild, tame) => {
    const header = formatBaggage({
      ...parseBaggage(""),
      clusterId: wild,
      workloadType: "pod",
      workloadName: wild,
      region: tame,
    });
    assert.match(header, /^[\t\x20-\x7e]*$/);
  }),
);

fuzz(
  "a forwarded host reads back as it was written",
  fc.property(
    fc.oneof(fc.ipV4(), fc.ipV6()),
    name.filter((host) => host !== ""),
    (ip, host) => {
      const client = parseAuthority(ip.includes(":") ? `[${ip}]:80` : `${ip}:80`);
      assert(client?.kind === "address");
      assert.equal(parseForwardedHost(formatForwarded(client.address, host)), host);
    },
  ),
);

fuzz(
  "a forwarded host of any text is what the naive parser sees",
  fc.property(textOf("host=", "host=", '"', ";", " ", "for="), (header) => {
    assert.equal(parseForwardedHost(header), naiveForwardedHost(header));
  }),
);

fuzz(
  "an authority is read as the naive parser reads it",
  fc.property(
    fc.oneof(
      textOf(":", "[", "]", "10.0.0.1", "::1", "80", "65536", "a.b", "@", "/"),
      fc.tuple(fc.oneof(fc.ipV4(), fc.domain()), fc.nat(70_000)).map(([h, p]) => `${h}:${p}`),
    ),
    (text) => {
      const naive = naiveAuthority(text);
      const found = parseAuthority(text);
      if (naive === undefined || found === undefined) {
        // A bracketed host may look like an address without being one.
        if (!naive?.host.startsWith("[")) assert.equal(found, naive);
        return;
      }
      if (found.kind === "hostname") {
        assert.deepEqual([found.hostname, found.port], [naive.host, naive.port]);
      } else {
        assert.equal(found.address.port, naive.port);
        assert.deepEqual(parseAuthority(formatSocketAddress(found.address)), found);
      }
    },
  ),
);

fuzz(
  "a traceparent of any text is a trace id or nothing",
  fc.property(textOf("00-", "-", "0".repeat(31), "a".repeat(16), "-00"), (text) => {
    assert.match(parseTraceparent(text) ?? "0".repeat(32), /^[0-9a-f]{32}$/);
  }),
);

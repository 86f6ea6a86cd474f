import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { IpAddress } from "../../src/mesh/ip-address.ts";
import { formatForwarded, parseForwardedHost } from "../../src/wire/forwarded.ts";

const address = (ip: string, port: number) => ({ ip: ip as IpAddress, port });

describe("forwarded (build_forwarded, forwarded host parsing)", () => {
  for (const [what, client, host, header] of [
    ["an IPv4 client", address("10.77.0.11", 42152), undefined, 'for="10.77.0.11:42152"'],
    ["an IPv6 client", address("::1", 80), undefined, 'for="[::1]:80"'],
    [
      "a known service",
      address("127.0.0.1", 80),
      "echo.default.svc.cluster.local",
      'for="127.0.0.1:80";host=echo.default.svc.cluster.local',
    ],
    ["a host that no header can carry", address("10.0.0.1", 1), "é", 'for="10.0.0.1:1"'],
    ["a host with a line break", address("10.0.0.1", 1), "a\r\nb", 'for="10.0.0.1:1"'],
  ] as const) {
    test(`${what} is written as ${header}`, () => {
      assert.equal(formatForwarded(client, host), header);
    });
  }

  for (const [what, header, host] of [
    ["a plain host", 'for="127.0.0.1:80";host=echo', "echo"],
    ["a quoted host", 'for="127.0.0.1:80";host="echo"', "echo"],
    ["blanks around the part", 'for="127.0.0.1:80" ; host=echo ;proto=http', "echo"],
    ["absent: no host", 'for="127.0.0.1:80"', undefined],
    ["an empty host", "for=1;host=", undefined],
    ["an empty quoted host", 'host=""', undefined],
    ["one quote", 'host="', undefined],
    ["one quote of a pair of pairs", 'host=""a""', '"a"'],
    ["the first of two", "host=a;host=b", "a"],
    ["an empty one before another", "host=;host=b", undefined],
    ["another case", "Host=a", undefined],
    ["a blank before the equals sign", "host =a", undefined],
    ["non-ASCII: a character that is not", "host=é", undefined],
    ["absent: nothing", "", undefined],
  ] as const) {
    test(`${what}: ${JSON.stringify(header)} names ${host}`, () => {
      assert.equal(parseForwardedHost(header), host);
    });
  }
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { nftablesRules } from "../../src/embedded/nftables-rules.ts";

const REMOVAL = ["raw", "mangle", "nat"]
  .map(
    (table) => `add table inet istio-ambient-${table}\ndelete table inet istio-ambient-${table}\n`,
  )
  .join("");

test("rules for both families are the specified ones, and replace those that are there", () => {
  assert.equal(
    nftablesRules([4, 6], { dnsCapture: true, inboundCapture: true }),
    `${REMOVAL}table inet istio-ambient-raw {
  chain istio-prerouting {
    udp sport 53 meta mark & 0xfff != 0x539 ct zone set 1
  }
  chain prerouting {
    type filter hook prerouting priority -300; policy accept;
    jump istio-prerouting
  }
  chain istio-output {
    udp dport 53 meta mark & 0xfff == 0x539 ct zone set 1
  }
  chain output {
    type filter hook output priority -300; policy accept;
    jump istio-output
  }
}
table inet istio-ambient-mangle {
  chain istio-prerouting {
    meta mark & 0xfff == 0x539 ct mark set ct mark & 0xfffff000 | 0x111
  }
  chain prerouting {
    type filter hook prerouting priority -150; policy accept;
    jump istio-prerouting
  }
  chain istio-output {
    ct mark & 0xfff == 0x111 meta mark set ct mark
  }
  chain output {
    type route hook output priority -150; policy accept;
    jump istio-output
  }
}
table inet istio-ambient-nat {
  chain istio-prerouting {
    ip saddr 169.254.7.127 meta l4proto tcp accept
    ip6 saddr fd16:9254:7127:1337:ffff:ffff:ffff:ffff meta l4proto tcp accept
    ip daddr != 127.0.0.1 tcp dport != 15008 meta mark & 0xfff != 0x539 redirect to :15006
    ip6 daddr != ::1 tcp dport != 15008 meta mark & 0xfff != 0x539 redirect to :15006
  }
  chain prerouting {
    type nat hook prerouting priority -100; policy accept;
    jump istio-prerouting
  }
  chain istio-output {
    ip daddr 169.254.7.127 meta l4proto tcp accept
    ip6 daddr fd16:9254:7127:1337:ffff:ffff:ffff:ffff meta l4proto tcp accept
    oifname != "lo" udp dport 53 meta mark & 0xfff != 0x539 redirect to :15053
    ip daddr != 127.0.0.1 tcp dport 53 meta mark & 0xfff != 0x539 redirect to :15053
    ip6 daddr != ::1 tcp dport 53 meta mark & 0xfff != 0x539 redirect to :15053
    meta l4proto tcp meta mark & 0xfff == 0x111 accept
    ip daddr != 127.0.0.1 oifname "lo" accept
    ip6 daddr != ::1 oifname "lo" accept
    ip daddr != 127.0.0.1 meta l4proto tcp meta mark & 0xfff != 0x539 redirect to :15001
    ip6 daddr != ::1 meta l4proto tcp meta mark & 0xfff != 0x539 redirect to :15001
  }
  chain output {
    type nat hook output priority -100; policy accept;
    jump istio-output
  }
}
`,
  );
});

test("without DNS, inbound capture and IPv6 nothing names them, and tables of before still go", () => {
  const rules = nftablesRules([4], { dnsCapture: false, inboundCapture: false });
  assert.ok(rules.startsWith(REMOVAL));
  assert.doesNotMatch(
    rules,
    /port 53|ip6|15006|hook prerouting priority -100|table inet \S+-raw \{/,
  );
});

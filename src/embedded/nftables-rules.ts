/**
 * The redirect rules as `nft -f -` takes them: the logic of iptables-rules.ts, in tables of the
 * names and priorities of istio-cni's nftables mode, which hold both families.
 *
 * @see spec data-path 12.2
 */
import { type Family, REDIRECT, type RedirectOptions } from "./redirect-options.ts";

/** All of each is ours; value is the priority of its hooks. */
const TABLES = {
  "istio-ambient-raw": -300,
  "istio-ambient-mangle": -150,
  "istio-ambient-nat": -100,
} as const;

const WORD: Readonly<Record<Family, string>> = { 4: "ip", 6: "ip6" };
const FROM_PROXY = `meta mark & ${REDIRECT.mask} == ${REDIRECT.proxyMark}`;
const NOT_FROM_PROXY = `meta mark & ${REDIRECT.mask} != ${REDIRECT.proxyMark}`;

/** Takes every table of ours away, whether it is there or not, in one transaction. */
export const NFTABLES_REMOVAL: string = Object.keys(TABLES)
  .map((table) => `add table inet ${table}\ndelete table inet ${table}\n`)
  .join("");

/** Puts the tables in place of those of ours that are there, in one transaction. */
export function nftablesRules(families: readonly Family[], options: RedirectOptions): string {
  const perFamily = (rule: (ip: string, family: Family) => string): string[] =>
    families.map((family) => rule(WORD[family], family));
  const beyondLoopback = (rest: string): string[] =>
    perFamily((ip, family) => `${ip} daddr != ${REDIRECT.loopback[family]} ${rest}`);
  const probes = (side: "saddr" | "daddr"): string[] =>
    perFamily(
      (ip, family) => `${ip} ${side} ${REDIRECT.probeAddress[family]} meta l4proto tcp accept`,
    );
  const nat = {
    prerouting: options.inboundCapture
      ? [
          ...probes("saddr"),
          ...beyondLoopback(
            `tcp dport != ${REDIRECT.hbonePort} ${NOT_FROM_PROXY} redirect to :${REDIRECT.inboundPlaintextPort}`,
          ),
        ]
      : [],
    output: [
      ...probes("daddr"),
      ...(options.dnsCapture
        ? [
            `oifname != "lo" udp dport 53 ${NOT_FROM_PROXY} redirect to :${REDIRECT.dnsPort}`,
            ...beyondLoopback(`tcp dport 53 ${NOT_FROM_PROXY} redirect to :${REDIRECT.dnsPort}`),
          ]
        : []),
      `meta l4proto tcp meta mark & ${REDIRECT.mask} == ${REDIRECT.returnMark} accept`,
      ...beyondLoopback(`oifname "lo" accept`),
      ...beyondLoopback(`meta l4proto tcp ${NOT_FROM_PROXY} redirect to :${REDIRECT.outboundPort}`),
    ],
  };
  const mangle = {
    prerouting: [`${FROM_PROXY} ct mark set ct mark & 0xfffff000 | ${REDIRECT.returnMark}`],
    // Other than a filter's, a route's change of the mark has the packet routed anew.
    output: [`ct mark & ${REDIRECT.mask} == ${REDIRECT.returnMark} meta mark set ct mark`],
  };
  const raw = {
    // Keeps the proxy's own queries apart from the application's redirected ones.
    prerouting: [`udp sport 53 ${NOT_FROM_PROXY} ct zone set ${REDIRECT.conntrackZone}`],
    output: [`udp dport 53 ${FROM_PROXY} ct zone set ${REDIRECT.conntrackZone}`],
  };
  return [
    NFTABLES_REMOVAL,
    ...(options.dnsCapture
      ? [table("istio-ambient-raw", { prerouting: "filter", output: "filter" }, raw)]
      : []),
    table("istio-ambient-mangle", { prerouting: "filter", output: "route" }, mangle),
    table("istio-ambient-nat", { prerouting: "nat", output: "nat" }, nat),
  ].join("");
}

interface Hooks<Value> {
  readonly prerouting: Value;
  readonly output: Value;
}

function table(
  name: keyof typeof TABLES,
  types: Hooks<string>,
  rules: Hooks<readonly string[]>,
): string {
  const hooks = (["prerouting", "output"] as const).filter((hook) => rules[hook].length > 0);
  return [
    `table inet ${name} {`,
    ...hooks.flatMap((hook) => [
      `  chain istio-${hook} {`,
      ...rules[hook].map((rule) => `    ${rule}`),
      "  }",
      `  chain ${hook} {`,
      `    type ${types[hook]} hook ${hook} priority ${TABLES[name]}; policy accept;`,
      `    jump istio-${hook}`,
      "  }",
    ]),
    "}\n",
  ].join("\n");
}

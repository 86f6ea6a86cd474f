/**
 * The redirect rules as iptables and ip6tables take them. They live in chains of their own, so that
 * what else is there stays.
 *
 * @see spec data-path 12.2. Virtual interfaces are not rerouted.
 */
import { type Family, REDIRECT, type RedirectOptions } from "./redirect-options.ts";

const PROXY_MARK = `${REDIRECT.proxyMark}/${REDIRECT.mask}`;
const RETURN_MARK = `${REDIRECT.returnMark}/${REDIRECT.mask}`;
const HOST_BITS: Readonly<Record<Family, number>> = { 4: 32, 6: 128 };

/** Our chain in each hook that we take part in. */
const CHAINS: Readonly<Record<string, string>> = {
  PREROUTING: "ISTIO_PRERT",
  OUTPUT: "ISTIO_OUTPUT",
};

/** The input of `iptables-restore --noflush`; within a hook in the order of evaluation. */
export function iptablesRules(family: Family, options: RedirectOptions): string {
  const probe = `${REDIRECT.probeAddress[family]}/${HOST_BITS[family]}`;
  const beyondLoopback = `! -d ${REDIRECT.loopback[family]}/${HOST_BITS[family]}`;
  const notProxy = `-m mark ! --mark ${PROXY_MARK}`;
  const toPort = (port: number): string => `-j REDIRECT --to-ports ${port}`;
  const tables: Record<string, Record<string, string[]>> = {
    mangle: {
      PREROUTING: [`-m mark --mark ${PROXY_MARK} -j CONNMARK --set-xmark ${RETURN_MARK}`],
      OUTPUT: [
        `-m connmark --mark ${RETURN_MARK} -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff`,
      ],
    },
    nat: {
      PREROUTING: options.inboundCapture
        ? [
            `-s ${probe} -p tcp -j ACCEPT`,
            `${beyondLoopback} -p tcp ! --dport ${REDIRECT.hbonePort} ${notProxy} ${toPort(REDIRECT.inboundPlaintextPort)}`,
          ]
        : [],
      OUTPUT: [
        `-d ${probe} -p tcp -j ACCEPT`,
        ...(options.dnsCapture
          ? [
              `! -o lo -p udp --dport 53 ${notProxy} ${toPort(REDIRECT.dnsPort)}`,
              `${beyondLoopback} -p tcp --dport 53 ${notProxy} ${toPort(REDIRECT.dnsPort)}`,
            ]
          : []),
        `-p tcp -m mark --mark ${RETURN_MARK} -j ACCEPT`,
        `${beyondLoopback} -o lo -j ACCEPT`,
        `${beyondLoopback} -p tcp ${notProxy} ${toPort(REDIRECT.outboundPort)}`,
      ],
    },
  };
  if (options.dnsCapture) {
    // Keeps the proxy's own queries apart from the application's redirected ones.
    const toZone = `-j CT --zone ${REDIRECT.conntrackZone}`;
    tables["raw"] = {
      PREROUTING: [`-p udp --sport 53 ${notProxy} ${toZone}`],
      OUTPUT: [`-p udp --dport 53 -m mark --mark ${PROXY_MARK} ${toZone}`],
    };
  }
  return Object.entries(tables)
    .map(([table, hooks]) => {
      const used = Object.entries(hooks).filter(([, rules]) => rules.length > 0);
      return [
        `*${table}`,
        ...used.map(([hook]) => `:${CHAINS[hook]} - [0:0]`),
        ...used.map(([hook]) => `-A ${hook} -j ${CHAINS[hook]}`),
        ...used.flatMap(([hook, rules]) => rules.map((rule) => `-A ${CHAINS[hook]} ${rule}`)),
        "COMMIT\n",
      ].join("\n");
    })
    .join("");
}

/**
 * The input of `iptables-restore --noflush` that takes our chains away again.
 *
 * @param saved the output of `iptables-save`.
 * @returns empty when there is nothing of ours.
 */
export function iptablesRemoval(saved: string): string {
  const out: string[] = [];
  for (const table of saved.matchAll(/^\*(\S+)\n([\s\S]*?)^COMMIT$/gm)) {
    const lines = (table[2] as string).split("\n");
    const ours = Object.values(CHAINS);
    const jumps = lines.filter((line) =>
      ours.some((chain) => line.startsWith("-A ") && line.endsWith(` -j ${chain}`)),
    );
    const chains = ours.filter((chain) => lines.some((line) => line.startsWith(`:${chain} `)));
    if (chains.length === 0) continue;
    out.push(
      `*${table[1]}`,
      ...jumps.map((jump) => jump.replace("-A ", "-D ")),
      ...chains.map((chain) => `-F ${chain}`),
      ...chains.map((chain) => `-X ${chain}`),
      "COMMIT\n",
    );
  }
  return out.join("\n");
}

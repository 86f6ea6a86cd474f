/**
 * The rules that send a pod's traffic to the proxy: istio-cni's own, installed into and removed
 * from one network namespace. They live in chains of their own, so that what else is there stays.
 *
 * @see spec data-path 12.2. Virtual interfaces are not rerouted, and nftables is not written
 *   directly: iptables of today does that by itself.
 */
import { requireCommand, runCommand } from "./netns-command.ts";

export interface RedirectOptions {
  /** Also send DNS queries to port 15053. */
  readonly dnsCapture: boolean;
  /** False leaves plaintext that arrives alone (`ambient.istio.io/bypass-inbound-capture`). */
  readonly inboundCapture: boolean;
}

type Family = 4 | 6;

/** Packets that the proxy sends. */
const PROXY_MARK = "0x539/0xfff";
/** Connections that the proxy opened towards the application. */
const RETURN_MARK = "0x111/0xfff";
const ROUTE_TABLE = "100";
const RULE_PRIORITY = "32764";
const CONNTRACK_ZONE = "1";
const OUTBOUND_PORT = 15001;
const INBOUND_PLAINTEXT_PORT = 15006;
const HBONE_PORT = 15008;
const DNS_PORT = 15053;

/** Where kubelet's probes seem to come from, so that they reach the application directly. */
const PROBE_ADDRESS: Readonly<Record<Family, string>> = {
  4: "169.254.7.127/32",
  6: "fd16:9254:7127:1337:ffff:ffff:ffff:ffff/128",
};
const LOOPBACK: Readonly<Record<Family, string>> = { 4: "127.0.0.1/32", 6: "::1/128" };
const TOOL: Readonly<Record<Family, string>> = { 4: "iptables", 6: "ip6tables" };

/** Our chain in each hook that we take part in. */
const CHAINS: Readonly<Record<string, string>> = {
  PREROUTING: "ISTIO_PRERT",
  OUTPUT: "ISTIO_OUTPUT",
};

/** The input of `iptables-restore --noflush`; within a hook in the order of evaluation. */
export function redirectRules(family: Family, options: RedirectOptions): string {
  const probe = PROBE_ADDRESS[family];
  const beyondLoopback = `! -d ${LOOPBACK[family]}`;
  const notProxy = `-m mark ! --mark ${PROXY_MARK}`;
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
            `${beyondLoopback} -p tcp ! --dport ${HBONE_PORT} ${notProxy} -j REDIRECT --to-ports ${INBOUND_PLAINTEXT_PORT}`,
          ]
        : [],
      OUTPUT: [
        `-d ${probe} -p tcp -j ACCEPT`,
        ...(options.dnsCapture
          ? [
              `! -o lo -p udp --dport 53 ${notProxy} -j REDIRECT --to-ports ${DNS_PORT}`,
              `${beyondLoopback} -p tcp --dport 53 ${notProxy} -j REDIRECT --to-ports ${DNS_PORT}`,
            ]
          : []),
        `-p tcp -m mark --mark ${RETURN_MARK} -j ACCEPT`,
        `${beyondLoopback} -o lo -j ACCEPT`,
        `${beyondLoopback} -p tcp ${notProxy} -j REDIRECT --to-ports ${OUTBOUND_PORT}`,
      ],
    },
  };
  if (options.dnsCapture) {
    // Keeps the proxy's own queries apart from the application's redirected ones.
    tables["raw"] = {
      PREROUTING: [`-p udp --sport 53 ${notProxy} -j CT --zone ${CONNTRACK_ZONE}`],
      OUTPUT: [`-p udp --dport 53 -m mark --mark ${PROXY_MARK} -j CT --zone ${CONNTRACK_ZONE}`],
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
export function removalRules(saved: string): string {
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

/**
 * Installs the rules, IPv6 too where the namespace has it. Rules of ours that are there already are
 * replaced. On failure nothing of ours is left.
 *
 * @returns whether IPv6 is captured.
 * @throws Error in words for an operator: a missing tool with its package, loopback that is down,
 *   or what the tool says.
 */
export async function installRedirect(
  netnsFd: number,
  options: RedirectOptions,
): Promise<{ readonly ipv6: boolean }> {
  await requireLoopback(netnsFd);
  await removeRedirect(netnsFd);
  try {
    await installFamily(netnsFd, 4, options);
    const ipv6 = await hasIpv6(netnsFd);
    if (ipv6) await installFamily(netnsFd, 6, options);
    return { ipv6 };
  } catch (error) {
    await removeRedirect(netnsFd);
    throw error;
  }
}

/**
 * Removes everything that {@link installRedirect} brought, also after half of it. Idempotent.
 *
 * @throws Error with the first failure, after all else was tried.
 */
export async function removeRedirect(netnsFd: number): Promise<void> {
  const failures: unknown[] = [];
  for (const family of [4, 6] as const) {
    for (const remove of [removeChains, removeRoutes]) {
      await remove(netnsFd, family).catch((error: unknown) => failures.push(error));
    }
  }
  if (failures.length > 0) throw failures[0];
}

async function installFamily(
  netnsFd: number,
  family: Family,
  options: RedirectOptions,
): Promise<void> {
  const everything = family === 4 ? "0.0.0.0/0" : "::/0";
  await requireCommand(
    netnsFd,
    [`${TOOL[family]}-restore`, "--noflush", "-w", "5"],
    redirectRules(family, options),
  );
  await requireCommand(
    netnsFd,
    ["ip", `-${family}`, "-batch", "-"],
    `rule add fwmark ${RETURN_MARK} lookup ${ROUTE_TABLE} pref ${RULE_PRIORITY}\n` +
      `route add local ${everything} dev lo table ${ROUTE_TABLE}\n`,
  );
}

async function removeChains(netnsFd: number, family: Family): Promise<void> {
  const saved = await runCommand(netnsFd, [`${TOOL[family]}-save`]);
  // A kernel without this family's tables has no rules of ours in them.
  if (saved.status !== 0) return;
  const removal = removalRules(saved.stdout);
  if (removal === "") return;
  await requireCommand(netnsFd, [`${TOOL[family]}-restore`, "--noflush", "-w", "5"], removal);
}

async function removeRoutes(netnsFd: number, family: Family): Promise<void> {
  const ip = ["ip", `-${family}`];
  const rules = await runCommand(netnsFd, [...ip, "rule", "show", "pref", RULE_PRIORITY]);
  // A kernel without this family has no rule; a table that was never filled does not exist.
  const ruleCount = rules.stdout.split(`fwmark ${RETURN_MARK} lookup ${ROUTE_TABLE}`).length - 1;
  const routes = await runCommand(netnsFd, [...ip, "route", "show", "table", ROUTE_TABLE]);
  const hasRoute = /^local default dev lo\b/m.test(routes.stdout);
  const everything = family === 4 ? "0.0.0.0/0" : "::/0";
  const commands =
    `rule del fwmark ${RETURN_MARK} lookup ${ROUTE_TABLE} pref ${RULE_PRIORITY}\n`.repeat(
      ruleCount,
    ) + (hasRoute ? `route del local ${everything} dev lo table ${ROUTE_TABLE}\n` : "");
  if (commands !== "") await requireCommand(netnsFd, [...ip, "-batch", "-"], commands);
}

/** Redirected connections go to the loopback address. */
async function requireLoopback(netnsFd: number): Promise<void> {
  const link = await requireCommand(netnsFd, ["ip", "link", "show", "dev", "lo"]);
  if (/<[^>]*\bUP\b[^>]*>/.test(link)) return;
  throw new Error("loopback is down in this network namespace (ip link set lo up)");
}

async function hasIpv6(netnsFd: number): Promise<boolean> {
  const disabled = await runCommand(netnsFd, ["cat", "/proc/sys/net/ipv6/conf/lo/disable_ipv6"]);
  if (disabled.status !== 0 || disabled.stdout.trim() !== "0") return false;
  return (await runCommand(netnsFd, ["ip6tables", "-t", "nat", "-S"])).status === 0;
}

/**
 * Asks for a host's addresses as programs of this pod do: its hosts file, then DNS by its resolv.conf
 * with the search list. Both files are read for each question, so that a change of them counts.
 *
 * `dns.lookup` would do the same, but tells no time to live and blocks one of four threads.
 */
import type { RecordWithTtl } from "node:dns";
import { Resolver } from "node:dns/promises";
import { readFile } from "node:fs/promises";
import { type IpAddress, ipFamily, parseIpAddress } from "../mesh/ip-address.ts";
import { candidateNames, hostsAddresses, parseSearchRules } from "../wire/resolver-file.ts";

/** What is known of a host name, and for how long. */
export interface HostAnswer {
  /** None: the name exists without an address. */
  readonly ips: readonly IpAddress[];
  /** 0: not to be kept. */
  readonly ttlMs: number;
}

/** @param signal gives up what is still asked. @throws Error when nothing that was meant has an address. */
export type AskHost = (hostname: string, signal: AbortSignal) => Promise<HostAnswer>;

export interface SystemResolverDeps {
  /** Servers and retries are those of resolv.conf. */
  readonly open: () => Resolver;
  /** Text of the file; empty when it can't be read: then there is nothing in it for us. */
  readonly read: (path: string) => Promise<string>;
}

const RESOLV_PATH = "/etc/resolv.conf";
const HOSTS_PATH = "/etc/hosts";
/** How long what the hosts file says is kept. */
const HOSTS_TTL_MS = 5000;

/** The name, or addresses of the family asked for, do not exist. */
const ABSENT: ReadonlySet<string | undefined> = new Set(["ENOTFOUND", "ENODATA"]);

/** @param options.ipv6 whether IPv6 addresses are asked for, too. */
export function systemResolver(
  options: { readonly ipv6: boolean },
  { open, read }: SystemResolverDeps = { open: () => new Resolver(), read: readText },
): AskHost {
  const { ipv6 } = options;
  return async (hostname, signal) => {
    const own = hostsAddresses(await read(HOSTS_PATH), hostname);
    const ips = ipv6 ? own : own.filter((ip) => ipFamily(ip) === 4);
    if (ips.length > 0) return { ips, ttlMs: HOSTS_TTL_MS };
    const rules = parseSearchRules(await read(RESOLV_PATH));
    const resolver = open();
    signal.addEventListener("abort", () => resolver.cancel(), { once: true });
    let failure: unknown;
    for (const name of candidateNames(hostname, rules)) {
      signal.throwIfAborted();
      try {
        return await askDns(resolver, name, ipv6);
      } catch (error) {
        failure = error;
      }
    }
    throw failure;
  };
}

/** @throws Error of one family when neither has an address. */
async function askDns(resolver: Resolver, name: string, ipv6: boolean): Promise<HostAnswer> {
  const questions = [resolver.resolve4(name, { ttl: true })];
  if (ipv6) questions.push(resolver.resolve6(name, { ttl: true }));
  const outcomes = await Promise.allSettled(questions);
  const errors = outcomes.flatMap((one) => (one.status === "rejected" ? [one.reason] : []));
  if (errors.length === outcomes.length) throw errors[0];
  const records = outcomes.flatMap((one) => (one.status === "fulfilled" ? one.value : []));
  // One family is not all that there is while the other could not be asked.
  const isWhole = errors.every(({ code }: NodeJS.ErrnoException) => ABSENT.has(code));
  return { ips: addressesOf(records), ttlMs: isWhole ? shortestTtlMs(records) : 0 };
}

function addressesOf(records: readonly RecordWithTtl[]): readonly IpAddress[] {
  return records.map(({ address }) => parseIpAddress(address)).filter((ip) => ip !== undefined);
}

function shortestTtlMs(records: readonly RecordWithTtl[]): number {
  return records.length === 0 ? 0 : 1000 * Math.min(...records.map(({ ttl }) => ttl));
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch {
    return "";
  }
}

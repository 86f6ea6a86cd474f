/**
 * The files that tell a machine's resolver where names are looked up: resolv.conf(5) and hosts(5).
 * What is not understood is passed over, as every resolver does.
 */
import { type IpAddress, parseIpAddress } from "../mesh/ip-address.ts";

/** What resolv.conf says of those who are asked. */
export interface ResolverRules {
  /** In their order, each once. */
  readonly resolvers: readonly IpAddress[];
  /** For one resolver's answer; `undefined`: not said. */
  readonly timeoutMs: number | undefined;
  /** How often all resolvers are asked. */
  readonly attempts: number;
}

/** What resolv.conf says of names. */
export interface SearchRules {
  /** Domains that are tried behind a name, in their order, without a dot at the end. */
  readonly search: readonly string[];
  /** From so many dots on a name is tried as it stands first. */
  readonly dotsMin: number;
}

const DOTS_MIN = 1;
/** The most that resolvers allow. */
const DOTS_MIN_MAX = 15;
const TIMEOUT_SECONDS_MAX = 30;
const ATTEMPTS = 2;
const ATTEMPTS_MAX = 5;

export function parseResolverRules(text: string): ResolverRules {
  const resolvers = new Set<IpAddress>();
  let timeoutMs: number | undefined;
  let attempts = ATTEMPTS;
  for (const [keyword, ...values] of wordsOfLines(text, /[#;]/)) {
    if (keyword === "nameserver") {
      const ip = parseIpAddress(values[0] ?? "");
      if (ip !== undefined) resolvers.add(ip);
    } else if (keyword === "options") {
      for (const value of values) {
        const [, name, number] = /^(timeout|attempts):([1-9]\d*)$/.exec(value) ?? [];
        if (name === "timeout") timeoutMs = Math.min(Number(number), TIMEOUT_SECONDS_MAX) * 1000;
        if (name === "attempts") attempts = Math.min(Number(number), ATTEMPTS_MAX);
      }
    }
  }
  return { resolvers: [...resolvers], timeoutMs, attempts };
}

export function parseSearchRules(text: string): SearchRules {
  let search: readonly string[] = [];
  let dotsMin = DOTS_MIN;
  for (const words of wordsOfLines(text, /[#;]/)) {
    const [keyword, ...values] = words;
    // The last line of its kind counts.
    if (keyword === "search" || keyword === "domain") {
      search = values.map((domain) => domain.replace(/\.$/, "")).filter((domain) => domain !== "");
    } else if (keyword === "options") {
      const dots = values.map((value) => /^ndots:(\d+)$/.exec(value)?.[1]).findLast(Boolean);
      if (dots !== undefined) dotsMin = Math.min(Number(dots), DOTS_MIN_MAX);
    }
  }
  return { search, dotsMin };
}

/**
 * The full names that a name may mean, the likeliest first.
 *
 * @param name absolute when it ends in a dot.
 */
export function candidateNames(name: string, { search, dotsMin }: SearchRules): readonly string[] {
  if (name.endsWith(".")) return [name.slice(0, -1)];
  const completed = search.map((domain) => `${name}.${domain}`);
  const dots = name.split(".").length - 1;
  return dots >= dotsMin ? [name, ...completed] : [...completed, name];
}

/** Addresses that a hosts file gives a name; names are compared without regard to case. */
export function hostsAddresses(text: string, name: string): readonly IpAddress[] {
  const sought = name.toLowerCase().replace(/\.$/, "");
  const found: IpAddress[] = [];
  for (const [address = "", ...names] of wordsOfLines(text, /#/)) {
    const ip = parseIpAddress(address);
    if (ip !== undefined && names.some((known) => known.toLowerCase() === sought)) found.push(ip);
  }
  return found;
}

/** The words of each line before its comment; lines without words are left out. */
function wordsOfLines(text: string, comment: RegExp): string[][] {
  const lines = text.split("\n").map((line) => (line.split(comment)[0] ?? "").trim());
  return lines.filter((line) => line !== "").map((line) => line.split(/\s+/));
}

/** The resolvers of the machine, or of the daemon's pod, as its resolv.conf names them now. */
import { readFileSync } from "node:fs";
import { errorText } from "../runtime/error-text.ts";
import { parseResolverRules, parseSearchRules, type ResolverRules } from "../wire/resolver-file.ts";
import { DnsError } from "./dns-error.ts";

export interface ResolvConf extends ResolverRules {
  /** Lower case, without dots at their ends. */
  readonly searchDomains: readonly string[];
}

/** @throws DnsError `resolvers` when the file can't be read, or names none. */
export function readResolvConf(path: string): ResolvConf {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    throw new DnsError("resolvers", `can't read ${path}: ${errorText(cause)}`, cause);
  }
  const rules = parseResolverRules(text);
  if (rules.resolvers.length === 0) throw new DnsError("resolvers", `no nameserver in ${path}`);
  const searchDomains = parseSearchRules(text).search.map((domain) => domain.toLowerCase());
  return { ...rules, searchDomains };
}

/**
 * Whether a connection may happen.
 *
 * @see spec control-plane 4.2 for the order, 4.6 for the trace.
 */
import {
  type AuthorizationPolicy,
  type PolicyAction,
  policyKey,
  type RbacConnection,
} from "../mesh/authorization.ts";
import { type JudgedConnection, policyMatches, prepareConnection } from "./matchers.ts";

export type Verdict =
  | { readonly kind: "allow" }
  /** As it stands in the access log behind `connection closed due to policy rejection: `. */
  | { readonly kind: "deny"; readonly reason: string };

/** Learns how a verdict came about: a message of the log, with the key of the policy behind it. */
export type RbacTrace = (event: string, policyKey?: string) => void;

const ALLOW: Verdict = { kind: "allow" };
const NONE_ALLOWED: Verdict = {
  kind: "deny",
  reason: "allow policies exist, but none allowed",
};

/**
 * Judges a connection: any matching deny policy refuses; with allow policies, one of them must match.
 * Dry-run policies only appear in the trace.
 *
 * @param policies those that apply to the destination.
 */
export function evaluatePolicies(
  policies: readonly AuthorizationPolicy[],
  connection: RbacConnection,
  trace?: RbacTrace,
): Verdict {
  if (policies.length === 0) {
    trace?.("no allow policies, allow");
    return ALLOW;
  }
  const judged = prepareConnection(connection);
  if (trace !== undefined) traceDryRun(policies, "Deny", judged, trace);
  let hasAllow = false;
  for (const policy of policies) {
    if (policy.dryRun) continue;
    if (policy.action === "Allow") hasAllow = true;
    else if (policyMatches(policy, judged)) {
      const key = policyKey(policy);
      trace?.("deny policy match", key);
      return { kind: "deny", reason: `explicitly denied by: ${key}` };
    }
  }
  if (trace !== undefined) {
    const seen = traceDryRun(policies, "Allow", judged, trace);
    if (seen === "unmatched" && !hasAllow) trace("dry-run: no allow policies match");
  }
  if (!hasAllow) {
    trace?.("no allow policies, allow");
    return ALLOW;
  }
  for (const policy of policies) {
    if (policy.dryRun || policy.action !== "Allow" || !policyMatches(policy, judged)) continue;
    trace?.("allow policy match", policyKey(policy));
    return ALLOW;
  }
  trace?.("no allow policies matched");
  return NONE_ALLOWED;
}

/** @returns whether there were dry-run policies of that action, and whether any matched. */
function traceDryRun(
  policies: readonly AuthorizationPolicy[],
  action: PolicyAction,
  judged: JudgedConnection,
  trace: RbacTrace,
): "none" | "unmatched" | "matched" {
  let seen: "none" | "unmatched" | "matched" = "none";
  for (const policy of policies) {
    if (!policy.dryRun || policy.action !== action) continue;
    if (policyMatches(policy, judged)) {
      trace(`dry-run: ${action.toLowerCase()} policy match`, policyKey(policy));
      seen = "matched";
    } else if (seen === "none") seen = "unmatched";
  }
  return seen;
}

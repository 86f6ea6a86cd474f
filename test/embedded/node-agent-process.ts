/**
 * A node agent as a process of its own, so that it can be killed: arguments are its two paths and,
 * unless it shall choose itself, what installs the rules.
 */
import { runNodeAgent } from "../../src/embedded/node-agent.ts";
import type { RulesChoice } from "../../src/embedded/rules-backend.ts";

const [uds = "", control = "", rules = "auto"] = process.argv.slice(2);
const controller = new AbortController();
process.once("SIGTERM", () => controller.abort());
try {
  await runNodeAgent({ uds, control, rules: rules as RulesChoice, signal: controller.signal });
} catch {
  process.exitCode = 1;
}

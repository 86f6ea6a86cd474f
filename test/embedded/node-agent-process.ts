/** A node agent as a process of its own, so that it can be killed: arguments are its two paths. */
import { runNodeAgent } from "../../src/embedded/node-agent.ts";

const [uds = "", control = ""] = process.argv.slice(2);
const controller = new AbortController();
process.once("SIGTERM", () => controller.abort());
try {
  await runNodeAgent({ uds, control, signal: controller.signal });
} catch {
  process.exitCode = 1;
}

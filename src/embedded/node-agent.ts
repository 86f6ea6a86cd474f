/** The command `ztunnel node-agent run`: sockets, attachments, and the orderly end. */
import { once } from "node:events";
import { connect } from "node:net";
import { dirname } from "node:path";
import { native } from "../net/native.ts";
import { systemClock } from "../runtime/clock.ts";
import { makeFolder } from "../runtime/folder.ts";
import { createRootLogger } from "../telemetry/root-logger.ts";
import { removeAbandonedSocket } from "./abandoned-socket.ts";
import { Attachments } from "./node-agent-attachments.ts";
import { serveControl } from "./node-agent-control.ts";
import type { RulesChoice } from "./rules-backend.ts";

export interface NodeAgentOptions {
  /** Where proxies connect (`INPOD_UDS`). */
  readonly uds: string;
  /** Where the commands connect. */
  readonly control: string;
  /** By which tool redirect rules are installed. */
  readonly rules: RulesChoice;
  /** Ends the agent. */
  readonly signal: AbortSignal;
}

/**
 * Runs until the signal is aborted, then removes all rules. Folders of the sockets are made; what
 * happens is logged to stdout.
 *
 * @throws Error when a path is served by another agent, or when the janitor died.
 */
export async function runNodeAgent({
  uds,
  control,
  rules,
  signal,
}: NodeAgentOptions): Promise<void> {
  const log = createRootLogger({
    format: "plain",
    filter: "info",
    sink: { write: (lines) => void process.stdout.write(lines), flush: () => {} },
    clock: systemClock,
  }).root.target("ztunnel::node_agent");
  for (const path of [uds, control]) await makeFolder(dirname(path));
  await removeAbandoned(control);
  const failure = new AbortController();
  const attachments = new Attachments(
    {
      native,
      clock: systemClock,
      log,
      failed: (reason) => failure.abort(new Error(reason)),
    },
    { zdsPath: uds, rules },
  );
  try {
    const server = await serveControl(attachments, control);
    log.write("info", "node agent is ready", [
      ["uds", uds],
      ["control", control],
    ]);
    const end = AbortSignal.any([signal, failure.signal]);
    if (!end.aborted) await once(end, "abort");
    server.close();
    server.closeAllConnections();
  } finally {
    await attachments.close();
  }
  failure.signal.throwIfAborted();
}

/** The socket file of an agent that was killed is in the way; that of a living one stays. */
async function removeAbandoned(path: string): Promise<void> {
  const socket = connect({ path });
  try {
    await once(socket, "connect");
  } catch {
    // Nobody there.
    removeAbandonedSocket(path);
  } finally {
    socket.destroy();
  }
}

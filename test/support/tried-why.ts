/** `ztunnel why --connect` in a lab whose daemons log JSON: what it says, and the line of what it tried. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { text as textOf } from "node:stream/consumers";
import type { MeshLab } from "./mesh-lab.ts";
import { waitUntil } from "./wait-until.ts";

const MAIN = join(import.meta.dirname, "../../dist/main.js");

/**
 * Asks the daemon of `node-a`; its answer must have the lines. Who serves in this process goes on
 * meanwhile.
 *
 * @param says beginnings of lines.
 * @returns the fields of the access line of the connection that was tried.
 */
export async function tryWhy(
  lab: MeshLab,
  from: string,
  to: string,
  says: readonly string[],
): Promise<Readonly<Record<string, unknown>>> {
  const node = lab.node("node-a");
  const linesBefore = node.lines.length;
  const words = [MAIN, "why", from, to, "--connect"];
  const asked = lab.net.spawn(node.host, process.execPath, ...words).stdout;
  const text = await textOf(asked as NonNullable<typeof asked>);
  for (const line of says) assert.ok(text.includes(`\n${line}`), `${line} is not in\n${text}`);
  const [, tried] = /src\.addr=(\S+)/.exec(text) ?? [];
  const line = (): string | undefined =>
    node.lines.slice(linesBefore).find((one) => one.includes(`"src.addr":"${tried}"`));
  await waitUntil(() => line() !== undefined, `no access line of ${tried}`);
  return JSON.parse(line() ?? "{}");
}

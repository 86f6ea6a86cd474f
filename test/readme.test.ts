/** README.md's tables say what the code says. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { CONFIG_OPTIONS } from "../src/config/config-option.ts";
import { LIMITS } from "../src/config/limits.ts";

const text = readFileSync(join(import.meta.dirname, "../README.md"), "utf8");
const limits = new Set(Object.values(LIMITS).map(({ variable }) => variable));

function table(options: typeof CONFIG_OPTIONS): string {
  const rows = options.map(
    ({ name, type, fallback, unit, why }) =>
      `| \`${name}\` | ${type} | ${fallback}${unit === undefined ? "" : ` ${unit}`} | ${why} |`,
  );
  return ["| variable | type | default | why |", "|---|---|---|---|", ...rows].join("\n");
}

function between(marker: string): string {
  const found = new RegExp(`<!-- ${marker} -->\n([^]*)\n<!-- /${marker} -->`).exec(text);
  assert.ok(found, `README.md has a part marked ${marker}`);
  return found[1] ?? "";
}

test("the table of variables lists every variable with its default and reason", () => {
  const expected = table(CONFIG_OPTIONS.filter(({ name }) => !limits.has(name)));
  assert.equal(between("options"), expected);
});

test("the table of limits lists every limit with its default and reason", () => {
  assert.equal(between("limits"), table(CONFIG_OPTIONS.filter(({ name }) => limits.has(name))));
});

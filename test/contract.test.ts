/** `contract.md` names a test for every case of the contract; here is looked whether they are there. */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

const ROW = /^\| (?<what>.+) \| `(?<file>.+?)` \| (?<titles>`.+`) \|$/;

/** Ends a title that may go on. */
const BEGINNING = "…";

/** What means something in a pattern. */
const SPECIAL = /[\\^$.*+?()[\]{}|]/g;

interface Row {
  readonly what: string;
  readonly file: string;
  readonly titles: readonly string[];
}

/** By chapter. A line of a table that can't be read is a row that names nothing. */
function readChapters(text: string): ReadonlyMap<string, readonly Row[]> {
  const chapters = new Map<string, Row[]>();
  for (const chapter of text.split(/^## /m).slice(1)) {
    const [heading = "", ...lines] = chapter.split("\n");
    const rows = lines
      .filter((line) => line.startsWith("| ") && line !== "| case | file | test |")
      .map((line) => {
        const { what = line, file = "", titles = "" } = ROW.exec(line)?.groups ?? {};
        return {
          what,
          file,
          titles: [...titles.matchAll(/`([^`]+)`/g)].map(([, one = ""]) => one),
        };
      });
    chapters.set(heading, rows);
  }
  return chapters;
}

/**
 * Whether the file has the title: literally, as far as it is told, or as a test's template with blanks
 * that text of the file fills.
 */
function hasTitle(source: string, title: string): boolean {
  const literal = title.endsWith(BEGINNING) ? title.slice(0, -BEGINNING.length) : title;
  if (source.includes(literal)) return true;
  const templates = source.matchAll(/\b(?:test|it|describe)\(\s*`((?:[^`$]|\$\{[^}]*\})*)`/g);
  return [...templates].some(([, template = ""]) => {
    const pieces = template.split(/\$\{[^}]*\}/).map((piece) => piece.replace(SPECIAL, "\\$&"));
    const blanks = new RegExp(`^${pieces.join("(.*?)")}$`).exec(title)?.slice(1);
    return blanks?.every((text) => hasList(source, text)) ?? false;
  });
}

/** The file has the text, or all of what stands between its commas. */
function hasList(source: string, text: string): boolean {
  return source.includes(text) || text.split(", ").every((part) => source.includes(part));
}

const chapters = readChapters(readFileSync(join(import.meta.dirname, "contract.md"), "utf8"));

test("the chapters are those of the contract", () => {
  const rooms =
    "outbound, inbound, pool, connection_manager, state, rbac, service store, copy, socket, baggage, proxy, dns, inpod protocol, inpod state, inpod manager, inpod sockets, metrics server, crl / revocation, benches";
  assert.deepEqual(
    [...chapters.keys()],
    [
      "2.8 outcomes",
      "13.1 in namespaces",
      "13.2 dedicated mode",
      ...rooms.split(", ").map((room) => `13.3 ${room}`),
    ],
  );
});

for (const [chapter, rows] of chapters) {
  test(`${chapter}: every case has its test`, () => {
    assert.ok(rows.length > 0);
    const missing = rows.flatMap(({ what, file, titles }) => {
      const path = join(import.meta.dirname, file);
      if (titles.length === 0 || !existsSync(path)) return `${what}: no test is named`;
      const source = readFileSync(path, "utf8");
      return titles
        .filter((title) => !hasTitle(source, title))
        .map((title) => `${what}: ${file} has no "${title}"`);
    });
    assert.deepEqual(missing, []);
  });
}

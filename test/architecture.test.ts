/**
 * The plan of the house, as code: which room may import which, and which room holds the door to
 * each outside world. `src/README.md` quotes the floors from here.
 */
import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { test } from "node:test";

/** Lowest first; a room imports only from floors below its own. */
const FLOORS: readonly (readonly string[])[] = [
  ["mesh", "runtime"],
  ["wire", "http2", "telemetry", "net"],
  ["engine", "tls", "state", "rbac"],
  ["hbone", "istiod", "dns"],
  ["proxy", "identity", "xds"],
  ["dataplane", "inpod", "admin"],
  ["config"],
  ["embedded", "daemon"],
  ["app.ts"],
  ["commands.ts"],
  ["main.ts"],
];

/** Who may import a module of the outside world, and why nobody else. */
const DOORS: readonly {
  readonly module: RegExp;
  readonly rooms: readonly string[];
  readonly why: string;
}[] = [
  {
    module: /^node:net$/,
    rooms: ["dns", "embedded"],
    why: "bytes go through the reactor, but for DNS, which is read and not relayed",
  },
  { module: /^node:dgram$/, rooms: ["dns"], why: "the mesh carries TCP; DNS alone comes by UDP" },
  { module: /^dns-packet$/, rooms: ["wire"], why: "bytes become values in one room" },
  {
    module: /^node:tls$/,
    rooms: ["tls", "embedded"],
    why: "tunnels are the reactor's; this is for the control plane's line",
  },
  { module: /^node:http2$/, rooms: [], why: "HTTP/2 is spoken by http2/" },
  { module: /^node:dns/, rooms: ["dns"], why: "names are looked up in one place" },
  { module: /^node:worker_threads$/, rooms: ["dataplane"], why: "threads are made in one place" },
  {
    module: /^node:inspector(\/|$)/,
    rooms: ["runtime"],
    why: "profiles are taken in one place, and only when asked for",
  },
  { module: /^node:https?$/, rooms: ["admin", "embedded"], why: "HTTP is for operators only" },
  {
    module: /^node:child_process$/,
    rooms: ["embedded"],
    why: "the daemon starts no other program",
  },
  {
    module: /^@grpc\/grpc-js$/,
    rooms: ["istiod", "identity", "xds", "embedded"],
    why: "the phone line to istiod",
  },
  {
    module: /^(pkijs|asn1js)$/,
    rooms: ["tls", "embedded"],
    why: "10 MB that data threads never load",
  },
  { module: /^pino$/, rooms: ["telemetry"], why: "one way to speak" },
  {
    module: /^prom-client$/,
    rooms: ["telemetry", "*/metrics.ts"],
    why: "metrics sit in files named for them",
  },
  {
    module: /^yargs(\/|$)/,
    rooms: ["commands.ts"],
    why: "a plain start of the daemon loads none of it",
  },
  { module: /^yaml$/, rooms: ["config", "embedded"], why: "files are read at the edge" },
];

const ROOT = resolve(import.meta.dirname, "..");
const SRC = join(ROOT, "src");

interface Import {
  readonly from: string;
  readonly specifier: string;
  /** Path under src/ of a relative import. */
  readonly target: string | undefined;
}

function importsOf(file: string): Import[] {
  const text = readFileSync(join(SRC, file), "utf8");
  const found = text.matchAll(
    /^(?:import|export)\b[^"';]*?from\s*"([^"]+)"|^import\s+"([^"]+)"|\bimport\(\s*"([^"]+)"\s*\)/gm,
  );
  return [...found].map((match) => {
    const specifier = (match[1] ?? match[2] ?? match[3]) as string;
    const target = specifier.startsWith(".")
      ? relative(SRC, resolve(SRC, dirname(file), specifier))
      : undefined;
    return { from: file, specifier, target };
  });
}

const files = globSync("**/*.ts", { cwd: SRC }).filter((file) => !file.startsWith("wire/proto/"));
const imports = files.flatMap(importsOf);

function room(file: string): string {
  return file.includes("/") ? (file.split("/")[0] as string) : file;
}

function floor(file: string): number {
  return FLOORS.findIndex((rooms) => rooms.includes(room(file)));
}

test("every source file stands in a room of the plan", () => {
  assert.deepEqual(
    files.filter((file) => floor(file) < 0),
    [],
  );
});

test("rooms are flat", () => {
  assert.deepEqual(
    files.filter((file) => file.split("/").length > 2),
    [],
  );
});

test("a room imports only from the floors below it", () => {
  const wrong = imports.filter(
    ({ from, target }) =>
      target !== undefined && room(from) !== room(target) && floor(from) <= floor(target),
  );
  assert.deepEqual(
    wrong.map(({ from, target }) => `${from} → ${target}`),
    [],
  );
});

for (const door of DOORS) {
  test(`only ${door.rooms.join(", ") || "nobody"} may import ${door.module.source}: ${door.why}`, () => {
    const wrong = imports.filter(
      ({ from, specifier }) =>
        door.module.test(specifier) &&
        !door.rooms.includes(room(from)) &&
        !door.rooms.some((rule) => rule.startsWith("*/") && from.endsWith(rule.slice(1))),
    );
    assert.deepEqual(
      wrong.map(({ from, specifier }) => `${from} → ${specifier}`),
      [],
    );
  });
}

test("only main.ts reads the environment and ends the process", () => {
  const wrong = files.filter(
    (file) =>
      file !== "main.ts" &&
      /\bprocess\.(env|exit\b|argv)/.test(readFileSync(join(SRC, file), "utf8")),
  );
  assert.deepEqual(wrong, []);
});

/**
 * Runs the image's stages by hand, in order, in scratch folders: what each COPY brings, each RUN
 * does, and at last the entry point. CI has no container engine, but it has everything else.
 */
import { execSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";

const ROOT = resolve(import.meta.dirname, "../..");
const scratch = mkdtempSync(join(tmpdir(), "ztunnel-image-"));
const stages = new Map<string, string>();
let stage = "";
let workdir = "/";

try {
  for (const [instruction, rest] of instructions()) run(instruction, rest);
  const node = join(dirname(process.execPath), "node");
  const version = execSync(`${node} ${join(stage, "opt/ztunnel/dist/main.js")} version`);
  process.stdout.write(`image: ${version}`);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

function instructions(): [string, string][] {
  const lines = readFileSync(join(ROOT, "Dockerfile"), "utf8").split("\n");
  return lines
    .filter((line) => /^[A-Z]/.test(line))
    .map((line) => [line.split(" ")[0] ?? "", line.slice(line.indexOf(" ") + 1)]);
}

function run(instruction: string, rest: string): void {
  switch (instruction) {
    case "FROM": {
      const name = / AS (\w+)$/.exec(rest)?.[1] ?? "final";
      stage = join(scratch, name);
      workdir = "/";
      mkdirSync(stage);
      stages.set(name, stage);
      break;
    }
    case "WORKDIR":
      workdir = rest;
      mkdirSync(join(stage, workdir), { recursive: true });
      break;
    case "COPY":
      copy(rest);
      break;
    case "RUN":
      // Links inside the image's own root are not made: the scratch folder is not the root.
      if (rest.startsWith("ln -s ")) break;
      process.stdout.write(`image: ${rest}\n`);
      execSync(rest, { cwd: join(stage, workdir), stdio: ["ignore", "ignore", "inherit"] });
      break;
    case "ENV":
    case "ENTRYPOINT":
    case "CMD":
      break;
    default:
      throw new Error(`the Dockerfile has an instruction that is not checked: ${instruction}`);
  }
}

function copy(rest: string): void {
  const from = /^--from=(\w+) /.exec(rest);
  const words = rest.slice(from?.[0].length ?? 0).split(" ");
  const target = words.at(-1) ?? ".";
  const source = from === null ? ROOT : required(from[1] ?? "");
  for (const word of words.slice(0, -1)) {
    const into = join(stage, workdir, target.endsWith("/") ? join(target, base(word)) : target);
    cpSync(join(source, word), into, { recursive: true, verbatimSymlinks: true });
  }
}

function base(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

function required(name: string): string {
  const folder = stages.get(name);
  if (folder === undefined) throw new Error(`no stage ${name} stands before this COPY`);
  return folder;
}

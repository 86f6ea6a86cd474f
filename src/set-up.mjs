/**
 * Makes a fresh clone runnable with only Node 20 and a C++ compiler: dependencies (among them the
 * Node that runs everything else), the addon, dist/. Steps that are up to date take no time and
 * say nothing. `--stamp` only notes that dist/ is up to date.
 */
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { buildAddon } from "../native/build.mjs";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const MODULES = join(ROOT, "node_modules");
const STAMP = join(ROOT, "dist", ".built");

try {
  if (process.argv.includes("--stamp")) {
    writeFileSync(STAMP, "");
    makeExecutable();
  } else {
    if (process.platform !== "linux")
      throw new Error(`runs on Linux only, not ${process.platform}`);
    if (!isInstalled()) install();
    linkNode();
    buildAddon({ starting: () => say("building the addon") });
    if (!isBuilt()) build();
  }
} catch (error) {
  console.error(`set-up: ${error.message}`);
  process.exitCode = 1;
}

/** Whether every package of the lock file that belongs on this machine is there in its version. */
function isInstalled() {
  const hidden = join(MODULES, ".package-lock.json");
  if (!existsSync(hidden)) return false;
  const wanted = JSON.parse(readFileSync(join(ROOT, "package-lock.json"), "utf8")).packages;
  const present = JSON.parse(readFileSync(hidden, "utf8")).packages;
  const runtime = `node_modules/node-linux-${process.arch}`;
  return Object.entries(wanted).every(([path, { version, integrity, optional }]) => {
    if (path === "" || (optional && path !== runtime && present[path] === undefined)) return true;
    return present[path]?.version === version && present[path]?.integrity === integrity;
  });
}

/** Nothing that we need has an install script, so none is run. */
function install() {
  say("installing dependencies");
  const flags = [
    "--include=dev",
    "--include=optional",
    "--ignore-scripts",
    "--no-audit",
    "--no-fund",
  ];
  run("npm", ["ci", "--loglevel=error", ...flags], "npm ci failed");
  if (!isInstalled()) {
    throw new Error(`npm ci left out a package of package-lock.json for linux ${process.arch}`);
  }
}

/**
 * npm 10 takes the link away with the package of the other architecture, which names it as well.
 */
function linkNode() {
  const link = join(MODULES, ".bin", "node");
  if (existsSync(link)) return;
  rmSync(link, { force: true });
  symlinkSync(`../node-linux-${process.arch}/bin/node`, link);
}

/** Folders count as well: their time tells that a file was removed. */
function isBuilt() {
  if (!existsSync(STAMP)) return false;
  const builtAt = statSync(STAMP).mtimeMs;
  const folder = join(ROOT, "src");
  const entries = ["tsconfig.json", "package-lock.json", "src"].map((name) => join(ROOT, name));
  for (const name of readdirSync(folder, { recursive: true })) entries.push(join(folder, name));
  return entries.every((path) => statSync(path).mtimeMs <= builtAt);
}

function build() {
  say("building dist/");
  mkdirSync(dirname(STAMP), { recursive: true });
  // Written before, so that a file saved while the compiler runs is newer.
  const fresh = `${STAMP}.${process.pid}`;
  writeFileSync(fresh, "");
  try {
    run(join(MODULES, ".bin", "tsc"), ["-p", "src"], "tsc found errors in src/");
    run(process.execPath, [join(ROOT, "src", "bundle.mjs")], "esbuild can't bundle dist/");
    renameSync(fresh, STAMP);
  } finally {
    rmSync(fresh, { force: true });
  }
  makeExecutable();
}

function makeExecutable() {
  const main = join(ROOT, "dist", "main.js");
  if (existsSync(main)) chmodSync(main, 0o755);
}

/** Runs in the root folder, with the Node of node_modules first on the path; quiet on success. */
function run(command, args, complaint) {
  const path = [join(MODULES, ".bin"), process.env["PATH"]].join(delimiter);
  const options = { cwd: ROOT, env: { ...process.env, PATH: path }, encoding: "utf8" };
  const { status, error, stdout, stderr } = spawnSync(command, args, options);
  if (status === 0) return;
  if (error?.code === "ENOENT") throw new Error(`the command ${command} is missing: install it`);
  process.stderr.write(`${stdout}${stderr}`);
  throw new Error(`${complaint}, see above`);
}

function say(step) {
  console.log(`set-up: ${step}`);
}

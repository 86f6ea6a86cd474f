/**
 * The programs of a real control plane, built once from their Go modules: kube-apiserver and istiod
 * (pilot-discovery). Some ten minutes each on two cores; etcd comes from the distribution.
 *
 * They are kept in `$XDG_CACHE_HOME/ztunnel-istiod` (default `~/.cache`), one folder a version.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

/** Of k8s.io/kubernetes; its parts are released as v0.x of the same number. */
const KUBERNETES_VERSION = "v1.36.1";
/** Of istio.io/istio: master has no tags in the module proxy. */
const ISTIO_VERSION = "v0.0.0-20260827124520-eed52ebb66ad";

/** Paths of executables. */
export interface ControlPlaneBinaries {
  readonly etcd: string;
  readonly apiserver: string;
  readonly istiod: string;
}

/** @throws Error that names the missing tool, or with the compiler's words. */
export function controlPlaneBinaries(say: (line: string) => void): ControlPlaneBinaries {
  return {
    etcd: onPath("etcd", "apt-get install etcd-server"),
    apiserver: build("kube-apiserver", KUBERNETES_VERSION, say, buildApiserver),
    istiod: build("pilot-discovery", ISTIO_VERSION, say, buildIstiod),
  };
}

type Build = (folder: string, output: string) => void;

function build(name: string, version: string, say: (line: string) => void, make: Build): string {
  const cache = process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache");
  const folder = join(cache, "ztunnel-istiod", version);
  const output = join(folder, name);
  if (existsSync(output)) return output;
  say(`building ${name} ${version}, some ten minutes`);
  mkdirSync(join(folder, "module"), { recursive: true });
  make(join(folder, "module"), `${output}.part`);
  renameSync(`${output}.part`, output);
  return output;
}

function buildIstiod(folder: string, output: string): void {
  writeModule(folder, "istio.io/istio", ISTIO_VERSION, "");
  compile(folder, output, "istio.io/istio/pilot/cmd/pilot-discovery");
}

/** Its own go.mod points to folders beside it; outside, they are modules of their own. */
function buildApiserver(folder: string, output: string): void {
  const info = go(folder, "mod", "download", "-json", `k8s.io/kubernetes@${KUBERNETES_VERSION}`);
  const { GoMod } = JSON.parse(info) as { readonly GoMod: string };
  const parts = readFileSync(GoMod, "utf8").matchAll(/^\s+(k8s\.io\/[a-z-]+) v0\.0\.0$/gm);
  const released = KUBERNETES_VERSION.replace(/^v1\./, "v0.");
  const replaced = Array.from(parts, ([, part]) => `replace ${part} => ${part} ${released}\n`);
  writeModule(folder, "k8s.io/kubernetes", KUBERNETES_VERSION, replaced.join(""));
  compile(folder, output, "k8s.io/kubernetes/cmd/kube-apiserver");
}

function writeModule(folder: string, module: string, version: string, more: string): void {
  const text = `module scratch\ngo 1.26\nrequire ${module} ${version}\n${more}`;
  writeFileSync(join(folder, "go.mod"), text);
}

function compile(folder: string, output: string, program: string): void {
  writeFileSync(
    join(folder, "tools.go"),
    `//go:build tools\npackage scratch\nimport _ "${program}"\n`,
  );
  go(folder, "build", "-mod=mod", "-trimpath", "-ldflags=-s", "-o", output, program);
}

function go(folder: string, ...args: readonly string[]): string {
  onPath("go", "https://go.dev/dl, 1.26 or newer");
  const stdio = ["ignore", "pipe", "inherit"] as const;
  return execFileSync("go", args, { cwd: folder, stdio: [...stdio], encoding: "utf8" });
}

function onPath(tool: string, source: string): string {
  for (const folder of (process.env["PATH"] ?? "").split(":")) {
    const path = join(folder, tool);
    if (existsSync(path)) return path;
  }
  throw new Error(`${tool} is not on the PATH (${source})`);
}

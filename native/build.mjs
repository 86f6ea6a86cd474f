/**
 * Builds the addon with one call of the system's C++ compiler. Needs no download: the headers come
 * with the Node in node_modules or with the running one. Rebuilds only when a source, a flag or
 * the compiler's name changed. `--sanitize` builds a second file for the memory-checking tests.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const FOLDER = dirname(fileURLToPath(import.meta.url));
/** Node-API 8 is in every Node since 15.12; what we use beyond plain values needs it. */
const FLAGS = [
  "-shared",
  "-fPIC",
  "-std=c++17",
  "-O2",
  "-Wall",
  "-Wextra",
  "-Werror",
  "-fno-exceptions",
  "-fno-rtti",
  "-fvisibility=hidden",
  "-fstack-protector-strong",
  "-Wl,-z,relro,-z,now",
  "-DNAPI_VERSION=8",
];
const SANITIZE_FLAGS = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"];

/**
 * @param {{ sanitize?: boolean, starting?: () => void }} options `starting` is called before a
 *   compiler runs, and not when the addon is up to date.
 * @throws Error with one sentence for the operator.
 */
export function buildAddon({ sanitize = false, starting = () => {} } = {}) {
  const output = join(FOLDER, "build", sanitize ? "ztunnel-sanitized.node" : "ztunnel.node");
  const files = readdirSync(FOLDER).filter((name) => /\.(cc|h)$/.test(name));
  const sources = files.filter((name) => name.endsWith(".cc")).map((name) => join(FOLDER, name));
  const headers = headerFolder();
  requireOpenSslHeaders(headers);
  const flags = [...FLAGS, ...(sanitize ? SANITIZE_FLAGS : []), "-isystem", headers];

  const hash = createHash("sha256").update(
    JSON.stringify([flags, process.env["CXX"], process.arch]),
  );
  for (const name of files) hash.update(name).update(readFileSync(join(FOLDER, name)));
  const wanted = hash.digest("hex");
  const stamp = `${output}.sha256`;
  if (existsSync(output) && existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) return;

  starting();
  mkdirSync(dirname(output), { recursive: true });
  // A running process keeps the file that it loaded.
  const fresh = `${output}.${process.pid}`;
  const result = spawnSync(compiler(), [...flags, ...sources, "-o", fresh], { encoding: "utf8" });
  if (result.status !== 0) {
    process.stderr.write(result.stderr);
    throw new Error("the addon in native/ does not compile, see above");
  }
  renameSync(fresh, output);
  writeFileSync(stamp, wanted);
}

function compiler() {
  const candidates = process.env["CXX"] ? [process.env["CXX"]] : ["c++", "g++", "clang++"];
  const found = candidates.find((name) => spawnSync(name, ["--version"]).status === 0);
  if (found !== undefined) return found;
  throw new Error(
    `no C++ compiler found (tried ${candidates.join(", ")}): install the package g++, on Debian with: apt-get install g++`,
  );
}

function headerFolder() {
  const candidates = [
    join(FOLDER, "..", "node_modules", `node-linux-${process.arch}`, "include", "node"),
    join(dirname(process.execPath), "..", "include", "node"),
  ];
  const found = candidates.find((folder) =>
    ["node_api.h", "uv.h"].every((name) => existsSync(join(folder, name))),
  );
  if (found !== undefined) return found;
  throw new Error(`node_api.h and uv.h are not in ${candidates.join(" or ")}: run npm ci first`);
}

/** They come with Node's own; those of the system's OpenSSL 3 do as well. */
function requireOpenSslHeaders(nodeHeaders) {
  const candidates = [nodeHeaders, "/usr/include", "/usr/local/include"];
  if (candidates.some((folder) => existsSync(join(folder, "openssl", "ssl.h")))) return;
  throw new Error(
    `openssl/ssl.h is not in ${candidates.join(" or ")}: run npm ci first, or on Debian: apt-get install libssl-dev`,
  );
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    buildAddon({ sanitize: process.argv.includes("--sanitize") });
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  }
}

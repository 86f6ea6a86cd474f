/**
 * Packs what `ztunnel proxy` loads into a few files, in place, after the compiler: the daemon is
 * ready earlier and smaller than with the hundreds of modules that it is made of (figures in
 * bench/README.md). Nothing is minified, and source maps lie beside (`node --enable-source-maps`).
 * The other commands go on with the compiler's files.
 */
import { rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const DIST = join(dirname(dirname(fileURLToPath(import.meta.url))), "dist");

/**
 * Node's own modules are fetched as they are. An `import` of one reads all its exports, and with
 * `node:http` and `node:crypto` that loads fetch and Web Crypto.
 */
const builtins = {
  name: "builtins",
  setup(build) {
    build.onResolve({ filter: /^node:/ }, ({ path }) => ({ path, namespace: "builtin" }));
    build.onLoad({ filter: /./, namespace: "builtin" }, ({ path }) => ({
      contents: `module.exports = process.getBuiltinModule(${JSON.stringify(path)});`,
    }));
  },
};

rmSync(join(DIST, "chunks"), { recursive: true, force: true });
await build({
  entryPoints: ["main.js", "dataplane/data-worker.js"].map((path) => join(DIST, path)),
  external: ["./commands.js"],
  outbase: DIST,
  outdir: DIST,
  allowOverwrite: true,
  // As deep as the rooms, so that paths to files beside dist/ hold.
  chunkNames: "chunks/[name]-[hash]",
  bundle: true,
  splitting: true,
  format: "esm",
  platform: "node",
  target: "node26",
  sourcemap: true,
  // For the CommonJS packages inside.
  banner: {
    js: 'const require = process.getBuiltinModule("node:module").createRequire(import.meta.url);',
  },
  plugins: [builtins],
  logLevel: "warning",
});

/**
 * Makes every import of the addon load the build with sanitizers. Leaks are judged by LeakCheck:
 * Node itself keeps memory until the process ends. Run as:
 *
 *   node native/build.mjs --sanitize
 *   ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD=$(c++ -print-file-name=libasan.so) \
 *     node --import ./test/support/sanitized-addon.mjs --test "test/net/*.test.ts"
 */
import { registerHooks } from "node:module";

registerHooks({
  resolve(specifier, context, next) {
    return next(specifier.replace(/ztunnel\.node$/, "ztunnel-sanitized.node"), context);
  },
});

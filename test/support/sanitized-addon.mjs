/** Makes every import of the addon load the build with sanitizers; see test/native/. */
import { registerHooks } from "node:module";

registerHooks({
  resolve(specifier, context, next) {
    return next(specifier.replace(/ztunnel\.node$/, "ztunnel-sanitized.node"), context);
  },
});

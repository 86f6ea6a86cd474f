/** The redirect rules that our pods have, for a host with another proxy inside. */
import { closeSync, openSync } from "node:fs";
import { installRedirect } from "../../src/embedded/redirect-rules.ts";
import type { LabHost } from "../../test/support/netns-lab.ts";

/** From now on what leaves the host goes to port 15001, unless it carries the proxy's mark. */
export async function redirectTraffic(host: LabHost): Promise<void> {
  const netnsFd = openSync(host.path, "r");
  try {
    await installRedirect(netnsFd, { dnsCapture: false, inboundCapture: true });
  } finally {
    closeSync(netnsFd);
  }
}

/** Whether this process may do what the shared mode asks of it, found out at start. */
import { closeSync } from "node:fs";
import { errorText } from "../runtime/error-text.ts";
import type { Native, NativeSocketOptions } from "./native.ts";
import { NetError } from "./net-error.ts";
import { ownNetns } from "./netns.ts";

/** Any mark will do: the scratch sockets never send. */
const SCRATCH_MARK = 1;

/**
 * Makes scratch sockets the way pods' sockets are made: through setns to our own namespace, and
 * with SO_MARK.
 *
 * @throws NetError `missing-capability`, naming CAP_SYS_ADMIN, or CAP_NET_ADMIN and CAP_NET_RAW.
 * @see spec data-path 1.6.
 */
export function checkSharedModePrivileges(native: Pick<Native, "socketInNamespace">): void {
  const netns = ownNetns();
  try {
    tryOption(native, { netnsFd: netns.fd }, "enter network namespaces", "CAP_SYS_ADMIN");
  } finally {
    netns.close();
  }
  tryOption(native, { mark: SCRATCH_MARK }, "set SO_MARK", "CAP_NET_ADMIN and CAP_NET_RAW");
}

function tryOption(
  native: Pick<Native, "socketInNamespace">,
  option: Pick<NativeSocketOptions, "netnsFd" | "mark">,
  what: string,
  capability: string,
): void {
  try {
    closeSync(native.socketInNamespace({ family: "ipv4", type: "stream", ...option }).fd);
  } catch (cause) {
    const reason = errorText(cause);
    const message = `shared mode needs ${capability} to ${what}: ${reason}`;
    throw new NetError("missing-capability", message, { cause });
  }
}

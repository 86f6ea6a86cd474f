/** Whether this process may do what is asked of it, found out at start. */
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
    const enter = { netnsFd: netns.fd };
    tryOption(native, enter, "shared mode needs CAP_SYS_ADMIN to enter network namespaces");
  } finally {
    netns.close();
  }
  const mark = { mark: SCRATCH_MARK };
  tryOption(native, mark, "shared mode needs CAP_NET_ADMIN and CAP_NET_RAW to set SO_MARK");
}

/**
 * The same for one workload's proxy, which needs no privileges but for what it is told to do.
 *
 * @param wanted.mark of outgoing packets.
 * @param wanted.originalSource whether applications must see the client's address.
 * @throws NetError `missing-capability`, naming the option and the capability.
 */
export function checkDedicatedModePrivileges(
  native: Pick<Native, "socketInNamespace">,
  wanted: { readonly mark: number | undefined; readonly originalSource: boolean },
): void {
  const { mark, originalSource } = wanted;
  if (originalSource) {
    const need = "ENABLE_ORIG_SRC=true needs CAP_NET_ADMIN or CAP_NET_RAW to set IP_TRANSPARENT";
    tryOption(native, { transparent: "required" }, need);
  }
  if (mark === undefined) return;
  tryOption(native, { mark }, `PACKET_MARK=${mark} needs CAP_NET_ADMIN to set SO_MARK`);
}

function tryOption(
  native: Pick<Native, "socketInNamespace">,
  option: Pick<NativeSocketOptions, "netnsFd" | "mark" | "transparent">,
  need: string,
): void {
  try {
    closeSync(native.socketInNamespace({ family: "ipv4", type: "stream", ...option }).fd);
  } catch (cause) {
    const message = `${need}: ${errorText(cause)}`;
    throw new NetError("missing-capability", message, { cause });
  }
}

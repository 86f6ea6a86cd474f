/** How a side of a relay, a socket or a tunnel stream, ends out of order. */
import type { EngineError } from "./engine-error.ts";

/** Why a side ended out of order. */
export type SideFailure =
  /** The peer gave up; passed on as a reset. `error` unless that is all there is to say. */
  | { readonly kind: "reset"; readonly error: EngineError | undefined }
  /** Bytes were to be written after the peer, without a reset, had stopped to take any. */
  | { readonly kind: "refused-bytes" }
  /** Ended by this process (the tunnel below was destroyed); passed on as a close. */
  | { readonly kind: "stopped" };

/** What the peer's SETTINGS frames say: kept here, or passed on to whoever must heed it. */
import { FRAME_BYTES_DEFAULT, FRAME_BYTES_MAX, SettingId } from "./frame.ts";
import { Http2Error } from "./http2-error.ts";
import type { MessageWriter } from "./message-writer.ts";
import type { SendWindows } from "./send-windows.ts";

export interface PeerSettingsDeps<Owner> {
  readonly messages: MessageWriter;
  readonly sendWindows: SendWindows<Owner>;
}

export class PeerSettings<Owner> {
  readonly #messages: MessageWriter;
  readonly #sendWindows: SendWindows<Owner>;
  readonly #role: "client" | "server";
  #frameBytesMax = FRAME_BYTES_DEFAULT;
  #streamsMax = Number.POSITIVE_INFINITY;
  #haveWindowsChanged = false;

  /** @param role ours: only a client may ask for pushes. */
  constructor(deps: PeerSettingsDeps<Owner>, role: "client" | "server") {
    this.#messages = deps.messages;
    this.#sendWindows = deps.sendWindows;
    this.#role = role;
  }

  /** Longest payload that the peer takes in one frame. */
  get frameBytesMax(): number {
    return this.#frameBytesMax;
  }

  /** Streams that the peer lets be open at once. */
  get streamsMax(): number {
    return this.#streamsMax;
  }

  /**
   * Sets one, known or not.
   *
   * @throws Http2Error when it may not have this value.
   * @see RFC 9113 section 6.5.2
   */
  set(id: number, value: number): void {
    switch (id) {
      case SettingId.headerTableSize:
        this.#messages.limitTable(value);
        return;
      case SettingId.enablePush:
        if (value > (this.#role === "server" ? 1 : 0)) throw bad("ENABLE_PUSH", value);
        return;
      case SettingId.maxConcurrentStreams:
        this.#streamsMax = value;
        return;
      case SettingId.initialWindowSize:
        this.#sendWindows.resize(value);
        this.#haveWindowsChanged = true;
        return;
      case SettingId.maxFrameSize:
        if (value < FRAME_BYTES_DEFAULT || value > FRAME_BYTES_MAX) {
          throw bad("MAX_FRAME_SIZE", value);
        }
        this.#frameBytesMax = value;
    }
  }

  /** Whether windows have changed since the last call. */
  takeWindowChange(): boolean {
    const changed = this.#haveWindowsChanged;
    this.#haveWindowsChanged = false;
    return changed;
  }
}

function bad(name: string, value: number): Http2Error {
  return new Http2Error("protocol", `SETTINGS_${name} of ${value}`);
}

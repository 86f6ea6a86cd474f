/**
 * Watches every frame of a network namespace and tells what TCP carries: TLS records or something
 * else, and whether a given text is readable in it.
 */
import { closeSync, readSync } from "node:fs";
import { ipAddressFromBytes } from "../mesh/ip-address.ts";
import { formatHostPort } from "../mesh/socket-address.ts";
import { type NativeWatch, native } from "../net/native.ts";
import type { Netns } from "../net/netns.ts";

/** ETH_P_ALL of linux/if_ether.h: what comes in and what goes out. */
const EVERY_PROTOCOL = 0x0003;
/** Larger than any frame, also one that the kernel has not cut into segments yet. */
const FRAME_BYTES_MAX = 70_000;
/** Frames read in one turn of the event loop. */
const FRAMES_PER_TURN_MAX = 256;

const ETHERNET_BYTES = 14;
const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_IPV6 = 0x86dd;
const IPV4_BYTES_MIN = 20;
const IPV6_BYTES = 40;
const IP_PROTOCOL_TCP = 6;
const TCP_SYN = 0x02;

const TLS_RECORD_HEADER_BYTES = 5;
const TLS_HANDSHAKE = 22;
const TLS_APPLICATION_DATA = 23;

/** One direction of one TCP connection. */
export interface CapturedFlow {
  readonly source: string;
  readonly destination: string;
  /** Payload, retransmissions and second sightings left out. */
  readonly byteCount: number;
  /** False as soon as something was no TLS record. */
  readonly isTls: boolean;
  readonly handshakeCount: number;
  /** Records that begin with 17 03 03. */
  readonly applicationDataCount: number;
}

export class WireCapture {
  readonly #fd: number;
  readonly #watch: NativeWatch;
  readonly #marker: string;
  readonly #flows = new Map<string, TcpFlow>();
  /** Reused: nothing of a frame is kept. */
  readonly #frame = Buffer.alloc(FRAME_BYTES_MAX);
  #markerCount = 0;

  /**
   * Watches from now on.
   *
   * @param marker the text to look for in each segment.
   * @throws what the system says, EPERM without CAP_NET_RAW.
   */
  constructor(netns: Netns, marker: string) {
    this.#marker = marker;
    this.#fd = native.socketInNamespace({
      netnsFd: netns.fd,
      family: "packet",
      type: "raw",
      protocol: EVERY_PROTOCOL,
    }).fd;
    this.#watch = native.watchReadable(this.#fd, () => this.#drain());
  }

  /** Those that carried anything, in the order in which they began. */
  get flows(): readonly CapturedFlow[] {
    return [...this.#flows.values()].filter((flow) => flow.byteCount > 0);
  }

  /** In how many segments the marker was readable. */
  get markerCount(): number {
    return this.#markerCount;
  }

  /** Takes in what has arrived, then stops. */
  close(): void {
    this.#drain();
    this.#watch.close();
    closeSync(this.#fd);
  }

  #drain(): void {
    for (let i = 0; i < FRAMES_PER_TURN_MAX; i++) {
      const byteCount = readFrame(this.#fd, this.#frame);
      if (byteCount === 0) return;
      const segment = readSegment(this.#frame.subarray(0, byteCount));
      if (segment !== undefined) this.#take(segment);
    }
  }

  #take(segment: TcpSegment): void {
    const key = `${segment.source} ${segment.destination}`;
    let flow = this.#flows.get(key);
    if (flow === undefined) {
      flow = new TcpFlow(segment.source, segment.destination);
      this.#flows.set(key, flow);
    }
    const fresh = flow.take(segment);
    if (fresh.includes(this.#marker)) this.#markerCount++;
  }
}

/** @returns 0 when no frame waits. */
function readFrame(fd: number, buffer: Buffer): number {
  try {
    return readSync(fd, buffer);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EAGAIN") return 0;
    throw error;
  }
}

interface TcpSegment {
  readonly source: string;
  readonly destination: string;
  /** Of the first byte of the payload. */
  readonly sequence: number;
  readonly isFirst: boolean;
  readonly payload: Buffer;
}

/** @returns `undefined` for anything but TCP. */
function readSegment(frame: Buffer): TcpSegment | undefined {
  const packet = readPacket(frame);
  if (packet === undefined || packet.segment.length < 20) return undefined;
  const { source, destination, segment } = packet;
  const isFirst = (segment.readUInt8(13) & TCP_SYN) !== 0;
  return {
    source: formatHostPort(ipAddressFromBytes(source) ?? "", segment.readUInt16BE(0)),
    destination: formatHostPort(ipAddressFromBytes(destination) ?? "", segment.readUInt16BE(2)),
    sequence: (segment.readUInt32BE(4) + (isFirst ? 1 : 0)) >>> 0,
    isFirst,
    payload: segment.subarray((segment.readUInt8(12) >> 4) * 4),
  };
}

/** What IP says of TCP in it. Linux puts nothing between the headers of the two by itself. */
function readPacket(
  frame: Buffer,
): { source: Buffer; destination: Buffer; segment: Buffer } | undefined {
  if (frame.length < ETHERNET_BYTES + IPV4_BYTES_MIN) return undefined;
  const packet = frame.subarray(ETHERNET_BYTES);
  switch (frame.readUInt16BE(12)) {
    case ETHERTYPE_IPV4:
      if (packet[9] !== IP_PROTOCOL_TCP) return undefined;
      return {
        source: packet.subarray(12, 16),
        destination: packet.subarray(16, 20),
        segment: packet.subarray(
          (packet.readUInt8(0) & 0x0f) * 4,
          packet.readUInt16BE(2) || packet.length,
        ),
      };
    case ETHERTYPE_IPV6:
      if (packet.length < IPV6_BYTES || packet[6] !== IP_PROTOCOL_TCP) return undefined;
      return {
        source: packet.subarray(8, 24),
        destination: packet.subarray(24, 40),
        segment: packet.subarray(
          IPV6_BYTES,
          IPV6_BYTES + (packet.readUInt16BE(4) || packet.length),
        ),
      };
    default:
      return undefined;
  }
}

class TcpFlow implements CapturedFlow {
  readonly source: string;
  readonly destination: string;
  byteCount = 0;
  isTls = true;
  handshakeCount = 0;
  applicationDataCount = 0;
  #next: number | undefined;
  /** Frames that we were too slow for: where records begin is not known any more. */
  #hasGap = false;
  /** The beginning of a record whose header is not complete. */
  #head: Buffer = Buffer.alloc(0);
  /** Bytes of the current record still to come. */
  #bodyBytes = 0;

  constructor(source: string, destination: string) {
    this.source = source;
    this.destination = destination;
  }

  /** @returns the part of the payload not seen before. */
  take({ sequence, isFirst, payload }: TcpSegment): Buffer {
    if (isFirst || this.#next === undefined) this.#next = sequence;
    // Sequence numbers wrap: the distance counts as a signed 32-bit number.
    const known = (this.#next - sequence) | 0;
    if (known < 0) {
      this.#next = sequence;
      this.#hasGap = true;
    }
    const fresh = payload.subarray(Math.min(Math.max(known, 0), payload.length));
    this.#next = (this.#next + fresh.length) >>> 0;
    this.byteCount += fresh.length;
    if (this.isTls && !this.#hasGap) this.#readRecords(fresh);
    return fresh;
  }

  #readRecords(bytes: Buffer): void {
    let rest = bytes;
    while (rest.length > 0) {
      if (this.#bodyBytes > 0) {
        const skipped = Math.min(this.#bodyBytes, rest.length);
        this.#bodyBytes -= skipped;
        rest = rest.subarray(skipped);
        continue;
      }
      const missing = TLS_RECORD_HEADER_BYTES - this.#head.length;
      this.#head = Buffer.concat([this.#head, rest.subarray(0, missing)]);
      rest = rest.subarray(missing);
      if (this.#head.length < TLS_RECORD_HEADER_BYTES) return;
      this.#readHeader(this.#head);
      this.#head = Buffer.alloc(0);
      if (!this.isTls) return;
    }
  }

  #readHeader(header: Buffer): void {
    const type = header.readUInt8(0);
    this.isTls = type >= 20 && type <= TLS_APPLICATION_DATA && header.readUInt8(1) === 3;
    if (type === TLS_HANDSHAKE) this.handshakeCount++;
    if (type === TLS_APPLICATION_DATA && header.readUInt8(2) === 3) this.applicationDataCount++;
    this.#bodyBytes = header.readUInt16BE(3);
  }
}

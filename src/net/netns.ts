/** A network namespace: an open descriptor, which keeps it alive, and what makes it the same one. */
import { closeSync, fstatSync, openSync, statfsSync } from "node:fs";
import { NetError } from "./net-error.ts";

/** NSFS_MAGIC of linux/magic.h: namespaces of every kind; setns() tells the kinds apart. */
const NSFS_MAGIC = 0x6e736673;

export class Netns {
  /** Valid until {@link close}. */
  readonly fd: number;
  /** `device:inode`; equal for two descriptors of one namespace as long as either is open. */
  readonly key: string;
  #closed = false;

  /**
   * Takes the descriptor; closes it on failure.
   *
   * @throws NetError `not-a-netns`.
   */
  constructor(fd: number) {
    if (statfsSync(`/proc/self/fd/${fd}`).type !== NSFS_MAGIC) {
      closeSync(fd);
      throw new NetError("not-a-netns", `descriptor ${fd} is no network namespace`);
    }
    const { dev, ino } = fstatSync(fd, { bigint: true });
    this.fd = fd;
    this.key = `${dev}:${ino}`;
  }

  /**
   * Opens one by its path, such as `/run/netns/NAME` or `/proc/PID/ns/net`.
   *
   * @throws NetError `not-a-netns`; what open says when there is nothing.
   */
  static open(path: string): Netns {
    const fd = openSync(path, "r");
    try {
      return new Netns(fd);
    } catch (cause) {
      throw new NetError("not-a-netns", `${path} is no network namespace`, { cause });
    }
  }

  /** Idempotent. Sockets made in the namespace live on. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.fd);
  }
}

/** The namespace of the calling thread. */
export function ownNetns(): Netns {
  return Netns.open("/proc/thread-self/ns/net");
}

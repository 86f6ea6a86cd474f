/** A network namespace that the node agent handed over: a descriptor and what makes it the same one. */
import { closeSync, fstatSync } from "node:fs";

export interface Netns {
  readonly fd: number;
  /** `device:inode`; equal for two descriptors of one namespace. */
  readonly key: string;
  /** Call once, when nothing uses the descriptor any more. */
  close(): void;
}

/** Takes the descriptor. */
export function netnsFromFd(fd: number): Netns {
  const { dev, ino } = fstatSync(fd, { bigint: true });
  return { fd, key: `${dev}:${ino}`, close: () => closeSync(fd) };
}

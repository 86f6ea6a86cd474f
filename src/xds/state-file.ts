/**
 * What a control plane said last, kept for a restart while it is away: the resources as they came,
 * with their versions, and nothing else. No keys, no certificates.
 *
 *     "ztunnel mesh 1\n"
 *     8 bytes   when it was taken, ms since the epoch, a double
 *     entries   1 byte type, then name, version and bytes, each with its length in 4 bytes before it
 *     1 byte    END
 *     32 bytes  SHA-256 of all before
 *
 * Numbers are little-endian.
 */
import { createHash } from "node:crypto";
import { constants, type Stats } from "node:fs";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { makeFolder } from "../runtime/folder.ts";

export type KeptType = "address" | "policy";

export interface KeptResource {
  readonly type: KeptType;
  readonly name: string;
  /** Empty for policies. */
  readonly version: string;
  /** Of the resource's message. Valid until the next one is taken. */
  readonly bytes: Uint8Array;
}

export interface KeptState {
  /** Milliseconds since the epoch. */
  readonly takenAt: number;
  readonly resources: readonly KeptResource[];
}

/** The file is there, but is not one that was written whole, by this version and by us. */
export class StateFileError extends Error {
  override readonly name = "StateFileError";
}

const FILE_NAME = "mesh.state";
const MAGIC = Buffer.from("ztunnel mesh 1\n");
const TYPES: readonly KeptType[] = ["address", "policy"];
const END = 0xff;
const HASH_BYTES = 32;
/** Written at a time; between two, others may use the thread. */
const CHUNK_BYTES = 256 * 1024;
/** Only for us: names and addresses of a mesh are nobody else's business. */
const FILE_MODE = 0o600;
const FOLDER_MODE = 0o700;
const MODE = { writableByGroup: 0o020, writableByOthers: 0o002 } as const;

/**
 * Replaces the file of the folder, or leaves it as it was: never half of it.
 *
 * @throws Error of the system.
 */
export async function writeStateFile(
  folder: string,
  takenAt: number,
  resources: Iterable<KeptResource>,
): Promise<void> {
  await makeFolder(folder, FOLDER_MODE);
  const path = join(folder, FILE_NAME);
  const part = `${path}.part`;
  await rm(part, { force: true });
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;
  const file = await open(part, flags, FILE_MODE);
  try {
    await writeAll(file, takenAt, resources);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(part, path);
}

/**
 * @returns `undefined` when nothing was kept yet.
 * @throws StateFileError, or Error of the system.
 */
export async function readStateFile(folder: string): Promise<KeptState | undefined> {
  const path = join(folder, FILE_NAME);
  let file: FileHandle;
  try {
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  try {
    const stats = await file.stat();
    if (!stats.isFile()) throw new StateFileError(`${path} is no file`);
    const stranger = whoMayWrite(stats);
    if (stranger !== undefined) throw new StateFileError(`${path} can't be trusted: ${stranger}`);
    return decode(await file.readFile(), path);
  } finally {
    await file.close();
  }
}

/**
 * Whoever writes the file says which policies there are; a checksum keeps nobody from that.
 *
 * @returns who may, beside us, root, and a group that is ours (volumes are given one).
 */
function whoMayWrite({ uid, gid, mode }: Stats): string | undefined {
  if (uid !== 0 && uid !== process.geteuid?.()) return `it belongs to user ${uid}`;
  if ((mode & MODE.writableByOthers) !== 0) return `mode ${octal(mode)} lets everybody write it`;
  const isOurGroup =
    gid === 0 || gid === process.getegid?.() || process.getgroups?.().includes(gid);
  if ((mode & MODE.writableByGroup) === 0 || isOurGroup === true) return undefined;
  return `mode ${octal(mode)} lets group ${gid} write it`;
}

function octal(mode: number): string {
  return (mode & 0o777).toString(8).padStart(4, "0");
}

async function writeAll(
  file: FileHandle,
  takenAt: number,
  resources: Iterable<KeptResource>,
): Promise<void> {
  const hash = createHash("sha256");
  let chunk: Uint8Array[] = [];
  let chunkBytes = 0;
  const add = (bytes: Uint8Array): void => {
    hash.update(bytes);
    chunk.push(bytes);
    chunkBytes += bytes.length;
  };
  const flush = async (): Promise<void> => {
    await file.writev(chunk);
    chunk = [];
    chunkBytes = 0;
  };
  add(MAGIC);
  add(Buffer.from(Float64Array.of(takenAt).buffer));
  for (const { type, name, version, bytes } of resources) {
    add(Buffer.of(TYPES.indexOf(type)));
    for (const part of [Buffer.from(name), Buffer.from(version), Buffer.from(bytes)]) {
      const length = Buffer.alloc(4);
      length.writeUInt32LE(part.length);
      add(length);
      add(part);
    }
    if (chunkBytes >= CHUNK_BYTES) await flush();
  }
  add(Buffer.of(END));
  chunk.push(hash.digest());
  await flush();
}

function decode(file: Buffer, path: string): KeptState {
  const body = file.subarray(0, Math.max(0, file.length - HASH_BYTES));
  if (!body.subarray(0, MAGIC.length).equals(MAGIC)) {
    throw new StateFileError(`${path} is not the state of a mesh`);
  }
  const hash = createHash("sha256").update(body).digest();
  if (!hash.equals(file.subarray(body.length))) {
    throw new StateFileError(`${path} is damaged: its checksum differs`);
  }
  let at = MAGIC.length;
  const takenAt = body.readDoubleLE(at);
  at += Float64Array.BYTES_PER_ELEMENT;
  const take = (): Buffer => {
    const length = body.readUInt32LE(at);
    at += 4 + length;
    return body.subarray(at - length, at);
  };
  const resources: KeptResource[] = [];
  for (;;) {
    const number = body.readUInt8(at++);
    if (number === END) return { takenAt, resources };
    const type = TYPES[number];
    if (type === undefined) throw new StateFileError(`${path} has a resource of type ${number}`);
    resources.push({ type, name: take().toString(), version: take().toString(), bytes: take() });
  }
}

/** One connection of a torture, from its socket to what both ends saw. */
import { once } from "node:events";
import { isIPv6, type Socket } from "node:net";
import { socketOf } from "../lab-application.ts";
import { seededRandom } from "../mesh-fixture.ts";
import { PlayedEnd } from "./played-end.ts";
import { TORTURE_PATHS, type TortureLab, type TorturePath } from "./torture-lab.ts";
import { drawPlans, pick, type SaidBytes } from "./torture-plan.ts";
import { GREETING_BYTES, greeting, type TortureServers } from "./torture-servers.ts";

/** Below what the kernel gives to sockets that ask for none, so that no source is seen twice. */
const SOURCE_PORTS = { first: 10_000, count: 22_000 } as const;

export interface TortureCallOptions {
  readonly seed: number;
  /** How many were before it. */
  readonly index: number;
  readonly pathNames: readonly string[];
  readonly said: SaidBytes;
}

/** Bytes of both directions. */
export interface Amounts {
  readonly forth: number;
  readonly back: number;
}

export class TortureCall {
  readonly pathName: string;
  readonly path: TorturePath;
  readonly #lab: TortureLab;
  readonly #options: TortureCallOptions;
  readonly #plans: ReturnType<typeof drawPlans>;
  readonly #socket: Socket;
  #client: PlayedEnd | undefined;
  #server: PlayedEnd | undefined;
  #failure: string | undefined;
  #lastMoveCount = 0;
  #stillLooks = 0;

  /** The same for the same seed and index. */
  constructor(lab: TortureLab, options: TortureCallOptions) {
    this.#lab = lab;
    this.#options = options;
    const random = seededRandom(options.seed + options.index * 7919);
    this.pathName = pick(options.pathNames, random);
    this.path = TORTURE_PATHS[this.pathName] as TorturePath;
    this.#plans = drawPlans(random);
    this.#socket = socketOf(lab.lab.host(this.path.from), this.#isIpv6 ? "ipv6" : "ipv4");
  }

  /** As logs write it. */
  get source(): string {
    const { ipv4, ipv6 } = this.#lab.lab.host(this.path.from);
    return `${this.#isIpv6 ? `[${ipv6}]` : ipv4}:${this.#localPort}`;
  }

  /** Settles when both ends are closed. */
  async play(servers: TortureServers): Promise<void> {
    const { index } = this.#options;
    const { ip, port } = this.path;
    const socket = this.#socket;
    try {
      socket.connect({ host: ip, port, localPort: this.#localPort });
      await once(socket, "connect");
    } catch (error) {
      // A refusal may be sooner than the word that the connection is there.
      if (!this.path.isSteady && this.#failure === undefined) return;
      this.#failure ??= `connect: ${error instanceof Error ? error.message : error}`;
      return;
    }
    socket.on("error", () => {
      // The end notes it.
    });
    this.#client = this.#end(socket, 0);
    const arrival = servers.arrival(index, socket);
    socket.write(greeting(index));
    const other = await arrival;
    if (other === undefined) {
      this.#client.giveUp();
      return;
    }
    this.#server = this.#end(other, 1);
    await Promise.all([this.#client.play(), this.#server.play()]);
  }

  /** @returns how often it was called since anything moved. */
  look(): number {
    const moveCount = (this.#client?.moveCount ?? 0) + (this.#server?.moveCount ?? 0);
    this.#stillLooks = moveCount === this.#lastMoveCount ? this.#stillLooks + 1 : 0;
    this.#lastMoveCount = moveCount;
    return this.#stillLooks;
  }

  /** Ends it because it is stuck. */
  giveUp(): void {
    this.#failure = "stuck";
    this.#socket.destroy(new Error("stuck"));
    this.#server?.giveUp();
  }

  /** What of it is not as it should be, as its ends saw it. */
  problems(): readonly string[] {
    const [client, server] = [this.#client, this.#server];
    if (this.#failure !== undefined) return [this.#failure];
    if (client === undefined || server === undefined) {
      return this.path.isSteady ? ["never reached the server"] : [];
    }
    return [...client.problems(server, this.isClean), ...server.problems(client, this.isClean)];
  }

  /** Whether everything must arrive: nobody means to cut it short. */
  get isClean(): boolean {
    return this.path.isSteady && this.#plans.every(({ ending }) => ending.startsWith("end"));
  }

  /** What a report must say at least: what arrived. */
  get heard(): Amounts {
    const forth = this.#server === undefined ? 0 : this.#server.received + GREETING_BYTES;
    return { forth, back: this.#client?.received ?? 0 };
  }

  /** What a report may say at most. */
  get said(): Amounts {
    const forth = this.#client === undefined ? 0 : this.#client.sent + GREETING_BYTES;
    return { forth, back: this.#server?.sent ?? 0 };
  }

  toString(): string {
    const { index } = this.#options;
    const ends = `client ${this.#client ?? "none"}; server ${this.#server ?? "none"}`;
    return `connection ${index} from ${this.source}, ${this.pathName}: ${ends}`;
  }

  get #isIpv6(): boolean {
    return isIPv6(this.path.ip);
  }

  get #localPort(): number {
    return SOURCE_PORTS.first + (this.#options.index % SOURCE_PORTS.count);
  }

  #end(socket: Socket, role: 0 | 1): PlayedEnd {
    const { index, seed, said } = this.#options;
    const speaker = 2 * index + role;
    return new PlayedEnd(socket, {
      plan: this.#plans[role],
      said,
      speaker,
      otherSpeaker: speaker ^ 1,
      random: seededRandom(seed + speaker),
    });
  }
}

/**
 * One port with everything that a proxy asks istiod for, over gRPC and TLS. What is served is told
 * by the services that it is given.
 *
 * @see spec control-plane 1.1, corrections B4 and B23.
 */
import {
  logVerbosity,
  Metadata,
  Server,
  ServerCredentials,
  type ServiceDefinition,
  setLogVerbosity,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import { ipAddressToBytes, parseIpAddress } from "../mesh/ip-address.ts";
import { systemClock } from "../runtime/clock.ts";
import { systemProblem } from "../runtime/system-problem.ts";
import type { EmbeddedAuthority } from "./certificate-authority.ts";
import type { AlternativeName } from "./certificate-builder.ts";

/** Methods and what answers them. */
export interface GrpcService {
  readonly definition: ServiceDefinition;
  readonly implementation: UntypedServiceImplementation;
}

export interface ControlPlaneServerOptions {
  /** `host:port`; port 0 chooses one. */
  readonly listen: string;
  /** Host names and IP addresses by which clients call, beside those of istiod and this machine. */
  readonly names: readonly string[];
  /** When connections are ended, milliseconds; default 30 min and 10 s, as istiod. */
  readonly connectionAge?: {
    /** No new calls on a connection that is older. */
    readonly maxMs: number;
    /** How much longer the calls that are under way may take. */
    readonly graceMs: number;
  };
}

const OWN_NAMES = ["istiod.istio-system.svc", "istiod", "localhost", "127.0.0.1", "::1"];

/** All as istiod's. */
const REQUEST_BYTES_MAX = 4 * 2 ** 20;
const STREAMS_PER_CONNECTION_MAX = 100_000;
const KEEPALIVE_MS = 30_000;
const KEEPALIVE_TIMEOUT_MS = 10_000;
/** How long calls may go on when the server goes away. */
const FAREWELL_MS = 1000;
const CONNECTION_AGE = { maxMs: 30 * 60_000, graceMs: 10_000 };

export class ControlPlaneServer {
  readonly #server: Server;
  #port = 0;

  private constructor(connectionAge: NonNullable<ControlPlaneServerOptions["connectionAge"]>) {
    this.#server = new Server({
      "grpc.keepalive_time_ms": KEEPALIVE_MS,
      "grpc.keepalive_timeout_ms": KEEPALIVE_TIMEOUT_MS,
      "grpc.max_concurrent_streams": STREAMS_PER_CONNECTION_MAX,
      "grpc.max_connection_age_grace_ms": connectionAge.graceMs,
      "grpc.max_connection_age_ms": connectionAge.maxMs,
      "grpc.max_receive_message_length": REQUEST_BYTES_MAX,
      "grpc.max_send_message_length": -1,
    });
  }

  /** @throws Error that names the address when it can't be listened on. */
  static async start(
    deps: { readonly authority: EmbeddedAuthority; readonly services: readonly GrpcService[] },
    options: ControlPlaneServerOptions,
  ): Promise<ControlPlaneServer> {
    // Our errors say what its own log would.
    setLogVerbosity(logVerbosity.NONE);
    const server = new ControlPlaneServer(options.connectionAge ?? CONNECTION_AGE);
    for (const { definition, implementation } of deps.services) {
      server.#server.addService(definition, implementation);
    }
    await server.#listen(deps.authority, options);
    return server;
  }

  get port(): number {
    return this.#port;
  }

  /** Takes no more calls; those under way have a moment to end. Settles when all are gone. */
  async shutDown(): Promise<void> {
    const ended = Promise.withResolvers<void>();
    this.#server.tryShutdown(() => ended.resolve());
    const timer = systemClock.after(FAREWELL_MS, () => ended.resolve(), true);
    await ended.promise;
    timer.cancel();
    this.close();
  }

  /** Ends at once, calls under way too. Idempotent. */
  close(): void {
    this.#server.forceShutdown();
  }

  async #listen(
    authority: EmbeddedAuthority,
    { listen, names }: ControlPlaneServerOptions,
  ): Promise<void> {
    const tls = await authority.issueServer(
      [...new Set([...OWN_NAMES, ...names])].map(alternativeName),
    );
    const credentials = ServerCredentials.createSsl(null, [
      {
        cert_chain: Buffer.from(tls.certificatePem),
        private_key: Buffer.from(tls.privateKeyPem),
      },
    ]);
    this.#port = await new Promise<number>((resolve, reject) => {
      this.#server.bindAsync(listen, credentials, (error, port) =>
        error === null ? resolve(port) : reject(new Error(refusal(listen, error))),
      );
    });
  }
}

/** Headers that every answer begins with, so that the content type is istiod's. */
export function answerHeaders(): Metadata {
  const headers = new Metadata();
  headers.set("content-type", "application/grpc");
  return headers;
}

/** Without what gRPC says around it. */
function refusal(listen: string, { message }: Error): string {
  const [, code] = /errors: \[listen (E[A-Z]+): /.exec(message) ?? [];
  return `can't listen on ${listen}: ${systemProblem(Object.assign(new Error(message), { code }))}`;
}

function alternativeName(name: string): AlternativeName {
  const ip = parseIpAddress(name);
  return ip === undefined
    ? { kind: "dns", hostname: name }
    : { kind: "ip", bytes: ipAddressToBytes(ip) };
}

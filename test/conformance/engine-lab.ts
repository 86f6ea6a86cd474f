/** An engine between two applications, joined directly or through a tunnel to itself. */
import assert from "node:assert/strict";
import type { SecureServerOptions } from "node:http2";
import { type ConnectionOptions, createSecureContext } from "node:tls";
import type {
  ClientTunnel,
  ConnectOptions,
  End,
  Engine,
  Listener,
  ListenOptions,
  PeerChain,
  Relay,
  RelayOutcome,
  ServerTunnel,
  SocketEnd,
  TlsOptions,
  TunnelRequest,
  TunnelSettings,
} from "../../src/engine/engine.ts";
import type { EngineError } from "../../src/engine/engine-error.ts";
import {
  formatSocketAddress,
  parseSocketAddress,
  type SocketAddress,
} from "../../src/mesh/socket-address.ts";
import type { WorkloadCertificate } from "../../src/mesh/workload-certificate.ts";
import { type TestCa, testCa, testIdentity } from "../support/test-ca.ts";
import { type Applications, LOOPBACK, type Peer } from "./raw-peer.ts";

/** An engine that can be closed, as the conformance suites want it. */
export type ClosableEngine = Engine & { close(): void };

/** The mesh's numbers, spec data-path 3.2, 4.2. */
export const SETTINGS: TunnelSettings = {
  streamWindowBytes: 4 * 1024 * 1024,
  connectionWindowBytes: 16 * 1024 * 1024,
  frameBytesMax: 1024 * 1024,
  headerListBytesMax: 65_536,
  streamsMax: 200,
  floodPercent: 100,
  pingIntervalMs: 10_000,
  pingTimeoutMs: 20_000,
  handshakeTimeoutMs: 10_000,
};

/** Of a batch engine; longer than any test. */
export const HALF_CLOSED: { readonly halfClosedIdleMs: number } = { halfClosedIdleMs: 90_000 };

export const LISTEN: ListenOptions = {
  netns: undefined,
  address: { ip: LOOPBACK, port: 0 },
  mark: undefined,
  reusePort: false,
  transparent: "off",
  backlog: 128,
  keepAlive: undefined,
  originalDestination: false,
};

export function connectOptions(remote: SocketAddress): ConnectOptions {
  return {
    netns: undefined,
    remote,
    source: undefined,
    mark: undefined,
    timeoutMs: 30_000,
    keepAlive: undefined,
  };
}

/** Trusts everybody whose chain is good, unless told otherwise. */
export function tlsOptions(
  certificate: WorkloadCertificate,
  verifyPeer: TlsOptions["verifyPeer"] = () => undefined,
  isRevoked?: TlsOptions["isRevoked"],
): TlsOptions {
  const tls = { certificate, verifyPeer, tls12: false, postQuantumOnly: false };
  return isRevoked === undefined ? tls : { ...tls, isRevoked };
}

/** A promise with its handle outside. */
export class Deferred<T> {
  readonly promise: Promise<T>;
  resolve: (value: T) => void = () => {};

  constructor() {
    this.promise = new Promise((resolve) => {
      this.resolve = resolve;
    });
  }
}

/** What one accepted tunnel told. */
export class AcceptedTunnel {
  readonly closed: Deferred<EngineError | undefined> = new Deferred();
  peer: PeerChain | undefined;
  tunnel: ServerTunnel | undefined;
}

/** A tunnel server whose requests are answered by a function. */
export class TunnelLab {
  readonly engine: ClosableEngine;
  readonly ca: TestCa;
  readonly listener: Listener;
  readonly accepted: AcceptedTunnel[] = [];
  requested: (request: TunnelRequest) => void = () => {};
  readonly #tls: TlsOptions;
  #wanted: Deferred<AcceptedTunnel> | undefined;

  constructor(
    engine: ClosableEngine,
    ca: TestCa,
    tls: TlsOptions,
    settings: TunnelSettings = SETTINGS,
  ) {
    this.engine = engine;
    this.ca = ca;
    this.#tls = tls;
    this.listener = engine.listen(LISTEN);
    this.listener.start(
      (end) => this.#accept(end, settings),
      (error) => assert.fail(error),
    );
  }

  static async open(
    engine: ClosableEngine,
    more: {
      readonly settings?: TunnelSettings;
      readonly verifyPeer?: TlsOptions["verifyPeer"];
      readonly isRevoked?: TlsOptions["isRevoked"];
      readonly ca?: TestCa;
    } = {},
  ): Promise<TunnelLab> {
    const ca = more.ca ?? (await testCa());
    const certificate = await ca.certificate(testIdentity("server"));
    return new TunnelLab(
      engine,
      ca,
      tlsOptions(certificate, more.verifyPeer, more.isRevoked),
      more.settings,
    );
  }

  /** How Node's own TLS calls the server as a workload would, with a certificate of the name. */
  async clientOptions(name: string): Promise<ConnectionOptions> {
    const certificate = await this.ca.certificate(testIdentity(name));
    return {
      host: LOOPBACK,
      port: this.listener.address.port,
      secureContext: createSecureContext({
        cert: certificate.chainPem.join("\n"),
        key: certificate.privateKeyPem,
        ca: [...certificate.rootsPem],
      }),
      servername: "",
      checkServerIdentity: () => undefined,
      ALPNProtocols: ["h2"],
    };
  }

  /** How Node's own TLS serves as a workload of the name would. */
  async serverOptions(name: string): Promise<SecureServerOptions> {
    const certificate = await this.ca.certificate(testIdentity(name));
    return {
      cert: certificate.chainPem.join("\n"),
      key: certificate.privateKeyPem,
      ca: [...certificate.rootsPem],
      requestCert: true,
    };
  }

  /** The tunnel that the next connection becomes, or has become if it was the first. */
  next(): Promise<AcceptedTunnel> {
    this.#wanted = new Deferred();
    return this.#wanted.promise;
  }

  async dial(
    more: {
      readonly settings?: Partial<TunnelSettings>;
      readonly tls?: TlsOptions;
      readonly address?: SocketAddress;
    } = {},
  ): Promise<ClientTunnel> {
    const tls = more.tls ?? tlsOptions(await this.ca.certificate(testIdentity("client")));
    return this.engine.dialTunnel({
      connect: connectOptions(more.address ?? this.listener.address),
      tls,
      settings: { ...SETTINGS, streamsMax: 100, headerListBytesMax: 16_384, ...more.settings },
    });
  }

  #accept(end: SocketEnd, settings: TunnelSettings): void {
    const accepted = new AcceptedTunnel();
    this.accepted.push(accepted);
    accepted.tunnel = this.engine.acceptTunnel(end, {
      tls: this.#tls,
      settings,
      opened: (peer) => {
        assert.equal(accepted.peer, undefined, "opened once");
        accepted.peer = peer;
      },
      requested: (request) => {
        assert.notEqual(accepted.peer, undefined, "opened before the first request");
        this.requested(request);
      },
      closed: (error) => accepted.closed.resolve(error),
    });
    this.#wanted?.resolve(accepted);
  }
}

/** One relay and its outcome. */
export interface RunningRelay {
  readonly relay: Relay;
  readonly outcome: Promise<RelayOutcome>;
}

/** Two applications joined through the engine. */
export interface Joined {
  readonly client: Peer;
  readonly server: Peer;
  /** The one next to the client first. */
  readonly relays: readonly RunningRelay[];
}

/** A way from a client to a server application. */
export interface Route {
  join(how?: { readonly client?: "stalled"; readonly server?: "stalled" }): Promise<Joined>;
  close(): void;
}

function startRelay(engine: Engine, downstream: End, upstream: End): RunningRelay {
  const outcome = new Deferred<RelayOutcome>();
  const relay = engine.relay(downstream, upstream, outcome.resolve);
  return { relay, outcome: outcome.promise };
}

/** What an engine meets outside: applications, and an authority for its tunnels. */
export interface Surroundings {
  readonly applications: Applications;
  /** Default: a new one with real certificates. */
  readonly ca?: TestCa;
}

/** Client → engine → server. */
export async function plainRoute(
  engine: ClosableEngine,
  { applications }: Surroundings,
): Promise<Route> {
  const application = await applications.serve();
  let started = new Deferred<RunningRelay>();
  async function serve(downstream: End): Promise<void> {
    const upstream = await engine.connect(connectOptions(application.address));
    started.resolve(startRelay(engine, downstream, upstream));
  }
  const listener = engine.listen(LISTEN);
  listener.start(
    (downstream) => void serve(downstream),
    (error) => assert.fail(error),
  );
  return {
    async join(how = {}) {
      started = new Deferred();
      const accepting = application.accept(how.server);
      const client = await applications.connect(listener.address, how.client);
      const [server, relay] = await Promise.all([accepting, started.promise]);
      return { client, server, relays: [relay] };
    },
    close() {
      listener.close();
      application.close();
      engine.close();
    },
  };
}

/** Client → engine → tunnel → engine → server. */
export async function tunnelRoute(
  engine: ClosableEngine,
  { applications, ca }: Surroundings,
): Promise<Route> {
  const application = await applications.serve();
  const lab = await TunnelLab.open(engine, ca === undefined ? {} : { ca });
  let far = new Deferred<RunningRelay>();
  let near = new Deferred<RunningRelay>();
  async function serve(request: TunnelRequest): Promise<void> {
    const remote = parseSocketAddress(request.authority ?? "");
    assert(remote !== undefined);
    const upstream = await engine.connect(connectOptions(remote));
    far.resolve(startRelay(engine, request.accept([]), upstream));
  }
  lab.requested = (request) => void serve(request);
  const tunnel = await lab.dial();
  async function forward(downstream: End): Promise<void> {
    const answer = await tunnel.open(formatSocketAddress(application.address), []);
    assert(answer.end !== undefined);
    near.resolve(startRelay(engine, downstream, answer.end));
  }
  const listener = engine.listen(LISTEN);
  listener.start(
    (downstream) => void forward(downstream),
    (error) => assert.fail(error),
  );
  return {
    async join(how = {}) {
      near = new Deferred();
      far = new Deferred();
      const accepting = application.accept(how.server);
      const client = await applications.connect(listener.address, how.client);
      const [server, ...relays] = await Promise.all([accepting, near.promise, far.promise]);
      return { client, server, relays };
    },
    close() {
      listener.close();
      lab.listener.close();
      application.close();
      tunnel.destroy();
      engine.close();
    },
  };
}

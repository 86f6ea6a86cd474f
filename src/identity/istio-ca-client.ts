/**
 * The certificate authority in istiod, over its gRPC service.
 *
 * One channel is kept; it is built anew when the roots in their file have changed.
 *
 * @see spec control-plane 5.3 and 5.9.
 */
import { readFile } from "node:fs/promises";
import { Client, credentials, Metadata, type ServiceError } from "@grpc/grpc-js";
import { formatSpiffeId, type Identity } from "../mesh/identity.ts";
import { parseIpAddress } from "../mesh/ip-address.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Logger } from "../telemetry/logger.ts";
import {
  type ControlPlaneTlsOptions,
  checkServerNames,
  controlPlaneContext,
  readTrustedRoots,
  type TrustedRoots,
} from "../tls/control-plane-tls.ts";
import { type CertificateRequest, createCertificateMethod } from "../wire/istio-ca.ts";
import type { CertificateAuthority } from "./certificate-authority.ts";
import { describeStatus } from "./grpc-status.ts";
import { IdentityError } from "./identity-error.ts";

/** What pays for a call. */
export type AuthToken =
  /** Read for each call: the kubelet replaces it before it expires. */
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "literal"; readonly token: string };

export interface IstioCaClientOptions {
  /** `https://host:port`; without a port 443. */
  readonly address: string;
  readonly roots: TrustedRoots;
  /** A name that the server may have instead of the address's (`ALT_CA_HOSTNAME`). */
  readonly alternateHostname: string | undefined;
  /** `undefined`: calls say neither who we are nor of which cluster. */
  readonly token: AuthToken | undefined;
  readonly clusterId: string;
  /** `CA_HEADER_*`; a later one replaces an earlier one of the same name, ours replace both. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  /** How long certificates shall be valid, seconds (`SECRET_TTL`). */
  readonly validitySeconds: number;
  /** Ask in the name of the pod (shared mode), not in our own (dedicated mode). */
  readonly impersonate: boolean;
  readonly tls: ControlPlaneTlsOptions;
}

/** An authority behind istiod may take its time; a call that hangs would keep its place for ever. */
const DEADLINE_MS = 30_000;
/** As long as a call is under way; istiod allows one each 15 seconds. */
const KEEPALIVE_MS = 30_000;
const KEEPALIVE_TIMEOUT_MS = 10_000;
/** The cache backs off for each identity; the channel adds as little as it can. */
const RECONNECT_MS = { first: 100, max: 1000 };
const HTTPS_PORT = 443;

/** A channel and the roots that it was built with. */
interface Channel {
  readonly client: Client;
  readonly rootsPem: string;
}

export class IstioCaClient implements CertificateAuthority {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #options: IstioCaClientOptions;
  readonly #hostname: string;
  readonly #target: string;
  #channel: Channel | undefined;

  /** @throws TypeError when the address is no URL. */
  constructor(
    deps: { readonly clock: Clock; readonly log: Logger },
    options: IstioCaClientOptions,
  ) {
    this.#clock = deps.clock;
    this.#log = deps.log;
    this.#options = options;
    const { hostname, port } = new URL(options.address);
    this.#hostname = hostname.replace(/^\[(.*)\]$/, "$1");
    this.#target = `dns:${hostname}:${port || HTTPS_PORT}`;
  }

  async sign(identity: Identity, csrPem: string): Promise<readonly string[]> {
    const { impersonate, validitySeconds } = this.#options;
    const metadata = await this.#metadata();
    const client = await this.#openChannel();
    return call(client, metadata, this.#clock.now() + DEADLINE_MS, {
      csrPem,
      validitySeconds,
      impersonatedIdentity: impersonate ? formatSpiffeId(identity) : undefined,
    });
  }

  /** Calls under way end with an error. Idempotent. */
  close(): void {
    this.#channel?.client.close();
    this.#channel = undefined;
  }

  async #metadata(): Promise<Metadata> {
    const { clusterId, headers, token } = this.#options;
    const metadata = new Metadata();
    for (const [name, value] of headers) metadata.set(name, value);
    if (token !== undefined) {
      metadata.set("authorization", `Bearer ${await readToken(token)}`);
      metadata.set("clusterid", clusterId);
    }
    return metadata;
  }

  /** The channel that is there, or a new one when the roots have changed; the old one at worst. */
  async #openChannel(): Promise<Client> {
    const { roots } = this.#options;
    const current = this.#channel;
    if (current !== undefined && roots.kind !== "file") return current.client;
    try {
      const rootsPem = await readTrustedRoots(roots);
      // Another call may have come first while the file was read.
      if (this.#channel?.rootsPem === rootsPem) return this.#channel.client;
      const client = this.#connect(rootsPem);
      this.#channel?.client.close();
      this.#channel = { client, rootsPem };
      return client;
    } catch (error) {
      if (current === undefined) throw error;
      const reason = error instanceof Error ? error.message : String(error);
      this.#log.write("warn", `keeping the former roots of the certificate authority: ${reason}`);
      return current.client;
    }
  }

  #connect(rootsPem: string): Client {
    const { alternateHostname, tls } = this.#options;
    const alternates = alternateHostname === undefined ? [] : [alternateHostname];
    const channelCredentials = credentials.createFromSecureContext(
      controlPlaneContext(rootsPem, tls),
      {
        checkServerIdentity: (_name, certificate) =>
          checkServerNames([this.#hostname, ...alternates], certificate),
      },
    );
    return new Client(this.#target, channelCredentials, {
      "grpc.enable_http_proxy": 0,
      "grpc.enable_retries": 0,
      "grpc.initial_reconnect_backoff_ms": RECONNECT_MS.first,
      "grpc.keepalive_time_ms": KEEPALIVE_MS,
      "grpc.keepalive_timeout_ms": KEEPALIVE_TIMEOUT_MS,
      "grpc.max_reconnect_backoff_ms": RECONNECT_MS.max,
      "grpc.service_config_disable_resolution": 1,
      "grpc.use_local_subchannel_pool": 1,
      // TLS has no names for addresses; whom we meet is checked above in any case.
      ...(parseIpAddress(this.#hostname) === undefined
        ? {}
        : { "grpc.ssl_target_name_override": "istiod" }),
    });
  }
}

async function readToken(source: AuthToken): Promise<string> {
  if (source.kind === "literal") return source.token;
  let text: string;
  try {
    text = await readFile(source.path, "utf8");
  } catch (cause) {
    throw new IdentityError("token", `can't read the token in ${source.path}`, { cause });
  }
  const token = text.trim();
  if (token === "") throw new IdentityError("token", `the token in ${source.path} is empty`);
  return token;
}

function call(
  client: Client,
  metadata: Metadata,
  deadline: number,
  request: CertificateRequest,
): Promise<readonly string[]> {
  const { path, requestSerialize, responseDeserialize } = createCertificateMethod;
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      metadata,
      { deadline },
      (error, response) => {
        if (error !== null) reject(signingError(error));
        else resolve(response?.certChain ?? []);
      },
    );
  });
}

function signingError(error: ServiceError): IdentityError {
  const message = `signing gRPC error (${describeStatus(error.code)}): ${error.details}`;
  return new IdentityError("signing", message, { cause: error });
}

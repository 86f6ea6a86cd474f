/**
 * The way to a control plane: whom to trust, how to connect, what to say of ourselves. Discovery and
 * the certificate authority each have one.
 *
 * @see spec control-plane 1.1.
 */
import { Client, credentials, Metadata } from "@grpc/grpc-js";
import { parseIpAddress } from "../mesh/ip-address.ts";
import {
  type ControlPlaneTlsOptions,
  checkServerNames,
  controlPlaneContext,
  readTrustedRoots,
  type TrustedRoots,
} from "../tls/control-plane-tls.ts";
import { type AccessToken, readAccessToken } from "./access-token.ts";

export interface IstiodLineOptions {
  /** `https://host:port`; without a port 443. */
  readonly address: string;
  readonly roots: TrustedRoots;
  /** A name that the server may have instead of the address's (`ALT_XDS_HOSTNAME`, `ALT_CA_HOSTNAME`). */
  readonly alternateHostname: string | undefined;
  /** `undefined`: calls say neither who we are nor of which cluster. */
  readonly token: AccessToken | undefined;
  readonly clusterId: string;
  /** `XDS_HEADER_*`, `CA_HEADER_*`; a later one replaces an earlier one of the same name, ours replace both. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly tls: ControlPlaneTlsOptions;
}

/** As long as a call is under way; istiod allows one each 15 seconds. As the original. */
const KEEPALIVE_MS = 30_000;
const KEEPALIVE_TIMEOUT_MS = 10_000;
/** Whoever calls backs off; the channel adds as little as it can. */
const RECONNECT_MS = { first: 100, max: 1000 };
const HTTPS_PORT = 443;

export class IstiodLine {
  readonly #options: IstiodLineOptions;
  readonly #hostname: string;
  readonly #target: string;
  #rootsInUse: string | undefined;
  #tokenInUse: string | undefined;

  /** @throws TypeError when the address is no URL. */
  constructor(options: IstiodLineOptions) {
    this.#options = options;
    const { hostname, port } = new URL(options.address);
    this.#hostname = hostname.replace(/^\[(.*)\]$/, "$1");
    this.#target = `dns:${hostname}:${port || HTTPS_PORT}`;
  }

  /** PEM, as it was read last. */
  get rootsInUse(): string | undefined {
    return this.#rootsInUse;
  }

  /** As it was read last. */
  get tokenInUse(): string | undefined {
    return this.#tokenInUse;
  }

  /** @throws TlsError `bad-roots` when there is none to be found. */
  async readRoots(): Promise<string> {
    this.#rootsInUse = await readTrustedRoots(this.#options.roots);
    return this.#rootsInUse;
  }

  /** The headers of a call. @throws LineError `token`. */
  async metadata(): Promise<Metadata> {
    const { clusterId, headers, token } = this.#options;
    const metadata = new Metadata();
    for (const [name, value] of headers) metadata.set(name, value);
    if (token !== undefined) {
      this.#tokenInUse = await readAccessToken(token);
      metadata.set("authorization", `Bearer ${this.#tokenInUse}`);
      metadata.set("clusterid", clusterId);
    }
    return metadata;
  }

  /**
   * A channel of its own, which connects at its first call.
   *
   * @param receivedBytesMax of one message; a bigger one ends its call.
   * @throws TlsError `bad-roots` when the roots can't be used.
   */
  openChannel(rootsPem: string, receivedBytesMax: number): Client {
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
      "grpc.max_receive_message_length": receivedBytesMax,
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

/**
 * The certificate authority in istiod, over its gRPC service.
 *
 * One channel is kept; it is built anew when the roots in their file have changed.
 *
 * @see spec control-plane 5.3 and 5.9.
 */
import { type Client, type Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { describeStatus, plainDetails } from "../istiod/grpc-status.ts";
import { IstiodLine, type IstiodLineOptions } from "../istiod/istiod-line.ts";
import { formatSpiffeId, type Identity } from "../mesh/identity.ts";
import type { Clock } from "../runtime/clock.ts";
import { errorText } from "../runtime/error-text.ts";
import type { Logger } from "../telemetry/logger.ts";
import { type CertificateRequest, createCertificateMethod } from "../wire/istio-ca.ts";
import type { CertificateAuthority } from "./certificate-authority.ts";
import { IdentityError } from "./identity-error.ts";

export interface IstioCaClientOptions extends IstiodLineOptions {
  /** How long certificates shall be valid, seconds (`SECRET_TTL`). */
  readonly validitySeconds: number;
  /** How long a request may take, the way there included, milliseconds. */
  readonly answerMs: number;
  /** Ask in the name of the pod (shared mode), not in our own (dedicated mode). */
  readonly impersonate: boolean;
}

/** Far more than chains and roots take; gRPC's own number. */
const ANSWER_BYTES_MAX = 4 * 2 ** 20;
/** These say nothing of the request. */
const UNREACHABLE: ReadonlySet<status> = new Set([status.UNAVAILABLE, status.DEADLINE_EXCEEDED]);

/** A channel and the roots that it was built with. */
interface Channel {
  readonly client: Client;
  readonly rootsPem: string;
}

export class IstioCaClient implements CertificateAuthority {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #options: IstioCaClientOptions;
  readonly #line: IstiodLine;
  #channel: Channel | undefined;

  /** @throws TypeError when the address is no URL. */
  constructor(
    deps: { readonly clock: Clock; readonly log: Logger },
    options: IstioCaClientOptions,
  ) {
    this.#clock = deps.clock;
    this.#log = deps.log;
    this.#options = options;
    this.#line = new IstiodLine(options);
  }

  async sign(identity: Identity, csrPem: string): Promise<readonly string[]> {
    const { impersonate, validitySeconds, answerMs } = this.#options;
    const metadata = await this.#line.metadata();
    const client = await this.#openChannel();
    return call(client, metadata, this.#clock.now() + answerMs, {
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

  /** The channel that is there, or a new one when the roots have changed; the old one at worst. */
  async #openChannel(): Promise<Client> {
    const current = this.#channel;
    try {
      const rootsPem = await this.#line.readRoots();
      // Another call may have come first while the file was read.
      if (this.#channel?.rootsPem === rootsPem) return this.#channel.client;
      const client = this.#line.openChannel(rootsPem, ANSWER_BYTES_MAX);
      this.#channel?.client.close();
      this.#channel = { client, rootsPem };
      return client;
    } catch (error) {
      if (current === undefined) throw error;
      const reason = errorText(error);
      this.#log.write("warn", `keeping the former roots of the certificate authority: ${reason}`);
      return current.client;
    }
  }
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
  const details = plainDetails(error.details);
  const message = `signing gRPC error (${describeStatus(error.code)}): ${details}`;
  const code = UNREACHABLE.has(error.code) ? "unreachable" : "signing";
  return new IdentityError(code, message, { cause: error });
}

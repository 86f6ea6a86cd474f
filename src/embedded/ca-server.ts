/**
 * The Istio CA gRPC service over an {@link EmbeddedAuthority}: what a proxy sees of istiod when it
 * asks for certificates. Refusals carry the codes and words of a real istiod.
 *
 * It knows no pods and no nodes: whoever may call at all may have each of the known identities. So
 * it belongs on an address that only proxies reach, or behind a token.
 *
 * @see spec control-plane 5.3 and corrections A7, A8, B21.
 */
import { timingSafeEqual } from "node:crypto";
import { readFile } from "node:fs/promises";
import {
  type handleUnaryCall,
  type Metadata,
  Server,
  ServerCredentials,
  type ServiceDefinition,
  status,
} from "@grpc/grpc-js";
import { type Identity, parseSpiffeId } from "../mesh/identity.ts";
import { ipAddressToBytes, parseIpAddress } from "../mesh/ip-address.ts";
import {
  type CertificateRequest,
  type CertificateResponse,
  createCertificateMethod,
} from "../wire/istio-ca.ts";
import { CsrError, type EmbeddedAuthority, requestedUri } from "./certificate-authority.ts";
import type { AlternativeName } from "./certificate-builder.ts";

export interface CaServerDeps {
  readonly authority: EmbeddedAuthority;
  /** Whether some workload has the identity. */
  readonly isKnown: (identity: Identity) => boolean;
  /** Told of each certificate and each refusal, one line. */
  readonly report: (line: string) => void;
}

export interface CaServerOptions {
  /** `host:port`; port 0 chooses one. */
  readonly listen: string;
  /** Host names and IP addresses by which clients call, beside those of istiod and this machine. */
  readonly names: readonly string[];
  /** Callers have to show this file's text; read for each call. `undefined`: anyone may call. */
  readonly tokenFile: string | undefined;
  /** Callers with a token have to say that they are of this cluster. */
  readonly clusterId: string;
}

const OWN_NAMES = ["istiod.istio-system.svc", "istiod", "localhost", "127.0.0.1", "::1"];

type Answer =
  | { readonly kind: "signed"; readonly certChain: readonly string[] }
  | { readonly kind: "refused"; readonly code: status; readonly details: string };

export class CaServer {
  readonly #deps: CaServerDeps;
  readonly #options: CaServerOptions;
  readonly #server = new Server();
  #port = 0;

  private constructor(deps: CaServerDeps, options: CaServerOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /** @throws Error when the address can't be listened on. */
  static async start(deps: CaServerDeps, options: CaServerOptions): Promise<CaServer> {
    const server = new CaServer(deps, options);
    await server.#listen();
    return server;
  }

  get port(): number {
    return this.#port;
  }

  /** Ends at once, calls under way too. Idempotent. */
  close(): void {
    this.#server.forceShutdown();
  }

  async #listen(): Promise<void> {
    const { listen, names } = this.#options;
    const tls = await this.#deps.authority.issueServer(
      [...new Set([...OWN_NAMES, ...names])].map(alternativeName),
    );
    const credentials = ServerCredentials.createSsl(null, [
      {
        cert_chain: Buffer.from(tls.certificatePem),
        private_key: Buffer.from(tls.privateKeyPem),
      },
    ]);
    const service = { createCertificate: createCertificateMethod } satisfies ServiceDefinition;
    this.#server.addService(service, { createCertificate: this.#createCertificate });
    this.#port = await new Promise<number>((resolve, reject) => {
      this.#server.bindAsync(listen, credentials, (error, port) =>
        error === null ? resolve(port) : reject(error),
      );
    });
  }

  readonly #createCertificate: handleUnaryCall<CertificateRequest, CertificateResponse> = (
    call,
    callback,
  ) => {
    this.#answer(call.metadata, call.request).then(
      (answer) => {
        if (answer.kind === "signed") callback(null, { certChain: answer.certChain });
        else callback({ code: answer.code, details: answer.details });
      },
      (error: unknown) => {
        this.#deps.report(`signing failed: ${String(error)}`);
        callback({ code: status.INTERNAL, details: "internal error" });
      },
    );
  };

  async #answer(metadata: Metadata, request: CertificateRequest): Promise<Answer> {
    if (!(await this.#isAuthenticated(metadata))) {
      return this.#refuse(status.UNAUTHENTICATED, "request authenticate failure");
    }
    try {
      const asked = request.impersonatedIdentity || ownUri(request);
      const identity = parseSpiffeId(asked ?? "");
      if (identity === undefined || !this.#deps.isKnown(identity)) {
        const what = asked === undefined ? "no identity" : `identity ${asked} of no workload`;
        return this.#refuse(
          status.UNAUTHENTICATED,
          "request impersonation authentication failure",
          what,
        );
      }
      const { authority, report } = this.#deps;
      const certChain = await authority.sign(identity, request.csrPem, request.validitySeconds);
      report(`signed a certificate for ${asked}`);
      return { kind: "signed", certChain };
    } catch (error) {
      if (!(error instanceof CsrError)) throw error;
      return this.#refuse(status.INVALID_ARGUMENT, `CSR signing error (${error.message})`);
    }
  }

  #refuse(code: status, details: string, what = "a request"): Answer {
    this.#deps.report(`refused ${what}: ${details}`);
    return { kind: "refused", code, details };
  }

  async #isAuthenticated(metadata: Metadata): Promise<boolean> {
    const { clusterId, tokenFile } = this.#options;
    if (tokenFile === undefined) return true;
    const expected = `Bearer ${(await readFile(tokenFile, "utf8")).trim()}`;
    const [authorization] = metadata.get("authorization");
    const [cluster] = metadata.get("clusterid");
    return sameText(String(authorization), expected) && cluster === clusterId;
  }
}

/**
 * A caller that asks in its own name is believed what its request says: istiod would learn it from
 * the pod's token, which is no part of this machine.
 */
function ownUri(request: CertificateRequest): string | undefined {
  return requestedUri(request.csrPem);
}

function alternativeName(name: string): AlternativeName {
  const ip = parseIpAddress(name);
  return ip === undefined
    ? { kind: "dns", hostname: name }
    : { kind: "ip", bytes: ipAddressToBytes(ip) };
}

/** Takes as long for a nearly right text as for a wrong one. */
function sameText(given: string, expected: string): boolean {
  const [a, b] = [Buffer.from(given), Buffer.from(expected)];
  return a.length === b.length && timingSafeEqual(a, b);
}

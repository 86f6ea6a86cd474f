/**
 * The Istio CA gRPC service over an {@link EmbeddedAuthority}: what a proxy sees of istiod when it
 * asks for certificates. Refusals carry the codes and words of a real istiod.
 *
 * @see spec control-plane 5.3 and corrections A7, A8, B21.
 */
import {
  type handleUnaryCall,
  type Metadata,
  type ServiceDefinition,
  status,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import { type Identity, parseSpiffeId } from "../mesh/identity.ts";
import {
  type CertificateRequest,
  type CertificateResponse,
  createCertificateMethod,
} from "../wire/istio-ca.ts";
import type { Caller, CallerCheck } from "./caller-check.ts";
import { CsrError, type EmbeddedAuthority, requestedUri } from "./certificate-authority.ts";
import { answerHeaders, type GrpcService } from "./control-plane-server.ts";

export interface CaServiceDeps {
  readonly authority: EmbeddedAuthority;
  readonly callers: CallerCheck;
  /** @param node the one whose workloads count; `undefined`: all do. */
  readonly hasIdentity: (identity: Identity, node: string | undefined) => boolean;
  /** Told of each certificate and each refusal, one line. */
  readonly report: (line: string) => void;
}

type Answer =
  | { readonly kind: "signed"; readonly certChain: readonly string[] }
  | { readonly kind: "refused"; readonly code: status; readonly details: string };

export class CaService implements GrpcService {
  readonly definition: ServiceDefinition = { createCertificate: createCertificateMethod };
  readonly implementation: UntypedServiceImplementation;
  readonly #deps: CaServiceDeps;

  constructor(deps: CaServiceDeps) {
    this.#deps = deps;
    this.implementation = { createCertificate: this.#createCertificate };
  }

  readonly #createCertificate: handleUnaryCall<CertificateRequest, CertificateResponse> = (
    call,
    callback,
  ) => {
    this.#answer(call.metadata, call.request).then(
      (answer) => {
        if (answer.kind === "signed") {
          call.sendMetadata(answerHeaders());
          callback(null, { certChain: answer.certChain });
        } else callback({ code: answer.code, details: answer.details });
      },
      (error: unknown) => {
        this.#deps.report(`signing failed: ${String(error)}`);
        callback({ code: status.INTERNAL, details: "internal error" });
      },
    );
  };

  async #answer(metadata: Metadata, request: CertificateRequest): Promise<Answer> {
    const caller = await this.#deps.callers.identify(metadata);
    if (caller === undefined) {
      return this.#refuse(status.UNAUTHENTICATED, "request authenticate failure");
    }
    try {
      const asked = request.impersonatedIdentity || requestedUri(request.csrPem);
      const identity = parseSpiffeId(asked ?? "");
      if (identity === undefined || !this.#mayHave(caller, identity, request)) {
        const of = caller.node === undefined ? "no workload" : `no workload of ${caller.node}`;
        return this.#refuse(
          status.UNAUTHENTICATED,
          "request impersonation authentication failure",
          asked === undefined ? "no identity" : `identity ${asked} of ${of}`,
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

  /**
   * A caller that asks in its own name is believed what its request says: istiod would learn it
   * from the pod's token, which is no part of this machine.
   */
  #mayHave(caller: Caller, identity: Identity, request: CertificateRequest): boolean {
    if (request.impersonatedIdentity && !caller.namesCluster) return false;
    return this.#deps.hasIdentity(identity, caller.node);
  }

  #refuse(code: status, details: string, what = "a request"): Answer {
    this.#deps.report(`refused ${what}: ${details}`);
    return { kind: "refused", code, details };
  }
}

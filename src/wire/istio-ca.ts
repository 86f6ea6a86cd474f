/**
 * The certificate authority's one gRPC call, in the shape that a gRPC library takes for client and
 * server.
 *
 * @see spec control-plane 2.3 and 5.3.
 */
import { decodeMessage, encodeMessage } from "./message-codec.ts";
import { IstioCertificateRequest, IstioCertificateResponse } from "./proto/istio-v1-auth.ts";

export interface CertificateRequest {
  readonly csrPem: string;
  /** How long the certificate shall be valid, seconds; a whole number. */
  readonly validitySeconds: number;
  /** SPIFFE URI of the pod for which a node's proxy asks; `undefined`: the caller's own identity. */
  readonly impersonatedIdentity: string | undefined;
}

export interface CertificateResponse {
  /** PEM: leaf, intermediates, and at the end one element with all roots. */
  readonly certChain: readonly string[];
}

/** The key of the request's metadata that holds the pod's identity. */
const IMPERSONATED_IDENTITY = "ImpersonatedIdentity";

/**
 * `CreateCertificate`, unary: a method definition as @grpc/grpc-js wants it. The deserializers throw
 * WireError `malformed`.
 */
export const createCertificateMethod: {
  readonly path: string;
  readonly requestStream: false;
  readonly responseStream: false;
  readonly requestSerialize: (request: CertificateRequest) => Buffer;
  readonly requestDeserialize: (bytes: Uint8Array) => CertificateRequest;
  readonly responseSerialize: (response: CertificateResponse) => Buffer;
  readonly responseDeserialize: (bytes: Uint8Array) => CertificateResponse;
} = {
  path: "/istio.v1.auth.IstioCertificateService/CreateCertificate",
  requestStream: false,
  responseStream: false,
  requestSerialize: encodeRequest,
  requestDeserialize: decodeRequest,
  responseSerialize: encodeResponse,
  responseDeserialize: decodeResponse,
};

function encodeRequest(request: CertificateRequest): Buffer {
  const identity = request.impersonatedIdentity;
  return asBuffer(
    encodeMessage(IstioCertificateRequest, {
      csr: request.csrPem,
      validityDuration: request.validitySeconds,
      metadata: identity === undefined ? undefined : { [IMPERSONATED_IDENTITY]: identity },
    }),
  );
}

function decodeRequest(bytes: Uint8Array): CertificateRequest {
  const message = decodeMessage("IstioCertificateRequest", IstioCertificateRequest, bytes);
  const identity: unknown = message.metadata?.[IMPERSONATED_IDENTITY];
  return {
    csrPem: message.csr,
    validitySeconds: message.validityDuration,
    impersonatedIdentity: typeof identity === "string" ? identity : undefined,
  };
}

function encodeResponse(response: CertificateResponse): Buffer {
  return asBuffer(encodeMessage(IstioCertificateResponse, { certChain: [...response.certChain] }));
}

function decodeResponse(bytes: Uint8Array): CertificateResponse {
  return decodeMessage("IstioCertificateResponse", IstioCertificateResponse, bytes);
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

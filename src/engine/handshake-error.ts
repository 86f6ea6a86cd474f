/**
 * Failed TLS handshakes in the words of the original's log: what OpenSSL and Node call it on the
 * left, what operators of the mesh search for on the right.
 *
 * The server side prints the original's debug form, the client side its plain one.
 */
import { EngineError, errnoOf, systemError, systemErrorText } from "./engine-error.ts";

/** One failure in both forms. */
interface Words {
  readonly debug: string;
  readonly plain: string;
}

/** By the code of Node's error. Anything else is printed as OpenSSL's reason. */
const WORDS: Readonly<Record<string, Words>> = {
  ERR_SSL_WRONG_VERSION_NUMBER: corrupt("InvalidContentType"),
  ERR_SSL_HTTP_REQUEST: corrupt("InvalidContentType"),
  ERR_SSL_HTTPS_PROXY_REQUEST: corrupt("InvalidContentType"),
  ERR_SSL_PACKET_LENGTH_TOO_LONG: corrupt("MessageTooLarge"),
  ERR_SSL_LENGTH_MISMATCH: corrupt("MessageTooShort"),
  ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE: {
    debug: "NoCertificatesPresented",
    plain: "peer sent no certificates",
  },
  ERR_SSL_NO_SHARED_CIPHER: incompatible("NoCipherSuitesInCommon"),
  ERR_SSL_UNSUPPORTED_PROTOCOL: incompatible("SupportedVersionsExtensionRequired"),
  ERR_SSL_NO_SUITABLE_KEY_SHARE: incompatible("NoKxGroupsInCommon"),
  ERR_SSL_NO_APPLICATION_PROTOCOL: {
    debug: "NoApplicationProtocol",
    plain: "peer doesn't support any known protocol",
  },
  CERT_HAS_EXPIRED: badCertificate("Expired"),
  CERT_NOT_YET_VALID: badCertificate("NotValidYet"),
  INVALID_PURPOSE: badCertificate("InvalidPurpose"),
  CERT_SIGNATURE_FAILURE: badCertificate("BadSignature"),
  CERT_REVOKED: badCertificate("Revoked"),
  UNABLE_TO_GET_ISSUER_CERT: badCertificate("UnknownIssuer"),
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: badCertificate("UnknownIssuer"),
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: badCertificate("UnknownIssuer"),
  SELF_SIGNED_CERT_IN_CHAIN: badCertificate("UnknownIssuer"),
  DEPTH_ZERO_SELF_SIGNED_CERT: badCertificate("UnknownIssuer"),
};

/** By OpenSSL's X509_V_ERR number; {@link WORDS} has the same by name. */
const VERIFY_WORDS: Readonly<Record<number, Words>> = {
  2: badCertificate("UnknownIssuer"),
  7: badCertificate("BadSignature"),
  9: badCertificate("NotValidYet"),
  10: badCertificate("Expired"),
  18: badCertificate("UnknownIssuer"),
  19: badCertificate("UnknownIssuer"),
  20: badCertificate("UnknownIssuer"),
  21: badCertificate("UnknownIssuer"),
  23: badCertificate("Revoked"),
  26: badCertificate("InvalidPurpose"),
};

const CLIENT_EOF_TEXT = "tls handshake eof";
const SERVER_EOF_TEXT = 'Custom { kind: UnexpectedEof, error: "tls handshake eof" }';

/** RFC 8446 section 6, as the original spells them. */
const ALERTS: Readonly<Record<number, string>> = {
  0: "CloseNotify",
  10: "UnexpectedMessage",
  20: "BadRecordMac",
  22: "RecordOverflow",
  40: "HandshakeFailure",
  42: "BadCertificate",
  43: "UnsupportedCertificate",
  44: "CertificateRevoked",
  45: "CertificateExpired",
  46: "CertificateUnknown",
  47: "IllegalParameter",
  48: "UnknownCA",
  49: "AccessDenied",
  50: "DecodeError",
  51: "DecryptError",
  70: "ProtocolVersion",
  71: "InsufficientSecurity",
  80: "InternalError",
  90: "UserCanceled",
  109: "MissingExtension",
  116: "CertificateRequired",
  120: "NoApplicationProtocol",
};

/**
 * A client that failed on our server.
 *
 * @param refusal Node's word for a chain that it does not trust, which it keeps apart from the error.
 */
export function serverHandshakeError(error: Error, refusal?: string): EngineError {
  const words = wordsOf(error, refusal);
  if (words !== undefined) {
    return new EngineError("handshake", invalidData(words), { cause: error });
  }
  if (isEndOfStream(error)) {
    return new EngineError("handshake", SERVER_EOF_TEXT, { cause: error });
  }
  return unknownError(error);
}

/** A server on which our client failed. */
export function clientHandshakeError(error: Error): EngineError {
  const words = wordsOf(error, undefined);
  if (words !== undefined) return new EngineError("handshake", words.plain, { cause: error });
  if (isEndOfStream(error)) {
    return new EngineError("handshake", CLIENT_EOF_TEXT, { cause: error });
  }
  return unknownError(error);
}

/** How a handshake failed in the words of the reactor. */
export type TlsFailure =
  | { readonly kind: "system" /** The name. */; readonly errno: string }
  /** The peer refused us. */
  | { readonly kind: "alert"; readonly alert: number }
  /** We don't trust the peer; `verifyCode` is OpenSSL's X509_V_ERR number. */
  | { readonly kind: "untrusted"; readonly verifyCode: number; readonly reason: string }
  /** OpenSSL's reason. */
  | { readonly kind: "protocol"; readonly reason: string };

/** A peer that failed in a handshake of the reactor, seen from our role. */
export function tlsFailure(failure: TlsFailure, role: "client" | "server"): EngineError {
  if (failure.kind === "system") {
    const { errno } = failure;
    return new EngineError("handshake", systemErrorText(errno), { errno });
  }
  const words = failureWords(failure);
  return new EngineError("handshake", role === "client" ? words.plain : invalidData(words));
}

/** The peer ended the connection in the middle of a handshake of the reactor. */
export function leftInHandshake(role: "client" | "server"): EngineError {
  return new EngineError("handshake", role === "client" ? CLIENT_EOF_TEXT : SERVER_EOF_TEXT);
}

/** The client's handshake ended well, but it left before its first byte of HTTP/2. */
export function leftBeforePreface(): EngineError {
  return new EngineError("handshake", SERVER_EOF_TEXT);
}

/** The peer took too long. */
export function handshakeTimeout(): EngineError {
  return new EngineError("handshake", "tls handshake timed out");
}

function failureWords(failure: Exclude<TlsFailure, { kind: "system" }>): Words {
  switch (failure.kind) {
    case "alert":
      return alertWords(failure.alert);
    case "untrusted":
      return VERIFY_WORDS[failure.verifyCode] ?? badCertificate(`Other(${failure.reason})`);
    case "protocol": {
      const { reason } = failure;
      const code = `ERR_SSL_${reason.toUpperCase().replaceAll(" ", "_")}`;
      return WORDS[code] ?? { debug: `General("${reason}")`, plain: reason };
    }
  }
}

function invalidData(words: Words): string {
  return `Custom { kind: InvalidData, error: ${words.debug} }`;
}

function wordsOf(error: Error, refusal: string | undefined): Words | undefined {
  if (refusal !== undefined) return WORDS[refusal] ?? badCertificate(`Other(${refusal})`);
  const alert = /SSL alert number (\d+)/.exec(error.message)?.[1];
  if (alert !== undefined) return alertWords(Number(alert));
  const code = errnoOf(error) ?? "";
  const known = WORDS[code];
  if (known !== undefined) return known;
  const reason = "reason" in error && typeof error.reason === "string" ? error.reason : undefined;
  return reason === undefined ? undefined : { debug: `General("${reason}")`, plain: reason };
}

/** Node says this when the connection ended without a reset. */
function isEndOfStream(error: Error): boolean {
  return errnoOf(error) === "ECONNRESET" && !("syscall" in error);
}

function unknownError(error: Error): EngineError {
  const { message, errno } = systemError(error);
  return new EngineError("handshake", message, {
    ...(errno === undefined ? {} : { errno }),
    cause: error,
  });
}

function corrupt(what: string): Words {
  return {
    debug: `InvalidMessage(${what})`,
    plain: `received corrupt message of type ${what}`,
  };
}

function incompatible(what: string): Words {
  return { debug: `PeerIncompatible(${what})`, plain: `peer is incompatible: ${what}` };
}

function badCertificate(what: string): Words {
  return { debug: `InvalidCertificate(${what})`, plain: `invalid peer certificate: ${what}` };
}

function alertWords(alert: number): Words {
  const name = ALERTS[alert] ?? `Unknown(0x${alert.toString(16)})`;
  return { debug: `AlertReceived(${name})`, plain: `received fatal alert: ${name}` };
}

/**
 * Failed TLS handshakes in the words of the original's log: what OpenSSL calls it on the left, what
 * operators of the mesh search for on the right.
 *
 * The server side prints the original's debug form, the client side its plain one.
 */
import type { ReactorFailure } from "../net/reactor-failure.ts";
import { EngineError, systemErrorText } from "./engine-error.ts";

/** One failure in both forms. */
interface Words {
  readonly debug: string;
  readonly plain: string;
}

/** By OpenSSL's reason. Anything else is printed as it is. */
const PROTOCOL_WORDS: Readonly<Record<string, Words>> = {
  "wrong version number": corrupt("InvalidContentType"),
  "http request": corrupt("InvalidContentType"),
  "https proxy request": corrupt("InvalidContentType"),
  "packet length too long": corrupt("MessageTooLarge"),
  "length mismatch": corrupt("MessageTooShort"),
  "peer did not return a certificate": {
    debug: "NoCertificatesPresented",
    plain: "peer sent no certificates",
  },
  "no shared cipher": incompatible("NoCipherSuitesInCommon"),
  "unsupported protocol": incompatible("SupportedVersionsExtensionRequired"),
  "no suitable key share": incompatible("NoKxGroupsInCommon"),
  "no application protocol": {
    debug: "NoApplicationProtocol",
    plain: "peer doesn't support any known protocol",
  },
};

/** X509_V_ERR_CERT_REVOKED of OpenSSL. */
const VERIFY_REVOKED = 23;

/** By OpenSSL's X509_V_ERR number. */
const VERIFY_WORDS: Readonly<Record<number, Words>> = {
  2: badCertificate("UnknownIssuer"),
  7: badCertificate("BadSignature"),
  9: badCertificate("NotValidYet"),
  10: badCertificate("Expired"),
  18: badCertificate("UnknownIssuer"),
  19: badCertificate("UnknownIssuer"),
  20: badCertificate("UnknownIssuer"),
  21: badCertificate("UnknownIssuer"),
  [VERIFY_REVOKED]: badCertificate("Revoked"),
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

/** A peer that failed in a handshake of the reactor, seen from our role. */
export function tlsFailure(failure: ReactorFailure, role: "client" | "server"): EngineError {
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

/** Somebody in the peer's chain is revoked. */
export function revokedPeer(role: "client" | "server"): EngineError {
  return tlsFailure({ kind: "untrusted", verifyCode: VERIFY_REVOKED, reason: "revoked" }, role);
}

/** The peer took too long. */
export function handshakeTimeout(): EngineError {
  return new EngineError("handshake", "tls handshake timed out");
}

function failureWords(failure: Exclude<ReactorFailure, { kind: "system" }>): Words {
  switch (failure.kind) {
    case "alert":
      return alertWords(failure.alert);
    case "untrusted":
      return VERIFY_WORDS[failure.verifyCode] ?? badCertificate(`Other(${failure.reason})`);
    case "protocol": {
      const { reason } = failure;
      return PROTOCOL_WORDS[reason] ?? { debug: `General("${reason}")`, plain: reason };
    }
  }
}

function invalidData(words: Words): string {
  return `Custom { kind: InvalidData, error: ${words.debug} }`;
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

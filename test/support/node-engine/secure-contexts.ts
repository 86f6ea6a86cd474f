/**
 * TLS as the mesh speaks it (spec data-path 3.1, 4.1): version 1.3, two suites, roots of our own,
 * no names, no resumption. Built once per certificate, because parsing keys and roots costs half a
 * handshake.
 */
import { constants } from "node:crypto";
import {
  createSecureContext,
  createServer,
  type SecureContext,
  type SecureContextOptions,
  type Server,
} from "node:tls";
import type { TlsOptions } from "../../../src/engine/engine.ts";
import type { WorkloadCertificate } from "../../../src/mesh/workload-certificate.ts";

const SUITES_13 = ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"];

/** `TLS12_ENABLED`. */
const SUITES_12 = [
  "ECDHE-ECDSA-AES256-GCM-SHA384",
  "ECDHE-ECDSA-AES128-GCM-SHA256",
  "ECDHE-RSA-AES256-GCM-SHA384",
  "ECDHE-RSA-AES128-GCM-SHA256",
];

/** In the order of the original's hello; only the first comes with a key share. */
const GROUPS = "X25519:P-256:P-384:X25519MLKEM768";

/** `COMPLIANCE_POLICY=pqc`. */
const POST_QUANTUM_GROUPS = "X25519MLKEM768";

export class SecureContexts {
  readonly #clients = new WeakMap<WorkloadCertificate, Map<string, SecureContext>>();
  readonly #servers = new WeakMap<WorkloadCertificate, Map<string, Server>>();
  readonly #prepareServer: (server: Server) => void;

  /** @param prepareServer adds the listeners to each new server of {@link server}. */
  constructor(prepareServer: (server: Server) => void) {
    this.#prepareServer = prepareServer;
  }

  /** @throws Error of OpenSSL when the certificate can't be used. */
  client(tls: TlsOptions): SecureContext {
    return cached(this.#clients, tls, () => createSecureContext(contextOptions(tls)));
  }

  /** A server that never listens: it is handed its connections. @throws as {@link client}. */
  server(tls: TlsOptions): Server {
    return cached(this.#servers, tls, () => {
      const server = createServer({
        ...contextOptions(tls),
        ALPNProtocols: ["h2"],
        requestCert: true,
        rejectUnauthorized: true,
      });
      this.#prepareServer(server);
      return server;
    });
  }
}

function cached<T>(
  cache: WeakMap<WorkloadCertificate, Map<string, T>>,
  tls: TlsOptions,
  build: () => T,
): T {
  let variants = cache.get(tls.certificate);
  if (variants === undefined) {
    variants = new Map();
    cache.set(tls.certificate, variants);
  }
  const variant = `${tls.tls12} ${tls.postQuantumOnly}`;
  const known = variants.get(variant);
  if (known !== undefined) return known;
  const built = build();
  variants.set(variant, built);
  return built;
}

function contextOptions(tls: TlsOptions): SecureContextOptions {
  const { certificate } = tls;
  return {
    cert: certificate.chainPem.join("\n"),
    key: certificate.privateKeyPem,
    ca: [...certificate.rootsPem],
    // What we are given as a root is one, also when somebody else signed it.
    allowPartialTrustChain: true,
    minVersion: tls.tls12 ? "TLSv1.2" : "TLSv1.3",
    maxVersion: "TLSv1.3",
    ciphers: [...SUITES_13, ...(tls.tls12 ? SUITES_12 : [])].join(":"),
    honorCipherOrder: false,
    ecdhCurve: tls.postQuantumOnly ? POST_QUANTUM_GROUPS : GROUPS,
    secureOptions: constants.SSL_OP_NO_TICKET,
  };
}

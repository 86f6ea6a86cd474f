/** One certificate from key to chain: request it, have it signed, check what came back. */
import type { Identity } from "../mesh/identity.ts";
import type { WorkloadCertificate } from "../mesh/workload-certificate.ts";
import type { Logger } from "../telemetry/logger.ts";
import { parseCertificateResponse } from "../tls/certificate-chain.ts";
import { createCertificateRequest } from "../tls/csr.ts";
import type { CertificateAuthority } from "./certificate-authority.ts";

/**
 * @param options.checkIdentity false in dedicated mode, where the authority decides who we are.
 * @returns the port that {@link file://./certificate-cache.ts} fetches through; it throws what the
 * authority throws, and TlsError.
 */
export function certificateOrder(
  deps: { readonly authority: CertificateAuthority; readonly log: Logger },
  options: { readonly checkIdentity: boolean },
): (identity: Identity) => Promise<WorkloadCertificate> {
  const { authority, log } = deps;
  const { checkIdentity } = options;
  const warn = (message: string): void => log.write("warn", message);
  return async (identity) => {
    const { csrPem, privateKeyPem } = await createCertificateRequest(identity);
    const chain = await authority.sign(identity, csrPem);
    return parseCertificateResponse(chain, privateKeyPem, identity, { checkIdentity, warn });
  };
}

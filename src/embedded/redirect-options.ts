/** What is asked of the redirect rules, and the numbers that all their forms share. */

export interface RedirectOptions {
  /** Also send DNS queries to port 15053. */
  readonly dnsCapture: boolean;
  /** False leaves plaintext that arrives alone (`ambient.istio.io/bypass-inbound-capture`). */
  readonly inboundCapture: boolean;
}

export type Family = 4 | 6;

/** istio-cni's constants. @see spec data-path 12.1 */
export const REDIRECT: {
  readonly mask: string;
  /** Packets that the proxy sends. */
  readonly proxyMark: string;
  /** Connections that the proxy opened towards the application. */
  readonly returnMark: string;
  readonly conntrackZone: number;
  readonly outboundPort: number;
  readonly inboundPlaintextPort: number;
  readonly hbonePort: number;
  readonly dnsPort: number;
  /** Where kubelet's probes seem to come from, so that they reach the application directly. */
  readonly probeAddress: Readonly<Record<Family, string>>;
  readonly loopback: Readonly<Record<Family, string>>;
} = {
  mask: "0xfff",
  proxyMark: "0x539",
  returnMark: "0x111",
  conntrackZone: 1,
  outboundPort: 15001,
  inboundPlaintextPort: 15006,
  hbonePort: 15008,
  dnsPort: 15053,
  probeAddress: { 4: "169.254.7.127", 6: "fd16:9254:7127:1337:ffff:ffff:ffff:ffff" },
  loopback: { 4: "127.0.0.1", 6: "::1" },
};

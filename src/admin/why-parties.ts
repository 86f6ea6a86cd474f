/** Whom an operator means: pods as `namespace/name`, addresses, and host names of services. */
import { type IpAddress, ipFamily, parseIpAddress } from "../mesh/ip-address.ts";
import { parsePort, parseSocketAddress, type SocketAddress } from "../mesh/socket-address.ts";
import type { Workload } from "../mesh/workload.ts";
import type { KnownService, MeshState } from "../state/mesh-state.ts";
import { AdminError } from "./admin-error.ts";

export interface NamedSource {
  readonly workload: Workload | undefined;
  readonly ip: IpAddress;
}

export interface NamedDestination {
  readonly address: SocketAddress;
  /** `undefined`: an address was given. */
  readonly name: string | undefined;
}

export class WhyParties {
  readonly #mesh: MeshState;
  readonly #network: string;

  /** @param network our own, in which addresses are looked up. */
  constructor(mesh: MeshState, network: string) {
    this.#mesh = mesh;
    this.#network = network;
  }

  /** @throws AdminError `question` naming what nobody knows. */
  source(text: string): NamedSource {
    const ip = parseIpAddress(text);
    if (ip !== undefined) {
      return { workload: this.#mesh.findWorkloadByAddress(this.#network, ip), ip };
    }
    const workload = text.includes("/") ? this.#pod(text) : this.#endpointOf(text);
    return { workload, ip: addressOf(workload, text, 4) };
  }

  /**
   * @param text with `:port`, which may be left out where there is but one.
   * @throws AdminError `question` naming what nobody knows.
   */
  destination(text: string, source: NamedSource): NamedDestination {
    const address = parseSocketAddress(text);
    if (address !== undefined) return { address, name: undefined };
    const bare = parseIpAddress(text);
    if (bare !== undefined) {
      const known = this.#mesh.findServiceByVip(this.#network, bare, source.workload?.namespace);
      return { address: { ip: bare, port: onlyPort(text, known?.service.ports) }, name: undefined };
    }
    const [, name = text, digits] = /^(.*):(\d+)$/.exec(text) ?? [];
    const given = digits === undefined ? undefined : parsePort(digits);
    if (digits !== undefined && given === undefined) {
      throw new AdminError("question", `${text} has no port from 0 to 65535`);
    }
    const family = ipFamily(source.ip);
    if (name.includes("/")) {
      const pod = this.#pod(name);
      const ports = new Map(
        [...pod.services.values()].flatMap((map) => [...map.values()]).map((port) => [port, port]),
      );
      const port = given ?? onlyPort(text, ports);
      return { address: { ip: addressOf(pod, name, family), port }, name };
    }
    const { service } = this.#service(name, source.workload?.namespace);
    const here = service.vips.filter(({ network }) => network === this.#network);
    const vip = here.find(({ ip }) => ipFamily(ip) === family) ?? here[0];
    if (vip === undefined) {
      throw new AdminError(
        "question",
        `service ${name} has no address of its own in network "${this.#network}", name one of its pods`,
      );
    }
    return { address: { ip: vip.ip, port: given ?? onlyPort(text, service.ports) }, name };
  }

  /** @param text `namespace/name` */
  #pod(text: string): Workload {
    const uids = this.#mesh.workloadUids();
    const slash = text.indexOf("/");
    const [namespace, name] = [text.slice(0, slash), text.slice(slash + 1)];
    // What istiod makes of a pod's name; only where it does not help all workloads are looked at.
    const likely = uids.filter((uid) => uid.endsWith(`/${text}`));
    for (const uid of [...likely, ...uids]) {
      const workload = this.#mesh.findWorkload(uid);
      if (workload?.namespace === namespace && workload.name === name) return workload;
    }
    throw new AdminError("question", `the mesh knows no workload ${text}`);
  }

  #service(hostname: string, clientNamespace: string | undefined): KnownService {
    const known = this.#mesh.findServiceByHostname(hostname, clientNamespace);
    if (known !== undefined) return known;
    throw new AdminError(
      "question",
      `the mesh knows no service ${hostname} (pods are named NAMESPACE/NAME)`,
    );
  }

  #endpointOf(hostname: string): Workload {
    const [first] = this.#service(hostname, undefined).endpoints.values();
    if (first !== undefined) return first;
    throw new AdminError("question", `service ${hostname} has no endpoint`);
  }
}

function addressOf({ ips }: Workload, name: string, family: 4 | 6): IpAddress {
  const ip = ips.find((one) => ipFamily(one) === family) ?? ips[0];
  if (ip === undefined) throw new AdminError("question", `${name} has no address`);
  return ip;
}

function onlyPort(text: string, ports: ReadonlyMap<number, number> = new Map()): number {
  const [port, ...more] = ports.keys();
  if (port !== undefined && more.length === 0) return port;
  const choice = port === undefined ? "" : `, it has ${[port, ...more].join(", ")}`;
  throw new AdminError("question", `${text} needs a port${choice}`);
}

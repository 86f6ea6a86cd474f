/**
 * HAProxy as a pair of TLS proxies, one beside the client and one beside the server: the same walls
 * as ours (istio-cni's redirect rules, mutual TLS 1.3, AES-256-GCM, P-256 certificates), but a TLS
 * connection per connection and no HTTP/2, identity check, policy, log or metrics. One thread each.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { connectFrom } from "../../test/support/lab-application.ts";
import { labCertificate, workloadName } from "../../test/support/lab-certificate.ts";
import type { MeshLab } from "../../test/support/mesh-lab.ts";
import type { LabHost } from "../../test/support/netns-lab.ts";
import { waitUntil } from "../../test/support/wait-until.ts";
import { redirectTraffic } from "./redirect-traffic.ts";

const CAPTURE_PORT = 15001;
const TLS_PORT = 15008;

/**
 * @param applicationPort captured in the client's namespace, served in the server's.
 * @returns the two processes; they end with the lab.
 */
export async function startHaproxyPair(
  lab: MeshLab,
  hosts: { readonly client: LabHost; readonly server: LabHost },
  applicationPort: number,
): Promise<{ readonly clientPid: number; readonly serverPid: number }> {
  const folder = join(lab.folder, "haproxy");
  mkdirSync(folder);
  const certificate = async (name: "client" | "server"): Promise<string> => {
    const { cert, key, ca } = await labCertificate(lab, workloadName(`haproxy-${name}`));
    const file = join(folder, `${name}.pem`);
    const rootFile = join(folder, `${name}-root.pem`);
    writeFileSync(file, `${cert}\n${key}`);
    writeFileSync(rootFile, ca);
    return `crt ${file} ca-file ${rootFile} verify required`;
  };
  const clientPid = await start(lab, hosts.client, CAPTURE_PORT, {
    file: join(folder, "client.cfg"),
    bind: `:${CAPTURE_PORT}`,
    server: `${hosts.server.ipv4}:${TLS_PORT} ssl ${await certificate("client")}`,
  });
  const serverPid = await start(lab, hosts.server, TLS_PORT, {
    file: join(folder, "server.cfg"),
    bind: `:${TLS_PORT} ssl ${await certificate("server")}`,
    server: `127.0.0.1:${applicationPort}`,
  });
  // It cannot mark its own packets, so those to its peer are let through by their port.
  const exempt = ["-t", "nat", "-I", "OUTPUT", "-p", "tcp", "--dport", String(TLS_PORT)];
  for (const host of [hosts.client, hosts.server]) {
    await redirectTraffic(host);
    lab.net.exec(host, "iptables", ...exempt, "-j", "ACCEPT");
  }
  return { clientPid, serverPid };
}

async function start(
  lab: MeshLab,
  host: LabHost,
  port: number,
  config: { readonly file: string; readonly bind: string; readonly server: string },
): Promise<number> {
  writeFileSync(config.file, configText(config));
  const checked = spawnSync("haproxy", ["-c", "-f", config.file], { encoding: "utf8" });
  if (checked.status !== 0) throw new Error(`HAProxy refuses its configuration: ${checked.stderr}`);
  const { pid } = lab.net.spawn(host, "haproxy", "-db", "-f", config.file);
  if (pid === undefined) throw new Error("HAProxy could not be started");
  const accepts = (): Promise<boolean> =>
    connectFrom(host, "127.0.0.1", port).then(
      (socket) => {
        socket.destroy();
        return true;
      },
      () => false,
    );
  await waitUntil(accepts, `HAProxy never listened on ${port}`);
  return pid;
}

function configText({ bind, server }: { readonly bind: string; readonly server: string }): string {
  return `global
  nbthread 1
  maxconn 8000
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-bind-ciphersuites TLS_AES_256_GCM_SHA384
  ssl-default-server-options ssl-min-ver TLSv1.3
  ssl-default-server-ciphersuites TLS_AES_256_GCM_SHA384
defaults
  mode tcp
  timeout connect 10s
  timeout client 10m
  timeout server 10m
frontend capture
  bind ${bind}
  default_backend peer
backend peer
  server peer ${server}
`;
}

import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { CaService } from "../../src/embedded/ca-service.ts";
import { CallerCheck } from "../../src/embedded/caller-check.ts";
import { EmbeddedAuthority } from "../../src/embedded/certificate-authority.ts";
import { ControlPlaneServer } from "../../src/embedded/control-plane-server.ts";
import { certificateOrder } from "../../src/identity/certificate-order.ts";
import { IstioCaClient } from "../../src/identity/istio-ca-client.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import type { Logger } from "../../src/telemetry/logger.ts";
import { silentLogger } from "../support/silent-logger.ts";
import { testIdentity } from "../support/test-ca.ts";

const cart = testIdentity("cart", "shop");
const [old, young] = await Promise.all([
  EmbeddedAuthority.inMemory(systemClock),
  EmbeddedAuthority.inMemory(systemClock),
]);
const directory = mkdtempSync(join(tmpdir(), "roots-"));
after(() => rmSync(directory, { recursive: true }));

/** As the kubelet mounts a secret: the file is a link through a link that is switched. */
class MountedRoots {
  readonly path: string;
  readonly #directory: string;
  #count = 0;

  constructor(name: string, pem: string) {
    this.#directory = join(directory, name);
    mkdirSync(this.#directory);
    this.path = join(this.#directory, "root-cert.pem");
    this.put(pem);
    symlinkSync("..data/root-cert.pem", this.path);
  }

  put(pem: string): void {
    const version = `..${++this.#count}`;
    mkdirSync(join(this.#directory, version));
    writeFileSync(join(this.#directory, version, "root-cert.pem"), pem);
    symlinkSync(version, join(this.#directory, "..data_tmp"));
    renameSync(join(this.#directory, "..data_tmp"), join(this.#directory, "..data"));
  }
}

function serve(authority: EmbeddedAuthority, listen = "127.0.0.1:0"): Promise<ControlPlaneServer> {
  const callers = new CallerCheck({
    tokenFile: undefined,
    nodeTokenFiles: new Map(),
    clusterId: "Kubernetes",
  });
  const service = new CaService({ authority, callers, hasIdentity: () => true, report() {} });
  return ControlPlaneServer.start({ authority, services: [service] }, { listen, names: [] });
}

function open(port: number, path: string) {
  const lines: string[] = [];
  const log: Logger = {
    ...silentLogger,
    write: (level, message) => lines.push(`${level} ${message}`),
  };
  const client = new IstioCaClient(
    { clock: systemClock, log },
    {
      address: `https://127.0.0.1:${port}`,
      roots: { kind: "file", path },
      alternateHostname: undefined,
      token: undefined,
      clusterId: "Kubernetes",
      headers: [],
      validitySeconds: 60,
      impersonate: true,
      answerMs: 30_000,
      tls: { tls12: false, postQuantumOnly: false },
    },
  );
  const order = certificateOrder({ authority: client, log }, { checkIdentity: true });
  return { lines, client, order };
}

test("an authority that moves to another root is followed without a failure", async () => {
  const roots = new MountedRoots("rotation", old.rootPem);
  let server = await serve(old);
  const { port } = server;
  const { client, lines, order } = open(port, roots.path);
  await order(cart);
  // First both are trusted, then the server changes, then the old one goes.
  roots.put(old.rootPem + young.rootPem);
  await order(cart);
  server.close();
  server = await serve(young, `127.0.0.1:${port}`);
  assert.deepEqual((await order(cart)).rootsPem, [young.rootPem]);
  roots.put(young.rootPem);
  await order(cart);
  assert.deepEqual(lines, []);
  client.close();
  server.close();
});

test("requests on their way when the roots change are answered", async () => {
  const roots = new MountedRoots("in-flight", old.rootPem);
  const server = await serve(old);
  const { client, order } = open(server.port, roots.path);
  await order(cart);
  const running = Array.from({ length: 20 }, () => order(cart));
  roots.put(old.rootPem + young.rootPem);
  const later = Array.from({ length: 20 }, () => order(cart));
  await Promise.all([...running, ...later]);
  client.close();
  server.close();
});

const broken: readonly (readonly [what: string, pem: string])[] = [
  ["empty", ""],
  ["no certificates", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"],
];
for (const [what, pem] of broken) {
  test(`roots that become ${what} leave the former ones in place, with a line`, async () => {
    const roots = new MountedRoots(what, old.rootPem);
    const server = await serve(old);
    const { client, lines, order } = open(server.port, roots.path);
    await order(cart);
    roots.put(pem);
    await order(cart);
    assert.equal(lines.length, 1);
    assert.match(
      lines[0] ?? "",
      /^warn keeping the former roots of the certificate authority: no root certificate in ./,
    );
    roots.put(old.rootPem + young.rootPem);
    await order(cart);
    assert.equal(lines.length, 1);
    client.close();
    server.close();
  });
}

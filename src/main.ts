#!/usr/bin/env node
/**
 * The command line: the only reader of argv and the environment, the only place that ends the
 * process. Each command loads its own code, so the daemon never carries the demo in its memory.
 */
import { existsSync, readFileSync } from "node:fs";
import yargs from "yargs";
import { hideBin } from "yargs/helpers";
import { CONFIG_OPTIONS } from "./config/config-option.ts";

/** The mesh configuration that Istio's images mount, relative to the working directory. */
const MESH_CONFIG_PATH = "./etc/istio/config/mesh";

/** The data path uses what came with this version. */
const NODE_MAJOR_MIN = 26;

if (Number.parseInt(process.versions.node, 10) < NODE_MAJOR_MIN) {
  fail(
    `Node.js ${NODE_MAJOR_MIN} or newer is needed, this is ${process.versions.node}; npm run -s ztunnel -- brings its own`,
  );
}

const commands = yargs(hideBin(process.argv))
  .scriptName("ztunnel")
  .usage("$0 <command>\n\nNode-level L4 zero-trust proxy for Istio's ambient mesh.")
  .command(
    ["proxy [role]", "$0"],
    "run the proxy daemon of this node (configured by environment variables, see README.md)",
    (builder) =>
      builder
        .positional("role", {
          type: "string",
          describe: "`ztunnel`, accepted for the original's arguments `proxy ztunnel`",
        })
        .check(({ _: given, role }) => {
          if (role === undefined || role === "ztunnel") return true;
          // Whatever is no command ends up here, as an argument of the default one.
          throw new Error(
            given.length === 0 ? `unknown command ${role}` : `the role is ztunnel, not ${role}`,
          );
        })
        .epilogue(environmentHelp()),
    () => runProxy(),
  )
  .command("version", "print the version", {}, async () => {
    const { buildInfo } = await import("./telemetry/build-info.ts");
    console.log(buildInfo(process.env["ISTIO_META_ISTIO_VERSION"]));
  })
  .command(
    "embedded-mesh",
    "run a certificate authority for the workloads of one mesh file, on one machine",
    (builder) =>
      builder
        .option("file", {
          type: "string",
          demandOption: true,
          requiresArg: true,
          describe: "the mesh: workloads, services, policies (YAML, format of LOCAL_XDS_PATH)",
        })
        .option("listen", {
          type: "string",
          default: "127.0.0.1:15012",
          describe: "address of the Istio CA gRPC service",
        })
        .option("state-dir", {
          type: "string",
          default: "./embedded-mesh",
          describe: "where the authority's key and root-cert.pem are kept",
        })
        .option("token-file", {
          type: "string",
          describe: "callers must present the token in this file (their AUTH_TOKEN)",
        }),
    async (argv) => {
      const { runEmbeddedMesh } = await import("./embedded/embedded-mesh.ts");
      await runUntilSignal((signal) =>
        runEmbeddedMesh({
          file: argv.file,
          listen: argv.listen,
          stateDir: argv["state-dir"],
          ...(argv["token-file"] === undefined ? {} : { tokenFile: argv["token-file"] }),
          signal,
        }),
      );
    },
  )
  .command(
    "node-agent",
    "stand in for istio-cni: hand network namespaces to the proxy",
    (builder) =>
      builder
        .option("control", {
          type: "string",
          default: "/var/run/ztunnel/node-agent.sock",
          describe: "Unix socket on which the running agent takes commands",
        })
        .command(
          ["run", "$0"],
          "run the agent",
          (run) =>
            run.option("uds", {
              type: "string",
              default: "/var/run/ztunnel/ztunnel.sock",
              describe: "Unix socket to which the proxy connects (its INPOD_UDS)",
            }),
          async (argv) => {
            const { runNodeAgent } = await import("./embedded/node-agent.ts");
            await runUntilSignal((signal) =>
              runNodeAgent({ uds: argv.uds, control: argv.control, signal }),
            );
          },
        )
        .command(
          "attach",
          "put a network namespace into the mesh: redirect rules, then the proxy's listeners",
          (attach) =>
            attach
              .option("netns", { type: "string", describe: "name under /run/netns, or a path" })
              .option("pid", { type: "number", describe: "a process in the namespace" })
              .option("workload", {
                type: "string",
                demandOption: true,
                describe: "NAMESPACE/NAME of the workload in the mesh file",
              })
              .option("service-account", {
                type: "string",
                demandOption: true,
                describe: "its service account",
              })
              .option("uid", { type: "string", describe: "pod uid; default: made up" })
              .option("dns-capture", {
                type: "boolean",
                default: false,
                describe: "also redirect DNS to port 15053, where a resolver must listen",
              })
              .option("bypass-inbound-capture", {
                type: "boolean",
                default: false,
                describe: "leave plaintext that arrives alone; tunnels are still taken",
              })
              .conflicts("netns", "pid")
              .check((argv) => {
                if (argv.netns === undefined && argv.pid === undefined)
                  throw new Error("one of --netns and --pid is needed");
                return true;
              }),
          async (argv) => {
            const agent = await import("./embedded/node-agent-client.ts");
            console.log(
              await agent.attach(argv.control, {
                netns: argv.netns,
                pid: argv.pid,
                workload: argv.workload,
                serviceAccount: argv["service-account"],
                uid: argv.uid,
                dnsCapture: argv["dns-capture"],
                bypassInboundCapture: argv["bypass-inbound-capture"],
              }),
            );
          },
        )
        .command(
          "detach",
          "take a workload out of the mesh and remove its rules",
          (detach) =>
            detach.option("workload", {
              type: "string",
              demandOption: true,
              describe: "NAMESPACE/NAME given to attach, or its uid",
            }),
          async (argv) => {
            const agent = await import("./embedded/node-agent-client.ts");
            console.log(await agent.detach(argv.control, argv.workload));
          },
        )
        .command("list", "show the attached workloads", {}, async (argv) => {
          const agent = await import("./embedded/node-agent-client.ts");
          console.log(await agent.list(argv["control"] as string));
        }),
  )
  .command(
    "demo",
    "two nodes and four pods on this machine: captured, tunnelled, authorised, counted",
    (builder) =>
      builder
        .option("keep", {
          type: "boolean",
          default: false,
          describe: "leave everything running and print the addresses",
        })
        .option("install", {
          type: "boolean",
          default: false,
          describe: "as root on Debian: install missing system tools first",
        }),
    async (argv) => {
      const { runDemo } = await import("./embedded/demo.ts");
      await runUntilSignal((signal) =>
        runDemo({ keep: argv.keep, install: argv.install, signal, environment: process.env }),
      );
    },
  )
  .version(false)
  .strict()
  .help()
  .fail((message, error) => {
    if (message === null || message === undefined) fail(error);
    const reason = message.charAt(0).toLowerCase() + message.slice(1).replace(/\s+/g, " ");
    fail(`${reason}, see --help`);
  });

try {
  await commands.parseAsync();
} catch (error) {
  fail(error);
}

/** One line for each variable, for `ztunnel proxy --help`. */
function environmentHelp(): string {
  const lines = CONFIG_OPTIONS.map(
    ({ name, fallback, why }) => `  ${name} [${fallback}]\n      ${why}`,
  );
  return ["Environment:", ...lines].join("\n");
}

async function runProxy(): Promise<void> {
  const [{ parseConfig }, { startApp }] = await Promise.all([
    import("./config/config-parser.ts"),
    import("./app.ts"),
  ]);
  const meshConfig = existsSync(MESH_CONFIG_PATH)
    ? readFileSync(MESH_CONFIG_PATH, "utf8")
    : undefined;
  const app = await startApp(parseConfig(process.env, meshConfig));
  let stopping = false;
  const stop = (signal: NodeJS.Signals): void => {
    // Whoever asks twice does not want to wait for connections to end.
    if (stopping) process.exit(0);
    stopping = true;
    app.shutDown(signal);
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
  process.exit(await app.ended);
}

/** Runs a command until it ends by itself or the first SIGINT or SIGTERM asks it to. */
async function runUntilSignal(command: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const abort = new AbortController();
  const stop = (): void => {
    if (abort.signal.aborted) process.exit(130);
    abort.abort();
  };
  process.on("SIGINT", stop);
  process.on("SIGTERM", stop);
  await command(abort.signal);
  process.exit(process.exitCode ?? 0);
}

function fail(error: unknown): never {
  for (const line of errorText(error).split("\n")) console.error(`ztunnel: ${line}`);
  process.exit(1);
}

/** Of an Error its message, of anything else its text. */
function errorText(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

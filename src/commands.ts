/**
 * The commands, their options and their help. Not loaded by a plain `ztunnel proxy`: reading the
 * command line takes as long as everything else until the daemon is ready, and 10 MB.
 */
import yargs, { type Argv } from "yargs";
import type { DrainReport } from "./admin/drain-report.ts";
import type { WhyReport } from "./admin/why-report.ts";
import { CONFIG_OPTIONS } from "./config/config-option.ts";
import { buildInfo } from "./telemetry/build-info.ts";

/** What commands may do with the process that they run in. */
export interface Program {
  readonly environment: Readonly<Record<string, string | undefined>>;
  print(line: string): void;
  /** Tells the person who typed the command, and ends the process with 1. */
  fail(error: unknown): never;
  /** Never settles: the process ends with the daemon. */
  runProxy(): Promise<void>;
  /** Runs a command until it ends by itself or the first SIGINT or SIGTERM asks it to. */
  runUntilSignal(command: (signal: AbortSignal) => Promise<void>): Promise<void>;
}

/** Of commands to a running agent. */
type AgentArguments = Argv<{ control: string }>;

/** Of commands that ask a running daemon. */
const ADMIN_OPTIONS = {
  admin: {
    type: "string",
    requiresArg: true,
    default: "localhost:15000",
    describe: "address of the daemon's admin port",
  },
  output: {
    alias: "o",
    choices: ["text", "json"],
    default: "text",
    describe: "for people or for programs",
  },
} as const;

/**
 * Runs the command that the words name, or prints help.
 *
 * @param words the command line behind the program's name.
 * @throws what the command throws.
 */
export async function runCommand(words: readonly string[], program: Program): Promise<void> {
  const version = buildInfo(program.environment["ISTIO_META_ISTIO_VERSION"]);
  const commands = yargs([...words])
    .scriptName("ztunnel")
    .usage("$0 <command>\n\nNode-level L4 zero-trust proxy for Istio's ambient mesh.")
    .check(checkValues)
    .version("version", "print the version", version)
    .strict()
    .help("help", "print this help")
    .fail((message, error) => {
      if (message === null || message === undefined) program.fail(error);
      const reason = message.replace("non-option ", "").replace(/\s+/g, " ");
      program.fail(`${reason.charAt(0).toLowerCase()}${reason.slice(1)}, see --help`);
    });

  for (const add of [addProxy, addEmbeddedMesh, addNodeAgent, addWhy, addDrain, addDemo]) {
    add(commands, program);
  }
  commands.command("version", "print the version", {}, () => program.print(version));
  await commands.parseAsync();
}

function addProxy(commands: Argv, program: Program): Argv {
  return commands.command(
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
    () => program.runProxy(),
  );
}

function addEmbeddedMesh(commands: Argv, program: Program): Argv {
  return commands.command(
    "embedded-mesh",
    "run a control plane for the mesh of one file: discovery and certificates, on one machine",
    (builder) =>
      builder
        .option("file", {
          type: "string",
          demandOption: true,
          requiresArg: true,
          describe:
            "the mesh, followed: Kubernetes objects, or the format of LOCAL_XDS_PATH (YAML)",
        })
        .option("listen", {
          type: "string",
          default: "127.0.0.1:15012",
          describe: "address of both gRPC services, discovery and the Istio CA",
          coerce: (address: string) => readListenAddress(address),
        })
        .option("state-dir", {
          type: "string",
          default: "./embedded-mesh",
          describe: "where the authority's key and root-cert.pem are kept",
        })
        .option("token-file", {
          type: "string",
          requiresArg: true,
          describe: "callers must present the token in this file (their AUTH_TOKEN)",
        })
        .option("node-token", {
          type: "string",
          array: true,
          requiresArg: true,
          default: [] as string[],
          defaultDescription: "none",
          describe:
            "NODE=FILE, again for each node: who presents the token in the file may only be the proxy of that node",
          coerce: (pairs: readonly string[]) => readNodeTokens(pairs),
        }),
    async (argv) => {
      const { runEmbeddedMesh } = await import("./embedded/embedded-mesh.ts");
      await program.runUntilSignal((signal) =>
        runEmbeddedMesh({
          file: argv.file,
          listen: argv.listen,
          stateDir: argv["state-dir"],
          tokenFile: argv["token-file"],
          nodeTokenFiles: argv["node-token"],
          signal,
        }),
      );
    },
  );
}

function addNodeAgent(commands: Argv, program: Program): Argv {
  return commands.command(
    "node-agent",
    "stand in for istio-cni: hand network namespaces to the proxy",
    (builder) => {
      const commandsOfAgent = builder.option("control", {
        type: "string",
        default: "/var/run/ztunnel/node-agent.sock",
        describe: "Unix socket on which the running agent takes commands",
      });
      addAgentRun(commandsOfAgent, program);
      addAgentAttach(commandsOfAgent, program);
      addAgentDetach(commandsOfAgent, program);
      return addAgentList(commandsOfAgent, program);
    },
  );
}

function addAgentRun(commands: AgentArguments, program: Program): AgentArguments {
  return commands.command(
    ["run", "$0"],
    "run the agent",
    (run) =>
      run
        .option("uds", {
          type: "string",
          default: "/var/run/ztunnel/ztunnel.sock",
          describe: "Unix socket to which the proxy connects (its INPOD_UDS)",
        })
        .option("rules", {
          choices: ["auto", "iptables", "iptables-nft", "iptables-legacy", "nftables"],
          default: "auto",
          describe:
            "what installs the redirect rules; auto: the kind of iptables that a namespace has rules of, else the machine's iptables, else nft",
        } as const),
    async (argv) => {
      const { runNodeAgent } = await import("./embedded/node-agent.ts");
      await program.runUntilSignal((signal) =>
        runNodeAgent({ uds: argv.uds, control: argv.control, rules: argv.rules, signal }),
      );
    },
  );
}

function addAgentAttach(commands: AgentArguments, program: Program): AgentArguments {
  return commands.command(
    "attach",
    "put a network namespace into the mesh: redirect rules, then the proxy's listeners",
    (attach) =>
      attach
        .option("netns", { type: "string", describe: "name under /run/netns, or a path" })
        .option("pid", {
          type: "string",
          describe: "a process in the namespace",
          coerce: (pid: string) => readPid(pid),
        })
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
          default: true,
          describe: "also redirect DNS to port 15053, where the proxy answers it",
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
      program.print(
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
  );
}

function addAgentDetach(commands: AgentArguments, program: Program): AgentArguments {
  return commands.command(
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
      program.print(await agent.detach(argv.control, argv.workload));
    },
  );
}

function addAgentList(commands: AgentArguments, program: Program): AgentArguments {
  const asIs = (list: AgentArguments): AgentArguments => list;
  return commands.command("list", "show the attached workloads", asIs, async (argv) => {
    const agent = await import("./embedded/node-agent-client.ts");
    program.print(await agent.list(argv.control));
  });
}

function addDrain(commands: Argv, program: Program): Argv {
  return commands.command("drain", "look at a daemon that is ending", (builder) =>
    builder
      .command(
        "status",
        "tell whether the daemon is ending, until when, and which connections it waits for",
        (status) => status.options(ADMIN_OPTIONS),
        async ({ admin, output }) => {
          const { askAdmin } = await import("./admin/admin-client.ts");
          const { formatDrain } = await import("./admin/drain-report.ts");
          const report = (await askAdmin(admin, "/drain")) as DrainReport;
          program.print(output === "json" ? JSON.stringify(report, null, 2) : formatDrain(report));
        },
      )
      .demandCommand(1, "drain what?"),
  );
}

function addWhy(commands: Argv, program: Program): Argv {
  return commands.command(
    "why <source> <destination>",
    "explain what becomes of a connection: route, waypoint, certificate, policies",
    (why) =>
      why
        .positional("source", {
          type: "string",
          demandOption: true,
          describe: "a pod as NAMESPACE/NAME, an address, or a service's host name",
        })
        .positional("destination", {
          type: "string",
          demandOption: true,
          describe: "the same with :PORT, which may be left out where there is but one",
        })
        .option("connect", {
          type: "boolean",
          default: false,
          describe: "also make a connection, from a source that is a pod of the daemon",
        })
        .options(ADMIN_OPTIONS),
    async ({ source, destination, connect, admin, output }) => {
      const { askAdmin } = await import("./admin/admin-client.ts");
      const { formatWhy } = await import("./admin/why-text.ts");
      const query = new URLSearchParams({ source, destination, connect: String(connect) });
      const path = `/debug/why?${query}`;
      const report = (await askAdmin(admin, path, connect ? "POST" : "GET")) as WhyReport;
      program.print(output === "json" ? JSON.stringify(report, null, 2) : formatWhy(report));
    },
  );
}

function addDemo(commands: Argv, program: Program): Argv {
  return commands.command(
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
      await program.runUntilSignal((signal) =>
        runDemo({
          keep: argv.keep,
          install: argv.install,
          signal,
          environment: program.environment,
        }),
      );
    },
  );
}

/** What no option means, whichever it is. @throws Error that names the option. */
function checkValues(values: Readonly<Record<string, unknown>>): true {
  for (const [name, value] of Object.entries(values)) {
    if (name === "_") continue;
    if (Array.isArray(value)) throw new Error(`${name} is given more than once`);
    if (value === "") throw new Error(`${name} must not be empty`);
  }
  return true;
}

/** @throws Error for what is no process id. */
function readPid(pid: string): number {
  if (!/^[1-9]\d*$/.test(pid)) throw new Error(`pid must be the number of a process, not ${pid}`);
  return Number(pid);
}

/** @throws Error for what is not HOST:PORT. */
function readListenAddress(address: string): string {
  const [, port] = /^(?:\[[^\]]+\]|[^:]+):(\d+)$/.exec(address) ?? [];
  if (port === undefined || Number(port) > 65_535) {
    throw new Error(`listen must be HOST:PORT, not ${address}`);
  }
  return address;
}

/** @throws Error for what is not NODE=FILE. */
function readNodeTokens(pairs: readonly string[]): ReadonlyMap<string, string> {
  return new Map(
    pairs.map((pair) => {
      const [, node, file] = /^([^=]+)=(.+)$/.exec(pair) ?? [];
      if (node === undefined || file === undefined) {
        throw new Error(`node-token must be NODE=FILE, not ${pair}`);
      }
      return [node, file];
    }),
  );
}

/** One line for each variable, for `ztunnel proxy --help`. */
function environmentHelp(): string {
  const lines = CONFIG_OPTIONS.map(
    ({ name, fallback, unit, why }) =>
      `  ${name} [${fallback}${unit === undefined ? "" : ` ${unit}`}]\n      ${why}`,
  );
  return ["Environment:", ...lines].join("\n");
}

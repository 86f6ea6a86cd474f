/** What the program says when it is called wrongly; test/netns/start-up.test.ts has the rest. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { after, describe, test } from "node:test";
import { CONFIG_OPTIONS } from "../../src/config/config-option.ts";
import { runCommand } from "../support/command.ts";

const NODE_MAJOR_MIN = 26;

const cwd = mkdtempSync(join(tmpdir(), "ztunnel-app-"));
after(() => rmSync(cwd, { recursive: true }));
writeFileSync(join(cwd, "empty.yaml"), "workloads: []\n");

interface Mistake {
  readonly title: string;
  readonly args?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly says: readonly string[];
}

const NO_MESH =
  "invalid configuration: XDS_ADDRESS is empty and neither LOCAL_XDS_PATH nor LOCAL_XDS is set";

const MISTAKES: readonly Mistake[] = [
  { title: "no mesh", environment: { XDS_ADDRESS: "" }, says: [NO_MESH] },
  {
    title: "no mesh, as the image starts it",
    args: ["proxy", "ztunnel"],
    environment: { XDS_ADDRESS: "" },
    says: [NO_MESH],
  },
  {
    title: "two meshes",
    environment: { LOCAL_XDS: "{}", LOCAL_XDS_PATH: "mesh.yaml" },
    says: ["invalid configuration: only one of LOCAL_XDS_PATH or LOCAL_XDS may be set"],
  },
  {
    title: "three mistakes at once",
    environment: { XDS_ADDRESS: "", KEEPALIVE_TIME: "soon", LOG_FORMAT: "xml" },
    says: [
      NO_MESH,
      "invalid env var KEEPALIVE_TIME=soon (expected a duration such as 90s, 5m or 1m30s)",
      "invalid env var LOG_FORMAT=xml (LOG_FORMAT must be one of plain, json)",
    ],
  },
  {
    title: "what a mesh file alone has no use for",
    environment: { LOCAL_XDS: "{}", STATE_DIR: "state", ALT_XDS_HOSTNAME: "istiod" },
    says: ["ALT_XDS_HOSTNAME", "STATE_DIR"].map(
      (name) =>
        `invalid configuration: ${name} has no effect: the mesh comes from a file alone, no control plane is asked without XDS_ADDRESS`,
    ),
  },
  {
    title: "a dedicated proxy of nobody",
    environment: { LOCAL_XDS: "{}", PROXY_MODE: "dedicated" },
    says: ["invalid configuration: PROXY_MODE=dedicated requires PROXY_WORKLOAD_INFO to be set"],
  },
  { title: "an unknown command", args: ["fly"], says: ["unknown command fly, see --help"] },
  {
    title: "an unknown role",
    args: ["proxy", "waypoint"],
    says: ["the role is ztunnel, not waypoint, see --help"],
  },
  {
    title: "an unknown option",
    args: ["proxy", "--fast"],
    says: ["unknown argument: fast, see --help"],
  },
  {
    title: "an unknown command of the agent",
    args: ["node-agent", "fly"],
    says: ["unknown argument: fly, see --help"],
  },
  {
    title: "a missing option",
    args: ["embedded-mesh"],
    says: ["missing required argument: file, see --help"],
  },
  {
    title: "an option without its value",
    args: ["embedded-mesh", "--file"],
    says: ["not enough arguments following: file, see --help"],
  },
  {
    title: "a question without its second half",
    args: ["why", "shop/web"],
    says: ["not enough arguments: got 1, need at least 2, see --help"],
  },
  {
    title: "options that exclude each other",
    args: [
      ...["node-agent", "attach", "--workload", "a/b", "--service-account", "c"],
      ...["--netns", "x", "--pid", "1"],
    ],
    says: ["arguments netns and pid are mutually exclusive, see --help"],
  },
  {
    title: "a token of no node",
    args: ["embedded-mesh", "--file", "mesh.yaml", "--node-token", "token"],
    says: ["node-token must be NODE=FILE, not token, see --help"],
  },
  {
    title: "an address that is none",
    args: ["embedded-mesh", "--file", "mesh.yaml", "--listen", "localhost"],
    says: ["listen must be HOST:PORT, not localhost, see --help"],
  },
  {
    title: "a port beyond the last",
    args: ["embedded-mesh", "--file", "mesh.yaml", "--listen", "[::1]:65536"],
    says: ["listen must be HOST:PORT, not [::1]:65536, see --help"],
  },
  {
    title: "a process that is none",
    args: ["node-agent", "attach", "--workload", "a/b", "--service-account", "c", "--pid", "x"],
    says: ["pid must be the number of a process, not x, see --help"],
  },
  {
    title: "an option with nothing in it",
    args: ["node-agent", "attach", "--workload", "a/b", "--service-account=", "--pid", "1"],
    says: ["service-account must not be empty, see --help"],
  },
  {
    title: "an option twice",
    args: ["node-agent", "detach", "--workload", "a/b", "--workload", "a/c"],
    says: ["workload is given more than once, see --help"],
  },
  {
    title: "an admin port that is none",
    args: ["drain", "status", "--admin", "localhost:99999"],
    says: ["ztunnel at localhost:99999: this is not HOST:PORT"],
  },
  {
    title: "a mesh file that is not there",
    args: ["embedded-mesh", "--file", "nowhere.yaml"],
    says: ["can't read nowhere.yaml: it is not there, make it or name another (ENOENT)"],
  },
  {
    title: "a state folder that can't be made",
    args: ["embedded-mesh", "--file", "empty.yaml", "--state-dir", "/proc/x/y"],
    says: ["can't make the folder /proc/x: /proc takes none (ENOENT)"],
  },
  {
    title: "a socket whose folder can't be made",
    args: ["node-agent", "--uds", "/proc/x/z.sock"],
    says: ["can't make the folder /proc/x: /proc takes none (ENOENT)"],
  },
  {
    title: "a socket whose path is longer than the system takes",
    args: ["node-agent", "--control", "c.sock", "--uds", `${"u".repeat(108)}`],
    says: [
      `can't listen on ${"u".repeat(108)}: it is too long, choose a shorter one (ENAMETOOLONG)`,
    ],
  },
  {
    title: "an admin address without a port",
    args: ["drain", "status", "--admin", "localhost"],
    says: ["ztunnel at localhost: this is not HOST:PORT"],
  },
  {
    title: "a folder where a mesh file should be",
    args: ["embedded-mesh", "--file", "/proc"],
    says: ["can't read /proc: it is a folder, name a file in it (EISDIR)"],
  },
  {
    title: "an agent that does not run",
    args: ["node-agent", "list", "--control", "no.sock"],
    says: ["node agent at no.sock: nobody listens, is it running?"],
  },
];

const TAKEN = "something else has it, end that or choose another (EADDRINUSE)";

describe("a mistake is answered by a sentence and exit code 1:", { concurrency: 2 }, () => {
  for (const { title, args = [], environment = {}, says } of MISTAKES) {
    test(title, async () => {
      const { exitCode, stdout, stderr } = await runCommand(args, { cwd, environment });
      assert.deepEqual(
        stderr.toSorted(),
        says.map((sentence) => `ztunnel: ${sentence}`).toSorted(),
      );
      assert.deepEqual([exitCode, stdout], [1, ""]);
    });
  }

  test("a port that is taken", async (t) => {
    const other = createServer().listen(0, "127.0.0.1");
    t.after(() => other.close());
    await once(other, "listening");
    const listen = `127.0.0.1:${(other.address() as AddressInfo).port}`;
    const args = ["embedded-mesh", "--file", "empty.yaml", "--listen", listen];
    const { exitCode, stderr } = await runCommand(args, { cwd });
    assert.deepEqual([exitCode, stderr], [1, [`ztunnel: can't listen on ${listen}: ${TAKEN}`]]);
  });

  for (const option of ["--control", "--uds"]) {
    test(`a file in the way of the agent's ${option}, which stays`, async () => {
      const folder = mkdtempSync(join(cwd, "agent-"));
      const file = join(folder, "precious");
      const paths = { "--control": join(folder, "c"), "--uds": join(folder, "u"), [option]: file };
      writeFileSync(file, "precious");
      const { exitCode, stderr } = await runCommand(
        ["node-agent", ...Object.entries(paths).flat()],
        { cwd },
      );
      assert.equal(exitCode, 1);
      assert.deepEqual(stderr, [`ztunnel: can't listen on ${file}: ${TAKEN}`]);
      assert.equal(readFileSync(file, "utf8"), "precious");
    });
  }

  test("a mesh file that is no YAML", async () => {
    const file = join(cwd, "letter.yaml");
    writeFileSync(file, `dear: reader: ${"and so on\n".repeat(1000)}`);
    const { exitCode, stderr } = await runCommand(["embedded-mesh", "--file", file], { cwd });
    assert.equal(exitCode, 1);
    assert.ok(stderr.length > 0);
    for (const line of stderr) {
      assert.ok(line.startsWith(`ztunnel: ${file}:`) && line.length < 400, line);
    }
  });

  for (const { path, version, options = "" } of oldNodes()) {
    test(`a Node that is too old: ${version}`, async () => {
      const environment = { NODE_OPTIONS: options };
      const outcome = await runCommand(["proxy"], { cwd, environment, node: path });
      assert.deepEqual(outcome, {
        exitCode: 1,
        stdout: "",
        stderr: [
          `ztunnel: Node.js ${NODE_MAJOR_MIN} or newer is needed, this is ${version}; npm run -s ztunnel -- brings its own`,
        ],
      });
    });
  }
});

const COMMANDS = [
  "",
  "proxy",
  "version",
  "embedded-mesh",
  "node-agent",
  "node-agent run",
  "node-agent attach",
  "node-agent detach",
  "node-agent list",
  "drain status",
  "why",
  "demo",
];

describe("help is given for", { concurrency: 2 }, () => {
  for (const command of COMMANDS) {
    test(`ztunnel ${command}`.trim(), async () => {
      const args = command.split(" ").filter((word) => word !== "");
      const { exitCode, stdout, stderr } = await runCommand([...args, "--help"], { cwd });
      assert.deepEqual([exitCode, stderr], [0, []]);
      assert.ok(stdout.startsWith(`ztunnel ${command || "<command>"}`), stdout);
    });
  }
});

test("the help of the proxy names every command and every variable that it reads", async () => {
  const { stdout } = await runCommand(["--help"], { cwd });
  for (const command of COMMANDS.filter((name) => !name.includes(" "))) {
    assert.ok(stdout.includes(`ztunnel ${command}`), command);
  }
  for (const { name } of CONFIG_OPTIONS) assert.ok(stdout.includes(`\n  ${name} [`), name);
});

for (const word of ["version", "--version"]) {
  test(`ztunnel ${word} is one line`, async () => {
    const { exitCode, stdout, stderr } = await runCommand([word], { cwd });
    assert.deepEqual([exitCode, stderr], [0, []]);
    assert.match(stdout, /^version\.BuildInfo\{.*\}\n$/);
  });
}

interface OldNode {
  readonly path: string;
  readonly version: string;
  /** `NODE_OPTIONS` */
  readonly options?: string;
}

/** Those on the path, and this one, which takes itself for one. */
function oldNodes(): readonly OldNode[] {
  const version = `${NODE_MAJOR_MIN - 1}.99.0`;
  const versions = `{ value: { ...process.versions, node: "${version}" } }`;
  const pretence = `Object.defineProperty(process, "versions", ${versions})`;
  const options = `--import=data:text/javascript,${encodeURIComponent(pretence)}`;
  const nodes: OldNode[] = [{ path: process.execPath, version, options }];
  for (const folder of (process.env["PATH"] ?? "").split(delimiter)) {
    const path = join(folder, "node");
    const { stdout } = spawnSync(path, ["--version"], { encoding: "utf8" });
    const found = /^v(\d+\.\d+\.\d+)/.exec(stdout ?? "")?.[1];
    if (found === undefined || Number.parseInt(found, 10) >= NODE_MAJOR_MIN) continue;
    if (nodes.every((node) => node.version !== found)) nodes.push({ path, version: found });
  }
  return nodes;
}

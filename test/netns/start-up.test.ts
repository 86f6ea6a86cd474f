/** What stands in the way of the daemon, said in a sentence: what a namespace is needed for. */
import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type CommandOutcome, runCommand } from "../support/command.ts";
import { listenOn } from "../support/lab-application.ts";
import { type LabHost, NetnsLab, requireNetns } from "../support/netns-lab.ts";

const BROKEN_MESH = `workloads:
- uid: a
  name: 3
  workloadIps: [nonsense]
services: 5
`;

describe("a daemon that can't start says why and ends with 1:", {
  skip: requireNetns("setpriv"),
}, () => {
  const cwd = mkdtempSync(join(tmpdir(), "ztunnel-start-"));
  // Also for those who are not root.
  chmodSync(cwd, 0o755);
  const net = new NetnsLab();
  let host: LabHost;

  before(() => {
    host = net.addHost("node", { ipv4: "10.55.0.1/24" });
    writeFileSync(join(cwd, "broken.yaml"), BROKEN_MESH);
  });
  after(() => {
    net.close();
    rmSync(cwd, { recursive: true });
  });

  function start(
    environment: Readonly<Record<string, string>>,
    ...wrapper: string[]
  ): Promise<CommandOutcome> {
    return runCommand(["proxy", "ztunnel"], {
      cwd,
      environment: { INPOD_UDS: join(cwd, "agent.sock"), ...environment },
      prefix: ["nsenter", `--net=${host.path}`, "--", ...wrapper],
    });
  }

  function assertSays({ exitCode, stderr }: CommandOutcome, ...sentences: string[]): void {
    assert.deepEqual(
      stderr,
      sentences.map((sentence) => `ztunnel: ${sentence}`),
    );
    assert.equal(exitCode, 1);
  }

  test("a mesh file with mistakes, each with its line", async () => {
    assertSays(
      await start({ LOCAL_XDS_PATH: "broken.yaml" }),
      "broken.yaml:2: workloads[0]: missing key namespace",
      "broken.yaml:2: workloads[0]: missing key services",
      "broken.yaml:3: workloads[0].name: must be text, so put 3 in quotes",
      "broken.yaml:4: workloads[0].workloadIps[0]: must be an IP address, not nonsense",
      "broken.yaml:5: services: must be a list",
    );
  });

  test("a mesh in the environment with a mistake", async () => {
    assertSays(
      await start({ LOCAL_XDS: "{ workloads: 7 }" }),
      "LOCAL_XDS:1: workloads: must be a list",
    );
  });

  test("a mesh file that is not there", async () => {
    assertSays(
      await start({ LOCAL_XDS_PATH: "nowhere.yaml" }),
      "can't read nowhere.yaml: it is not there, make it or name another (ENOENT)",
    );
  });

  for (const [port, address] of [
    [15021, "[::]:15021"],
    [15000, "127.0.0.1:15000"],
    [15020, "[::]:15020"],
  ] as const) {
    test(`port ${port} is taken`, async () => {
      const squatter = listenOn(host, port, (socket) => socket.destroy());
      const outcome = await start({ LOCAL_XDS: "{}" });
      squatter.close();
      assertSays(
        outcome,
        `failed to bind to address ${address}: address already in use (os error 98)`,
      );
    });
  }

  for (const [environment, need, option] of [
    [
      { ENABLE_ORIG_SRC: "true" },
      "ENABLE_ORIG_SRC=true needs CAP_NET_ADMIN or CAP_NET_RAW to set IP_TRANSPARENT",
      "IP_TRANSPARENT (needs CAP_NET_ADMIN or CAP_NET_RAW)",
    ],
    [
      { PACKET_MARK: "7" },
      "PACKET_MARK=7 needs CAP_NET_ADMIN to set SO_MARK",
      "SO_MARK (needs CAP_NET_ADMIN)",
    ],
  ] as const) {
    test(`a dedicated proxy with ${Object.keys(environment)} and without the privilege`, async () => {
      const dedicated = { PROXY_MODE: "dedicated", PROXY_WORKLOAD_INFO: "shop/web-1/web" };
      const outcome = await runCommand(["proxy"], {
        cwd,
        environment: { LOCAL_XDS: "{}", ...dedicated, ...environment },
        prefix: [
          ...["nsenter", `--net=${host.path}`, "--"],
          ...["setpriv", "--bounding-set=-net_admin,-net_raw", "--inh-caps=-net_admin,-net_raw"],
        ],
      });
      assertSays(outcome, `${need}: EPERM: operation not permitted, setsockopt ${option}`);
    });
  }

  for (const [title, wrapper, capability, what] of [
    [
      "nobody in particular",
      ["setpriv", "--reuid=nobody", "--clear-groups", "--inh-caps=-all"],
      "CAP_SYS_ADMIN",
      "enter network namespaces",
    ],
    [
      "root without CAP_SYS_ADMIN",
      ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"],
      "CAP_SYS_ADMIN",
      "enter network namespaces",
    ],
    [
      "root without CAP_NET_ADMIN and CAP_NET_RAW",
      ["setpriv", "--bounding-set=-net_admin,-net_raw", "--inh-caps=-net_admin,-net_raw"],
      "CAP_NET_ADMIN and CAP_NET_RAW",
      "set SO_MARK",
    ],
  ] as const) {
    test(`started by ${title}`, async () => {
      const { exitCode, stderr } = await start({ LOCAL_XDS: "{}" }, ...wrapper);
      assert.equal(stderr.length, 1, stderr.join("\n"));
      const expected = `ztunnel: shared mode needs ${capability} to ${what}: EPERM: operation not permitted, `;
      assert.equal(stderr[0]?.slice(0, expected.length), expected);
      assert.equal(exitCode, 1);
    });
  }
});

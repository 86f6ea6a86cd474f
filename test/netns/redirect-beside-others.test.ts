/**
 * Captured connections through real daemons, with each tool's rules and beside what other parts of a
 * cluster leave in pods and on the node.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { parseJsonLine } from "../support/access-line.ts";
import { type LabServer, listenEcho, socketOf } from "../support/lab-application.ts";
import type { MeshLab } from "../support/mesh-lab.ts";
import { requireNetns } from "../support/netns-lab.ts";
import { ADDRESS, APP_PORT, echoOnce, IPV6_ADDRESS, startTwoNodes } from "../support/two-nodes.ts";
import { waitUntil } from "../support/wait-until.ts";

const skip = requireNetns("iptables-nft", "iptables-legacy", "nft", "ss");

/** What the portmap plugin and a masquerading one leave in a namespace. */
const CNI_CHAINS = (iptables: string): string => `
  ${iptables} -t nat -N CNI-HOSTPORT-SETMARK
  ${iptables} -t nat -A CNI-HOSTPORT-SETMARK -j MARK --set-xmark 0x2000/0x2000
  ${iptables} -t nat -N CNI-HOSTPORT-MASQ
  ${iptables} -t nat -A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
  ${iptables} -t nat -N CNI-HOSTPORT-DNAT
  ${iptables} -t nat -A CNI-HOSTPORT-DNAT -p tcp --dport 8443 -j CNI-HOSTPORT-SETMARK
  ${iptables} -t nat -A CNI-HOSTPORT-DNAT -p tcp --dport 8443 -j DNAT --to-destination 127.0.0.1:${APP_PORT}
  ${iptables} -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
  ${iptables} -t nat -A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
  ${iptables} -t nat -A POSTROUTING -j CNI-HOSTPORT-MASQ
  ${iptables} -t nat -A POSTROUTING -o eth0 -j MASQUERADE
  ${iptables} -t mangle -A OUTPUT -j MARK --set-xmark 0x10000/0x10000`;

/** A Service of which the mesh knows nothing, as kube-proxy in nftables mode has it on the node. */
const UNKNOWN_VIP = "10.97.0.10";
const KUBE_PROXY = `
nft -f - <<'RULES'
table ip kube-proxy {
  chain services { ip daddr ${UNKNOWN_VIP} tcp dport 80 jump service-echo; }
  chain service-echo { meta mark set meta mark | 0x4000 meta l4proto tcp dnat to ${ADDRESS.server}:${APP_PORT}; }
  chain nat-prerouting { type nat hook prerouting priority dstnat; policy accept; jump services; }
  chain nat-output { type nat hook output priority -100; policy accept; jump services; }
  chain nat-postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    meta mark & 0x4000 == 0x4000 masquerade
  }
}
RULES`;

const LABS = [
  {
    name: "rules of nft, chains of other plugins made by iptables-nft",
    pods: {
      client: { rules: "nftables" },
      server: { rules: "nftables", prepare: CNI_CHAINS("iptables-nft") },
      friend: { prepare: "echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6", ipv6: "fd66::12" },
    },
  },
  {
    name: "rules of iptables-legacy, a client without a default route",
    pods: {
      client: { rules: "iptables-legacy", prepare: "ip route del default" },
      // Nobody says so: it is the kind that is in use there.
      server: { prepare: CNI_CHAINS("iptables-legacy") },
      friend: {
        rules: "nftables",
        prepare: "echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6",
        ipv6: "fd66::12",
      },
    },
  },
] as const;
const identity = (account: string): string => `"spiffe://cluster.local/ns/default/sa/${account}"`;
const OUTSIDE_IPV6 = "fd66::33";

for (const { name, pods } of LABS) {
  describe(`captured beside others: ${name}`, { skip }, () => {
    let lab: MeshLab;
    let echo: LabServer;
    let outside: LabServer;

    before(async () => {
      lab = await startTwoNodes({ pods });
      lab.net.exec(lab.host("gateway"), "sh", "-ec", KUBE_PROXY);
      lab.net.exec(
        lab.host("outside"),
        "ip",
        "addr",
        "add",
        `${OUTSIDE_IPV6}/64`,
        "dev",
        "eth0",
        "nodad",
      );
      echo = listenEcho(lab.host("server"), APP_PORT);
      outside = listenEcho(lab.host("outside"), APP_PORT);
    });
    after(async () => {
      echo?.close();
      outside?.close();
      await lab?.close();
    });

    /** @returns the address that the server's application saw, and who the server's proxy says it is. */
    async function seenFrom(from: string, ip: string, port = APP_PORT): Promise<string[]> {
      const before = arrivals().length;
      await echoOnce(lab, from, ip, port);
      const peer = echo.peers.at(-1) ?? "";
      await waitUntil(() => arrivals().length > before, `${from} to ${ip} met no proxy`);
      const { identity } = arrivals().at(-1) ?? {};
      return [peer.slice(0, peer.lastIndexOf(":")), identity ?? "nobody"];
    }

    function arrivals(): { identity: string | undefined }[] {
      return lab
        .node("node-b")
        .lines.filter((line) => line.includes('"connection complete"'))
        .map((line) => {
          const fields = new Map(parseJsonLine(line).fields);
          return { identity: fields.get("src.identity") };
        });
    }

    test("a tunnel, and the application sees the caller", async () => {
      assert.deepEqual(await seenFrom("client", ADDRESS.server), [
        ADDRESS.client,
        identity("client"),
      ]);
    });

    test("a tunnel over IPv6", async () => {
      assert.deepEqual(await seenFrom("client", IPV6_ADDRESS.server), [
        IPV6_ADDRESS.client,
        identity("client"),
      ]);
    });

    test("plaintext from outside", async () => {
      assert.deepEqual(await seenFrom("outside", ADDRESS.server), [ADDRESS.outside, "nobody"]);
    });

    test("a Service that only kube-proxy knows, in nftables mode on the node", async () => {
      // Through the gateway, as which it then arrives.
      assert.deepEqual(await seenFrom("friend", UNKNOWN_VIP, 80), ["10.66.0.1", "nobody"]);
    });

    test("where IPv6 is off on loopback, nobody is reached over it, and IPv4 goes through tunnels", async () => {
      const attempt = socketOf(lab.host("friend"), "ipv6");
      let isConnected = false;
      attempt.on("error", () => {});
      attempt.connect({ host: OUTSIDE_IPV6, port: APP_PORT }, () => {
        isConnected = true;
      });
      assert.deepEqual(await seenFrom("friend", ADDRESS.server), [
        ADDRESS.friend,
        identity("friend"),
      ]);
      // The kernel tries the first one on and on, towards an address that is not there.
      assert.match(
        lab.net.exec(lab.host("friend"), "ss", "-tnH", "state", "syn-sent"),
        /\[fd66::33\]:8080/,
      );
      attempt.destroy();
      assert.equal(isConnected, false);
      assert.deepEqual(outside.peers, []);
    });
  });
}

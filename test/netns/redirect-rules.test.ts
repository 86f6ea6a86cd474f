import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { installRedirect, removeRedirect } from "../../src/embedded/redirect-rules.ts";
import { Netns } from "../../src/net/netns.ts";
import { type LabHost, NetnsLab, requireNetns } from "../support/netns-lab.ts";
import { waitUntil } from "../support/wait-until.ts";

const skip = requireNetns("iptables-nft-save", "ip6tables-legacy-save", "nft");
const PLAIN = { dnsCapture: false, inboundCapture: true };
const ALL = { dnsCapture: true, inboundCapture: true };
const KINDS = ["iptables-nft", "iptables-legacy"] as const;
const BACKENDS = [...KINDS, "nftables"] as const;

interface Bench {
  readonly netns: Netns;
  /** Runs a line of shell words in the namespace. @returns stdout. */
  run(line: string): string;
}

async function startLab(t: TestContext): Promise<Bench> {
  const lab = new NetnsLab();
  t.after(() => lab.close());
  const host: LabHost = lab.addHost("pod", { ipv4: "10.77.0.1/24", ipv6: "fd77::1/64" });
  const netns = Netns.open(host.path);
  t.after(() => netns.close());
  const run = (line: string): string => lab.exec(host, "sh", "-c", line);
  // The kernel adds these some time after the link is up.
  await waitUntil(
    () => /^fd77::\/64 [\s\S]*^multicast ff00::\/8/m.test(run("ip -6 route show table all")),
    "the link has no routes",
  );
  return { netns, run };
}

/** Rules of every kind, policy rules and routes as text; tables without a rule say nothing. */
function picture({ run }: Bench): string {
  const saves = ["iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"];
  const tables = saves.flatMap((name) =>
    [...run(`${name}-save 2>/dev/null`).matchAll(/^\*[\s\S]*?^COMMIT$/gm)]
      .map((table) => `${name}\n${table[0].replace(/\[\d+:\d+\]/g, "")}`)
      .filter((table) => /^-A|^:\S+ -/m.test(table)),
  );
  const ours = run("nft list ruleset inet");
  // Without the link's own addresses, whose routes the kernel adds some time after the link is up.
  const routes = [4, 6].map((ip) =>
    run(`ip -${ip} rule; ip -${ip} route show table all`).replace(/^.*fe80::.*\n/gm, ""),
  );
  return [...tables, ours, ...routes].join("\n");
}

for (const [kind, ipv4] of KINDS.flatMap((kind) => [
  [kind, true] as const,
  [kind, false] as const,
])) {
  const tool = ipv4 ? kind : kind.replace("ip", "ip6");
  test(`rules installed by ${tool} are there as specified`, { skip }, async (t) => {
    const bench = await startLab(t);
    assert.deepEqual(await installRedirect(bench.netns.fd, ALL, kind), {
      backend: kind,
      ipv6: "captured",
    });
    const [loopback, probe] = ipv4
      ? ["127.0.0.1/32", "169.254.7.127/32"]
      : ["::1/128", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff/128"];
    const tables = new Map<string, string[]>();
    let table: string[] = [];
    for (const rule of bench.run(`${tool}-save`).matchAll(/^(?:-A|\*).*$/gm)) {
      if (rule[0].startsWith("*")) {
        table = [];
        tables.set(rule[0].slice(1), table);
      } else table.push(rule[0].replace(" -m tcp", "").replace(" -m udp", ""));
    }
    assert.deepEqual(tables.get("nat"), [
      "-A PREROUTING -j ISTIO_PRERT",
      "-A OUTPUT -j ISTIO_OUTPUT",
      `-A ISTIO_OUTPUT -d ${probe} -p tcp -j ACCEPT`,
      "-A ISTIO_OUTPUT ! -o lo -p udp --dport 53 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15053",
      `-A ISTIO_OUTPUT ! -d ${loopback} -p tcp --dport 53 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15053`,
      "-A ISTIO_OUTPUT -p tcp -m mark --mark 0x111/0xfff -j ACCEPT",
      `-A ISTIO_OUTPUT ! -d ${loopback} -o lo -j ACCEPT`,
      `-A ISTIO_OUTPUT ! -d ${loopback} -p tcp -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15001`,
      `-A ISTIO_PRERT -s ${probe} -p tcp -j ACCEPT`,
      `-A ISTIO_PRERT ! -d ${loopback} -p tcp ! --dport 15008 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15006`,
    ]);
    assert.deepEqual(tables.get("mangle"), [
      "-A PREROUTING -j ISTIO_PRERT",
      "-A OUTPUT -j ISTIO_OUTPUT",
      "-A ISTIO_OUTPUT -m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff",
      "-A ISTIO_PRERT -m mark --mark 0x539/0xfff -j CONNMARK --set-xmark 0x111/0xfff",
    ]);
    assert.deepEqual(tables.get("raw"), [
      "-A PREROUTING -j ISTIO_PRERT",
      "-A OUTPUT -j ISTIO_OUTPUT",
      "-A ISTIO_OUTPUT -p udp --dport 53 -m mark --mark 0x539/0xfff -j CT --zone 1",
      "-A ISTIO_PRERT -p udp --sport 53 -m mark ! --mark 0x539/0xfff -j CT --zone 1",
    ]);
    assertRouted(bench, ipv4 ? 4 : 6);
  });
}

test("rules installed by nft are in tables of their own, for both families", {
  skip,
}, async (t) => {
  const bench = await startLab(t);
  assert.deepEqual(await installRedirect(bench.netns.fd, ALL, "nftables"), {
    backend: "nftables",
    ipv6: "captured",
  });
  assert.equal(
    bench.run("nft list tables"),
    "table inet istio-ambient-raw\ntable inet istio-ambient-mangle\ntable inet istio-ambient-nat\n",
  );
  const nat = bench.run("nft list table inet istio-ambient-nat");
  // In nft's own words, whatever words it was told.
  assert.match(
    nat,
    /ip6 daddr != ::1 tcp dport != 15008 meta mark & 0x00000fff != 0x00000539 redirect to :15006/,
  );
  assert.match(nat, /type nat hook output priority (-100|dstnat); policy accept;/);
  assertRouted(bench, 4);
  assertRouted(bench, 6);
});

function assertRouted({ run }: Bench, family: 4 | 6): void {
  assert.match(run(`ip -${family} rule`), /^32764:\s+from all fwmark 0x111\/0xfff lookup 100/m);
  assert.match(run(`ip -${family} route show table 100`), /^local default dev lo/);
}

for (const backend of BACKENDS) {
  test(`without DNS capture no rule of ${backend} names port 53`, { skip }, async (t) => {
    const bench = await startLab(t);
    await installRedirect(bench.netns.fd, PLAIN, backend);
    assert.doesNotMatch(picture(bench), /port 53|\braw\b/);
  });

  test(`removal of ${backend} leaves exactly what was there before, foreign rules included`, {
    skip,
  }, async (t) => {
    const bench = await startLab(t);
    bench.run(`
      for kind in nft legacy; do
        iptables-$kind -t nat -N CNI-HOSTPORT-DNAT
        iptables-$kind -t nat -A OUTPUT -p tcp --dport 9 -j CNI-HOSTPORT-DNAT
        iptables-$kind -t mangle -A PREROUTING -j MARK --set-mark 7
        ip6tables-$kind -A INPUT -p tcp --dport 9 -j DROP
      done
      nft add table inet filters
      nft 'add chain inet filters input { type filter hook input priority 0; }'
      ip rule add fwmark 0x7 lookup 100 pref 100
      ip rule add fwmark 0x7 lookup 101 pref 32764
      ip route add 10.9.0.0/16 dev eth0 table 100`);
    const before = picture(bench);
    await installRedirect(bench.netns.fd, ALL, backend);
    assert.notEqual(picture(bench), before);
    await removeRedirect(bench.netns.fd);
    assert.equal(picture(bench), before);
    await removeRedirect(bench.netns.fd);
    assert.equal(picture(bench), before);
  });

  test(`installing by ${backend} again replaces all rules, of whatever tool`, {
    skip,
  }, async (t) => {
    const bench = await startLab(t);
    await installRedirect(bench.netns.fd, PLAIN, backend);
    const once = picture(bench);
    for (const other of BACKENDS) await installRedirect(bench.netns.fd, ALL, other);
    await installRedirect(bench.netns.fd, PLAIN, backend);
    assert.equal(picture(bench), once);
  });

  test(`an installation by ${backend} that fails half-way leaves nothing of ours`, {
    skip,
  }, async (t) => {
    const bench = await startLab(t);
    // The route that the last step adds is taken.
    bench.run("ip route add unreachable 0.0.0.0/0 table 100");
    await assert.rejects(
      installRedirect(bench.netns.fd, PLAIN, backend),
      /^Error: ip -4 -batch -: .*File exists/s,
    );
    assert.doesNotMatch(picture(bench), /ISTIO|istio|fwmark/);
  });

  test(`where IPv6 is off on loopback, ${backend} installs its rules, but no route`, {
    skip,
  }, async (t) => {
    const bench = await startLab(t);
    bench.run("echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6");
    assert.deepEqual(await installRedirect(bench.netns.fd, PLAIN, backend), {
      backend,
      ipv6: "off-on-lo",
    });
    assert.match(picture(bench), /! -d ::1\/128|ip6 daddr != ::1/);
    assert.equal(bench.run("ip -6 route show table 100 2>/dev/null || true"), "");
    await removeRedirect(bench.netns.fd);
    assert.doesNotMatch(picture(bench), /ISTIO|istio|fwmark/);
  });
}

for (const kind of KINDS) {
  test(`left to itself, it joins the rules that another has made by ${kind}`, {
    skip,
  }, async (t) => {
    const bench = await startLab(t);
    bench.run(`${kind} -t nat -A OUTPUT -p tcp --dport 9 -j ACCEPT`);
    const { backend } = await installRedirect(bench.netns.fd, PLAIN);
    assert.equal(backend, kind);
  });
}

test("a nat table that nft has made is no obstacle", { skip }, async (t) => {
  const bench = await startLab(t);
  bench.run(`
    nft add table ip nat
    nft 'add chain ip nat PREROUTING { type nat hook prerouting priority -100; }'
    nft add rule ip nat PREROUTING numgen inc mod 2 vmap '{ 0 : accept }'`);
  const before = picture(bench);
  await assert.rejects(
    installRedirect(bench.netns.fd, PLAIN, "iptables-nft"),
    /^Error: iptables-nft can't install redirect rules: iptables-nft-save: Table `nat' is incompatible$/,
  );
  assert.equal(picture(bench), before);
  const { backend } = await installRedirect(bench.netns.fd, PLAIN);
  assert.notEqual(backend, "iptables-nft");
  assertRouted(bench, 4);
  await removeRedirect(bench.netns.fd);
  assert.equal(picture(bench), before);
});

test("a namespace whose loopback is down is refused with the remedy", { skip }, async (t) => {
  const bench = await startLab(t);
  bench.run("ip link set lo down");
  await assert.rejects(installRedirect(bench.netns.fd, PLAIN), /ip link set lo up/);
  assert.doesNotMatch(picture(bench), /ISTIO/);
});

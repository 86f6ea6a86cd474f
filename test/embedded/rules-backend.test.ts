import assert from "node:assert/strict";
import { test } from "node:test";
import type {
  IptablesName,
  RedirectSurvey,
  SurveyAnswer,
} from "../../src/embedded/redirect-survey.ts";
import { chooseBackend } from "../../src/embedded/rules-backend.ts";

const MISSING: SurveyAnswer = { status: 127, text: "sh: 1: not found\n" };
const EMPTY: SurveyAnswer = { status: 0, text: "" };
const CNI: SurveyAnswer = { status: 0, text: "*nat\n:CNI - [0:0]\n-A OUTPUT -j CNI\nCOMMIT\n" };
const FOREIGN: SurveyAnswer = {
  status: 0,
  text: "# Table `nat' is incompatible, use 'nft' tool.\n",
};

/** The same for both families, unless an answer for IPv6 is given too. */
function survey(
  saved: Partial<Record<IptablesName, SurveyAnswer | readonly [SurveyAnswer, SurveyAnswer]>>,
  more: Partial<RedirectSurvey> = {},
): RedirectSurvey {
  const both = (name: IptablesName): Record<4 | 6, SurveyAnswer> => {
    const answer = saved[name] ?? MISSING;
    return "status" in answer ? { 4: answer, 6: answer } : { 4: answer[0], 6: answer[1] };
  };
  return {
    isLoopbackUp: true,
    ipv6: "on",
    ipv6Address: undefined,
    saved: {
      "iptables-nft": both("iptables-nft"),
      "iptables-legacy": both("iptables-legacy"),
      iptables: both("iptables"),
    },
    nftTables: MISSING,
    policyRules: { 4: "", 6: "" },
    routes: { 4: "", 6: "" },
    ...more,
  };
}

const ALL = { "iptables-nft": EMPTY, "iptables-legacy": EMPTY, iptables: EMPTY };

for (const { what, has, backend } of [
  { what: "all kinds, no rules: the machine's iptables", has: survey(ALL), backend: "iptables" },
  {
    what: "rules of iptables-nft",
    has: survey({ ...ALL, "iptables-nft": CNI }),
    backend: "iptables-nft",
  },
  {
    what: "rules of iptables-legacy",
    has: survey({ ...ALL, "iptables-legacy": CNI }),
    backend: "iptables-legacy",
  },
  {
    what: "rules of iptables-legacy in IPv6 only",
    has: survey({ ...ALL, "iptables-legacy": [EMPTY, CNI] }),
    backend: "iptables-legacy",
  },
  {
    what: "rules of both kinds",
    has: survey({ ...ALL, "iptables-nft": CNI, "iptables-legacy": CNI }),
    backend: "iptables-nft",
  },
  { what: "iptables without its kinds", has: survey({ iptables: CNI }), backend: "iptables" },
  {
    what: "a kind without a default",
    has: survey({ "iptables-legacy": EMPTY }),
    backend: "iptables-legacy",
  },
  { what: "nft only", has: survey({}, { nftTables: EMPTY }), backend: "nftables" },
  {
    what: "no ip6tables, but nft",
    has: survey({ iptables: [EMPTY, MISSING] }, { nftTables: EMPTY }),
    backend: "nftables",
  },
  {
    what: "no ip6tables in a namespace that has no IPv6",
    has: survey({ iptables: [EMPTY, MISSING] }, { ipv6: "absent", nftTables: EMPTY }),
    backend: "iptables",
  },
  {
    what: "no ip6tables, no nft and no IPv6 address",
    has: survey({ iptables: [EMPTY, MISSING] }),
    backend: "iptables",
  },
  {
    what: "tables that nft made and iptables-nft can't read",
    has: survey({ ...ALL, "iptables-nft": FOREIGN, iptables: FOREIGN }, { nftTables: EMPTY }),
    backend: "iptables-legacy",
  },
] as const) {
  test(`with ${what}, ${backend} installs the rules`, () => {
    assert.equal(chooseBackend(has, "auto"), backend);
  });
}

test("what was asked for is taken, whatever there is", () => {
  assert.equal(chooseBackend(survey(ALL), "nftables"), "nftables");
});

test("with nothing that works, every reason is told once", () => {
  assert.throws(
    () =>
      chooseBackend(
        survey(
          { "iptables-nft": FOREIGN, iptables: [EMPTY, MISSING] },
          { ipv6Address: "fd77::1/64" },
        ),
        "auto",
      ),
    {
      message:
        "nothing can install redirect rules: iptables-nft-save: Table `nat' is incompatible, " +
        "iptables-legacy-save is not installed, ip6tables-save is not installed, " +
        "nft is not installed (apt-get install iptables or nftables)",
    },
  );
});

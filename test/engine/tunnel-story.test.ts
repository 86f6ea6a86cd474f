import assert from "node:assert/strict";
import { test } from "node:test";
import { EngineError } from "../../src/engine/engine-error.ts";
import { TunnelStory } from "../../src/engine/tunnel-story.ts";

const broken = new EngineError("protocol", "bad frame");
const late = new EngineError("ping-timeout", "HBONE ping timeout");

const STORIES: readonly {
  readonly title: string;
  readonly tell: (story: TunnelStory) => void;
  /** What the holder of a client and of a server is told; `undefined`: it was an orderly end. */
  readonly outcome: string | undefined;
  readonly streams: string | undefined;
}[] = [
  {
    title: "a peer that says goodbye leaves in order",
    tell(story) {
      story.saidGoodbye();
      story.left(true);
    },
    outcome: undefined,
    streams: undefined,
  },
  {
    title: "a peer without open streams need not say goodbye to us who close",
    tell(story) {
      story.closing();
      story.left(false);
    },
    outcome: undefined,
    streams: "reset",
  },
  {
    title: "a peer that vanishes resets what was open",
    tell: (story) => story.left(true),
    outcome: "tunnel-closed",
    streams: "reset",
  },
  {
    title: "what goes wrong first is the reason",
    tell(story) {
      story.broke(broken);
      story.broke(late);
      story.saidGoodbye();
    },
    outcome: "protocol",
    streams: "reset",
  },
  {
    title: "what this process destroys has not failed",
    tell(story) {
      story.broke(broken);
      story.destroyed();
    },
    outcome: undefined,
    streams: "stopped",
  },
];
for (const { title, tell, outcome, streams } of STORIES) {
  test(title, () => {
    for (const role of ["client", "server"] as const) {
      const story = new TunnelStory(role);
      story.settled();
      tell(story);
      assert.equal(story.outcome()?.code, outcome, role);
      assert.equal(story.streamFailure()?.kind, streams, role);
    }
  });
}

test("an alert is a refusal until the peer has begun HTTP/2, and a break after that", () => {
  const alert = { kind: "alert", alert: 46, reason: "tlsv1 alert certificate unknown" } as const;
  const told = (role: "client" | "server", isSettled: boolean): string | undefined => {
    const story = new TunnelStory(role);
    if (isSettled) story.settled();
    story.failed(alert);
    return story.outcome()?.code;
  };
  assert.equal(told("server", false), "handshake");
  assert.equal(told("server", true), "tunnel-closed");
  assert.equal(told("client", false), "tunnel-closed");
});

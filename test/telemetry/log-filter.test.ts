import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { LogFilter } from "../../src/telemetry/log-filter.ts";

const decisions: readonly {
  readonly filter: string;
  readonly target: string;
  readonly threshold: string;
}[] = [
  { filter: "info", target: "ztunnel::proxy::outbound", threshold: "info" },
  { filter: "WARN", target: "access", threshold: "warn" },
  { filter: "0", target: "access", threshold: "off" },
  { filter: "5", target: "access", threshold: "trace" },
  { filter: "access=debug", target: "access", threshold: "debug" },
  { filter: "access=debug", target: "ztunnel::app", threshold: "off" },
  { filter: "access", target: "access", threshold: "trace" },
  { filter: "info,access=off", target: "access", threshold: "off" },
  { filter: "info,ztunnel::dns=debug", target: "ztunnel::dns::server", threshold: "debug" },
  { filter: "info,ztunnel=warn,ztunnel::dns=debug", target: "ztunnel::dns", threshold: "debug" },
  { filter: "ztunnel::dns=debug,ztunnel=warn,info", target: "ztunnel::app", threshold: "warn" },
  { filter: "info, access=debug", target: "access", threshold: "debug" },
  { filter: "info,debug", target: "access", threshold: "debug" },
];

for (const { filter, target, threshold } of decisions) {
  test(`the filter '${filter}' lets ${threshold} through for ${target}`, () => {
    assert.equal(LogFilter.parse(filter).threshold(target), threshold);
  });
}

const prints: readonly (readonly [string, string])[] = [
  ["info", "info"],
  ["access=debug,debug", "access=debug,debug"],
  ["debug,access=debug,ztunnel::dns=trace", "ztunnel::dns=trace,access=debug,debug"],
  ["ztunnel::dns", "ztunnel::dns=trace"],
  ["INFO,ACCESS=Debug", "ACCESS=debug,info"],
  ["a=info,b=warn", "b=warn,a=info"],
  ["access=info,access=debug", "access=debug"],
];

for (const [text, printed] of prints) {
  test(`the filter '${text}' is printed '${printed}' and reads back the same`, () => {
    assert.equal(LogFilter.parse(text).format(), printed);
    assert.equal(LogFilter.parse(printed).format(), printed);
  });
}

test("further directives join a filter and win over earlier ones of the same target", () => {
  const filter = LogFilter.parse("info,access=debug").with("ztunnel::dns=trace,access=off");
  assert.equal(filter.format(), "ztunnel::dns=trace,access=off,info");
  assert.equal(filter.with("off").format(), "ztunnel::dns=trace,access=off,off");
});

const mistakes: readonly (readonly [string, string])[] = [
  ["a=b=c", "too many '=' in filter directive, expected 0 or 1"],
  ["", "empty filter directive"],
  ["info,", "empty filter directive"],
  [
    "access=loud",
    "invalid filter directive 'access=loud', expected target=off|error|warn|info|debug|trace",
  ],
  [
    "access=",
    "invalid filter directive 'access=', expected target=off|error|warn|info|debug|trace",
  ],
  ["=info", "invalid filter directive '=info', expected target=off|error|warn|info|debug|trace"],
  ["access[outbound]=debug", "'access[outbound]' is no target, spans can't be filtered"],
];

for (const [text, message] of mistakes) {
  test(`the filter '${text}' is refused`, () => {
    assert.throws(() => LogFilter.parse(text), {
      name: "TelemetryError",
      code: "log-filter",
      message,
    });
  });
}

test("any text is a filter that prints and reads back the same, or is refused with a reason", () => {
  const text = fc.oneof(
    fc.string(),
    fc
      .array(fc.constantFrom("info", "off", "3", "a", "a::b", "=", ",", "TRACE"))
      .map((parts) => parts.join("")),
  );
  fc.assert(
    fc.property(text, fc.constantFrom("a", "a::b::c", "access"), (candidate, target) => {
      let filter: LogFilter;
      try {
        filter = LogFilter.parse(candidate);
      } catch (error) {
        assert.equal((error as { code?: unknown }).code, "log-filter");
        return;
      }
      const again = LogFilter.parse(filter.format());
      assert.equal(again.format(), filter.format());
      assert.equal(again.threshold(target), filter.threshold(target));
    }),
  );
});

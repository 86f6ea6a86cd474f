import assert from "node:assert/strict";
import { openSync } from "node:fs";
import { test } from "node:test";
import type { Native, NativeSocketOptions } from "../../src/net/native.ts";
import { checkSharedModePrivileges } from "../../src/net/privileges.ts";

const CASES: [name: string, refused: keyof NativeSocketOptions, message: string][] = [
  [
    "entering a namespace",
    "netnsFd",
    "shared mode needs CAP_SYS_ADMIN to enter network namespaces: EPERM: mine",
  ],
  [
    "setting a mark",
    "mark",
    "shared mode needs CAP_NET_ADMIN and CAP_NET_RAW to set SO_MARK: EPERM: mine",
  ],
];

for (const [name, refused, message] of CASES) {
  test(`a process that is refused ${name} is told what it lacks`, () => {
    assert.throws(() => checkSharedModePrivileges(nativeThatRefuses(refused)), {
      name: "NetError",
      code: "missing-capability",
      message,
    });
  });
}

function nativeThatRefuses(refused: keyof NativeSocketOptions): Pick<Native, "socketInNamespace"> {
  return {
    socketInNamespace(options) {
      if (refused in options) throw Object.assign(new Error("EPERM: mine"), { code: "EPERM" });
      return { fd: openSync("/dev/null", "r"), transparent: false };
    },
  };
}

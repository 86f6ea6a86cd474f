import assert from "node:assert/strict";
import { openSync } from "node:fs";
import { test } from "node:test";
import type { Native, NativeSocketOptions } from "../../src/net/native.ts";
import {
  checkDedicatedModePrivileges,
  checkSharedModePrivileges,
} from "../../src/net/privileges.ts";

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

const OWN_CASES: [refused: keyof NativeSocketOptions, message: string][] = [
  [
    "transparent",
    "ENABLE_ORIG_SRC=true needs CAP_NET_ADMIN or CAP_NET_RAW to set IP_TRANSPARENT: EPERM: mine",
  ],
  ["mark", "PACKET_MARK=7 needs CAP_NET_ADMIN to set SO_MARK: EPERM: mine"],
];

for (const [refused, message] of OWN_CASES) {
  test(`a dedicated proxy that is refused ${refused} names who wants it`, () => {
    const native = nativeThatRefuses(refused);
    const wanted = { mark: 7, originalSource: true };
    assert.throws(() => checkDedicatedModePrivileges(native, wanted), {
      name: "NetError",
      code: "missing-capability",
      message,
    });
    checkDedicatedModePrivileges(native, { mark: undefined, originalSource: false });
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

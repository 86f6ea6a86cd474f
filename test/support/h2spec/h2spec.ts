/**
 * h2spec, the conformance testing tool for HTTP/2 servers, built from the versions of `go.mod` by
 * `.ci/run`. The binary comes from the environment variable H2SPEC or from PATH.
 */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { missingTool } from "../missing-tool.ts";

export interface H2specReport {
  readonly passedCount: number;
  /** `section: title`, such as `http2/6.5: Sends a SETTINGS frame with ACK flag and payload`. */
  readonly failed: readonly string[];
}

/** How long a case waits for an answer, seconds; one that none comes to waits as long. */
const TIMEOUT_S = "4";
/** In the order of h2spec; side by side, since what waits is idle. */
const SECTIONS: readonly string[] = [
  ...["generic", "http2/3", "http2/4", "http2/5.1", "http2/5.3", "http2/5.4", "http2/5.5"],
  ...["http2/6", "http2/7", "http2/8", "hpack"],
];

function binary(): string {
  return process.env["H2SPEC"] ?? "h2spec";
}

/**
 * For the `skip` option of tests that need h2spec.
 *
 * @returns why they can't run here, or false.
 * @throws in CI, where such tests must not pass by skipping.
 */
export function requireH2spec(): string | false {
  try {
    execFileSync(binary(), ["--version"], { stdio: "ignore" });
    return false;
  } catch {
    return missingTool(`needs ${binary()}: go build in test/support/h2spec, in H2SPEC or PATH`);
  }
}

/** Runs all cases, also the strict ones, against a server on loopback that speaks plain HTTP/2. */
export async function runH2spec(port: number): Promise<H2specReport> {
  const folder = mkdtempSync(join(tmpdir(), "h2spec-"));
  try {
    const reports = await Promise.all(
      SECTIONS.map(async (section, i) => {
        const file = join(folder, `${i}.xml`);
        const args = [section, "-p", String(port), "-o", TIMEOUT_S, "--strict", "-j", file];
        const child = spawn(binary(), args, { stdio: "ignore" });
        await once(child, "exit");
        return parseReport(readFileSync(file, "utf8"));
      }),
    );
    return {
      passedCount: reports.reduce((sum, { passedCount }) => sum + passedCount, 0),
      failed: reports.flatMap(({ failed }) => failed),
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Of JUnit's XML, as far as h2spec writes it. */
function parseReport(xml: string): H2specReport {
  let passedCount = 0;
  const failed: string[] = [];
  for (const [, section, title, rest = ""] of xml.matchAll(
    /<testcase package="([^"]*)" classname="([^"]*)" time="[^"]*">(.*?)<\/testcase>/gs,
  )) {
    if (rest.includes("<error>")) failed.push(`${section}: ${title?.replaceAll("&#34;", '"')}`);
    else if (!rest.includes("<skipped>")) passedCount += 1;
  }
  return { passedCount, failed };
}

/** Port 15000, on the loopback addresses only: what an operator may see and poke. */
import { formatTimestamp } from "../runtime/timestamp.ts";
import type { ThreadOutlier } from "../state/endpoint-outliers.ts";
import { AdminError } from "./admin-error.ts";
import type { DrainReport } from "./drain-report.ts";
import {
  type HttpAnswer,
  HttpListener,
  type HttpListenerDeps,
  type HttpListenerOptions,
  type HttpQuestion,
} from "./http-listener.ts";
import { formatJson } from "./json-text.ts";
import { type AdjustableLog, answerLogging } from "./logging-page.ts";
import { ProfilePages, type Profiler } from "./profile-pages.ts";
import type { SocketReport } from "./socket-report.ts";
import type { WhyQuestion, WhyReport } from "./why-report.ts";

export interface AdminServerDeps extends Omit<HttpListenerDeps, "answer"> {
  /** JSON text of `/config_dump`. */
  readonly configDump: () => AsyncIterable<string>;
  readonly drain: () => Promise<DrainReport>;
  readonly why: (question: WhyQuestion) => Promise<WhyReport>;
  readonly outliers: () => readonly ThreadOutlier[];
  readonly sockets: () => SocketReport;
  readonly profiler: Profiler;
  readonly logging: AdjustableLog;
  /** Called once the answer of `/quitquitquit` has been sent. */
  readonly quit: () => void;
}

export interface AdminServerOptions extends Omit<HttpListenerOptions, "component"> {
  /** What `/logging?reset` goes back to. */
  readonly defaultLogFilter: string;
}

const PAGES: readonly (readonly [path: string, what: string])[] = [
  [
    "config_dump",
    "everything known: mesh, certificates, pods and their connections, configuration",
  ],
  ["debug/sockets", "TCP sockets of each pod by state, and its UDP, as last looked at"],
  ["debug/why", "explain a connection (source=, destination=, and with POST connect=true)"],
  ["debug/outliers", "endpoints that are left out because connects to them fail"],
  ["debug/pprof/profile", "CPU profile (seconds=10, frequency=100, thread=all of them)"],
  ["debug/pprof/heap", "profile of what is on the heap since sampling was activated"],
  [
    "debug/pprof/heap/profiling",
    "show or change whether the heap is sampled (activate=true|false)",
  ],
  ["drain", "whether the proxy is ending, and which connections it waits for"],
  ["logging", "show or change log levels (POST)"],
  ["quitquitquit", "shut the proxy down (POST)"],
];

/** @throws AdminError `bind` */
export function listenAdmin(
  deps: AdminServerDeps,
  options: AdminServerOptions,
): Promise<HttpListener> {
  const profiles = new ProfilePages(deps.profiler);
  const answer = (question: HttpQuestion): HttpAnswer | Promise<HttpAnswer> =>
    profiles.answer(question) ?? answerAdmin(question, deps, options);
  return HttpListener.listen({ ...deps, answer }, { ...options, component: "admin" });
}

function answerAdmin(
  question: HttpQuestion,
  { log, logging, configDump, drain, why, outliers, sockets, quit }: AdminServerDeps,
  { defaultLogFilter }: AdminServerOptions,
): HttpAnswer | Promise<HttpAnswer> {
  switch (question.path) {
    case "/":
      return {
        status: 200,
        headers: { "content-type": "text/html; charset=utf-8" },
        body: indexPage(),
      };
    case "/config_dump":
      return {
        status: 200,
        headers: { "content-type": "application/json" },
        body: configDump(),
      };
    case "/drain":
      return drain().then(answerJson);
    case "/debug/sockets":
      return answerJson(sockets());
    case "/debug/why":
      return answerWhy(question, why);
    case "/debug/outliers":
      return answerJson(outliers().map(dumpOutlier));
    case "/logging":
      return answerLogging(question, logging, defaultLogFilter, (filter) =>
        log.target("ztunnel::telemetry").write("info", `new log filter is ${filter}`),
      );
    case "/quitquitquit":
      if (question.method !== "POST") return { status: 405 };
      return {
        status: 200,
        headers: { "content-type": "text/plain" },
        body: "shutdown now\n",
        sent: quit,
      };
    default:
      return { status: 404 };
  }
}

async function answerWhy(
  { method, query }: HttpQuestion,
  why: AdminServerDeps["why"],
): Promise<HttpAnswer> {
  const wish = query.get("connect") ?? "false";
  if (wish !== "true" && wish !== "false") {
    return { status: 400, body: `connect must be true or false, not ${wish}\n` };
  }
  const connect = wish === "true";
  if (connect && method !== "POST") return { status: 405, body: "connect=true needs POST\n" };
  const source = query.get("source") ?? "";
  const destination = query.get("destination") ?? "";
  if (source === "" || destination === "") {
    return { status: 400, body: "source and destination are needed\n" };
  }
  try {
    return answerJson(await why({ source, destination, connect }));
  } catch (error) {
    if (!(error instanceof AdminError) || error.code !== "question") throw error;
    return { status: 400, body: `${error.message}\n` };
  }
}

function dumpOutlier({ until, ...outlier }: ThreadOutlier): object {
  return { ...outlier, until: formatTimestamp(until) };
}

function answerJson(value: object): HttpAnswer {
  const headers = { "content-type": "application/json" };
  return { status: 200, headers, body: `${formatJson(value)}\n` };
}

function indexPage(): string {
  const rows = PAGES.map(
    ([path, what]) => `<tr><td><a href="${path}">${path}</a></td><td>${what}</td></tr>`,
  );
  return `<!DOCTYPE html>
<html lang="en">
<head>
<title>Ztunnel Admin</title>
<style>body { font-family: sans-serif } td, th { padding: 4px; text-align: left }</style>
</head>
<body>
<table>
<tr><th>Command</th><th>Description</th></tr>
${rows.join("\n")}
</table>
</body>
</html>
`;
}

/** Port 15021: may the kubelet count on this node's proxy? */
import {
  type HttpAnswer,
  HttpListener,
  type HttpListenerDeps,
  type HttpListenerOptions,
  type HttpQuestion,
} from "./http-listener.ts";
import { describeReadiness, type ReadinessStanding } from "./readiness-report.ts";

export interface ReadinessServerDeps extends Omit<HttpListenerDeps, "answer"> {
  readonly standing: () => ReadinessStanding;
}

export type ReadinessServerOptions = Omit<HttpListenerOptions, "component">;

/** @throws AdminError `bind` */
export function listenReadiness(
  deps: ReadinessServerDeps,
  options: ReadinessServerOptions,
): Promise<HttpListener> {
  const answer = (question: HttpQuestion): HttpAnswer => answerReadiness(question, deps.standing());
  return HttpListener.listen({ ...deps, answer }, { ...options, component: "readiness" });
}

/** Probes read the first line; the others are for people. */
function answerReadiness(question: HttpQuestion, standing: ReadinessStanding): HttpAnswer {
  if (question.path !== "/healthz/ready") return { status: 404 };
  if (question.method !== "GET") return { status: 405 };
  const headers = { "content-type": "text/plain" };
  const more = question.query.has("verbose") ? describeReadiness(standing) : "";
  const pending = standing.pending.map(({ task }) => task);
  if (pending.length === 0) return { status: 200, headers, body: `ready\n${more}` };
  return { status: 500, headers, body: `not ready, pending: ${pending.join(", ")}\n${more}` };
}

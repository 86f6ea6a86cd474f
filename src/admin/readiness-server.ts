/** Port 15021: may the kubelet count on this node's proxy? */
import {
  type HttpAnswer,
  HttpListener,
  type HttpListenerDeps,
  type HttpListenerOptions,
  type HttpQuestion,
} from "./http-listener.ts";

export interface ReadinessServerDeps extends Omit<HttpListenerDeps, "answer"> {
  /** Sorted names of what is still awaited. */
  readonly pending: () => readonly string[];
}

export type ReadinessServerOptions = Omit<HttpListenerOptions, "component">;

/** @throws AdminError `bind` */
export function listenReadiness(
  deps: ReadinessServerDeps,
  options: ReadinessServerOptions,
): Promise<HttpListener> {
  const answer = (question: HttpQuestion): HttpAnswer => answerReadiness(question, deps.pending());
  return HttpListener.listen({ ...deps, answer }, { ...options, component: "readiness" });
}

function answerReadiness(question: HttpQuestion, pending: readonly string[]): HttpAnswer {
  if (question.path !== "/healthz/ready") return { status: 404 };
  if (question.method !== "GET") return { status: 405 };
  const headers = { "content-type": "text/plain" };
  if (pending.length === 0) return { status: 200, headers, body: "ready\n" };
  return { status: 500, headers, body: `not ready, pending: ${pending.join(", ")}\n` };
}

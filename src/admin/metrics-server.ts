/** Port 15020: what Prometheus scrapes. */
import { chooseCoding, compress } from "./content-coding.ts";
import {
  type HttpAnswer,
  HttpListener,
  type HttpListenerDeps,
  type HttpListenerOptions,
  type HttpQuestion,
} from "./http-listener.ts";

export interface MetricsServerDeps extends Omit<HttpListenerDeps, "answer"> {
  /** OpenMetrics text. */
  readonly render: () => Promise<string>;
}

export type MetricsServerOptions = Omit<HttpListenerOptions, "component">;

const PATHS: ReadonlySet<string> = new Set(["/metrics", "/stats/prometheus"]);

/** @throws AdminError `bind` */
export function listenMetrics(
  deps: MetricsServerDeps,
  options: MetricsServerOptions,
): Promise<HttpListener> {
  let rendering: Promise<string> | undefined;
  /** Several scrapers at a time share one look at the counters. */
  const render = (): Promise<string> => {
    rendering ??= deps.render().finally(() => {
      rendering = undefined;
    });
    return rendering;
  };
  const answer = async (question: HttpQuestion): Promise<HttpAnswer> =>
    PATHS.has(question.path) ? metricsAnswer(question, await render()) : { status: 404 };
  return HttpListener.listen({ ...deps, answer }, { ...options, component: "stats" });
}

async function metricsAnswer({ headers }: HttpQuestion, text: string): Promise<HttpAnswer> {
  const answerHeaders = {
    // The text is OpenMetrics either way; older scrapers read it as the plain format too.
    "content-type": acceptsOpenMetrics(headers.accept)
      ? "application/openmetrics-text;charset=utf-8;version=1.0.0"
      : "text/plain; charset=utf-8",
    vary: "accept-encoding",
  };
  const acceptEncoding = headers["accept-encoding"];
  const coding = chooseCoding(
    Array.isArray(acceptEncoding) ? acceptEncoding.join(",") : acceptEncoding,
  );
  if (coding === undefined) return { status: 200, headers: answerHeaders, body: text };
  return {
    status: 200,
    headers: { ...answerHeaders, "content-encoding": coding },
    body: await compress(text, coding),
  };
}

function acceptsOpenMetrics(accept: string | undefined): boolean {
  return (accept ?? "").split(",").some((item) => {
    const mediaType = item.split(";")[0] ?? "";
    return mediaType.trim().toLowerCase() === "application/openmetrics-text";
  });
}

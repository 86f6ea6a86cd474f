/** `POST /logging`: shows and changes which lines are logged while the process runs. */
import { LogFilter } from "../telemetry/log-filter.ts";
import type { HttpAnswer, HttpQuestion } from "./http-listener.ts";

/** The part of the root logger that this page needs. */
export interface AdjustableLog {
  /** The filter that holds now. */
  filter(): LogFilter;
  setFilter(filter: string): void;
}

const HELP = `
usage: POST /logging\t\t\t\t\t\t(To list current level)
usage: POST /logging?level=<level>\t\t\t\t(To change global levels)
usage: POST /logging?level={mod1}:{level1},{mod2}:{level2}\t(To change specific mods' logging level)

hint: loglevel:\terror|warn|info|debug|trace|off
hint: mod_name:\tthe module name, i.e. ztunnel::proxy
`;

const HEADERS = { "content-type": "text/plain" };
const LEVEL = /^(off|error|warn|info|debug|trace)$/;

/**
 * @param defaultFilter what `reset` goes back to.
 * @param changed called with the new filter's text.
 */
export function answerLogging(
  { method, query }: HttpQuestion,
  log: AdjustableLog,
  defaultFilter: string,
  changed: (filter: string) => void,
): HttpAnswer {
  if (method !== "POST") {
    return { status: 405, headers: HEADERS, body: `Invalid HTTP method\n ${HELP}` };
  }
  const level = query.getAll("level").at(-1) ?? "";
  const isReset = query.has("reset");
  if (level !== "" || isReset) {
    const directives = level === "" ? [] : level.split(",").map(directiveOf);
    if (directives.includes(undefined)) {
      const body = `Invalid level provided: ${level}\n${HELP}`;
      return { status: 400, headers: HEADERS, body };
    }
    const base = isReset ? LogFilter.parse(defaultFilter) : log.filter();
    const filter = (level === "" ? base : base.with(directives.join(","))).format();
    log.setFilter(filter);
    changed(filter);
  }
  return { status: 200, headers: HEADERS, body: `current log level is ${log.filter().format()}\n` };
}

/**
 * Takes `level`, `target=level`, and `target:level`, which the help advertises and the original
 * refuses.
 *
 * @returns the directive in a filter's grammar, `undefined` when it is none.
 */
function directiveOf(text: string): string | undefined {
  if (LEVEL.test(text)) return text;
  const directive = text.replace(/(?<!:):(?=[a-z]+$)/, "=");
  if (!directive.includes("=")) return undefined;
  try {
    LogFilter.parse(directive);
    return directive;
  } catch {
    return undefined;
  }
}

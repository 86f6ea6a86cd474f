/** Takes an access log line of either format apart, so that lines compare field by field. */

export interface AccessLine {
  readonly level: string;
  readonly scope: string;
  readonly message: string;
  /** In the order of the line; strings, numbers and bare values alike as text. */
  readonly fields: readonly (readonly [name: string, value: string])[];
}

export function parsePlainLine(line: string): AccessLine {
  const [, level = "", scope = "", message = "", fields = ""] = line.split("\t");
  const found = [...fields.matchAll(/([a-z_.]+)=("(?:[^"\\]|\\.)*"|\S+)/g)];
  return { level, scope, message, fields: found.map((m) => [m[1] as string, m[2] as string]) };
}

export function parseJsonLine(line: string): AccessLine {
  const { level, time: _, scope, message, ...fields } = JSON.parse(line) as Record<string, string>;
  return {
    level: String(level),
    scope: String(scope),
    message: String(message),
    fields: Object.entries(fields).map(([name, value]) => [name, JSON.stringify(value)]),
  };
}

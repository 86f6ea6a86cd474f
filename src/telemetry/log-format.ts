/**
 * The two shapes of a log line, both as the original writes them.
 *
 * Plain: `time⇥level⇥target:span{fields}…⇥message⇥fields`, with the last tab also when there are no
 * fields. JSON: the keys level, time, scope, message, then the fields, then one object a span. A line
 * of fields alone has no message, and no tab after it.
 *
 * @see spec control-plane 9.2
 */
import {
  eachField,
  LogFieldGroup,
  type LogFields,
  type LogLevel,
  type LogValue,
} from "./logger.ts";

/** Makes one line, with its newline. `time` is RFC 3339 text. */
export type LineFormatter = (
  level: LogLevel,
  time: string,
  message: string,
  fields: LogFields,
) => string;

/** What a line happened inside of; outermost first in a list. */
export interface LogSpan {
  readonly name: string;
  readonly fields: LogFields;
}

/** Prepares what all lines of one target and its spans share. */
export type LogFormat = (target: string, spans: readonly LogSpan[]) => LineFormatter;

/** The part of our targets that the plain format leaves out. */
const OWN_TARGETS = "ztunnel::";

/** For people: one line of tab-separated columns. */
export const plainFormat: LogFormat = (target, spans) => {
  const place = target.startsWith(OWN_TARGETS) ? target.slice(OWN_TARGETS.length) : target;
  const scope = place + spans.map(plainSpan).join("");
  return (level, time, message, fields) =>
    `${time}\t${level}\t${scope}\t${message === "" ? "" : `${message}\t`}${plainFields(fields)}\n`;
};

function plainSpan({ name, fields }: LogSpan): string {
  return fields.length === 0 ? `:${name}` : `:${name}{${plainFields(fields)}}`;
}

function plainFields(fields: LogFields): string {
  let text = "";
  for (const field of fields) {
    if (text !== "") text += " ";
    if (field instanceof LogFieldGroup) text += field.plain ??= plainFields(field.fields);
    else text += `${field[0]}=${plainValue(field[1])}`;
  }
  return text;
}

function plainValue(value: LogValue): string {
  if (typeof value === "object") return value.bare;
  return typeof value === "string" ? quoted(value) : String(value);
}

/** What a quoted value may not show as it is: quotes, control characters and line separators. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
const UNSAFE = /["\\\u0000-\u001f\u007f-\u009f\u2028\u2029]/;
const UNSAFE_EACH = new RegExp(UNSAFE, "g");

const SHORT_ESCAPES: Readonly<Record<string, string>> = {
  '"': '\\"',
  "\\": "\\\\",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\0": "\\0",
};

function quoted(text: string): string {
  if (!UNSAFE.test(text)) return `"${text}"`;
  const escaped = text.replace(
    UNSAFE_EACH,
    (character) => SHORT_ESCAPES[character] ?? `\\u{${character.charCodeAt(0).toString(16)}}`,
  );
  return `"${escaped}"`;
}

type JsonValue = string | number | boolean;

/** For collectors: one JSON object a line. */
export const jsonFormat: LogFormat = (scope, spans) => {
  const spanObjects = spans.map(({ name, fields }) => [name, jsonObject(fields)] as const);
  return (level, time, message, fields) => {
    const line: Record<string, JsonValue | Record<string, JsonValue>> = {
      level,
      time,
      scope,
      ...(message === "" ? {} : { message }),
    };
    for (const [name, value] of eachField(fields)) line[name] = jsonValue(value);
    for (const [name, object] of spanObjects) line[name] = object;
    return `${JSON.stringify(line)}\n`;
  };
};

function jsonObject(fields: LogFields): Record<string, JsonValue> {
  return Object.fromEntries(eachField(fields).map(([name, value]) => [name, jsonValue(value)]));
}

function jsonValue(value: LogValue): JsonValue {
  return typeof value === "object" ? value.bare : value;
}

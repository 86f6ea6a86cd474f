/** Slow and obvious twins of the codecs in src/wire, written from the tables: oracles for the fuzz tests. */

export interface NaiveField {
  readonly number: number;
  /** A number for varints, else the bytes. */
  readonly value: number | Uint8Array;
}

/** The fields of a protobuf message, varints up to 2^53; throws when the bytes are cut off. */
export function naiveFields(bytes: Uint8Array): readonly NaiveField[] {
  const fields: NaiveField[] = [];
  let at = 0;
  const byte = (): number => {
    const value = bytes[at++];
    if (value === undefined) throw new Error("cut off");
    return value;
  };
  const varint = (): number => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const next = byte();
      value += (next % 128) * factor;
      if (next < 128) return value;
    }
  };
  const take = (length: number): Uint8Array => Uint8Array.from({ length }, byte);
  /** Fields up to the end, or of a group up to its end; groups themselves are thrown away. */
  const read = (group: number | undefined, into: NaiveField[]): void => {
    while (group !== undefined || at < bytes.length) {
      const tag = varint();
      const number = Math.floor(tag / 8);
      if (number === 0) throw new Error("field number 0");
      if (tag % 8 === 0) into.push({ number, value: varint() });
      else if (tag % 8 === 1) into.push({ number, value: take(8) });
      else if (tag % 8 === 2) into.push({ number, value: take(varint()) });
      else if (tag % 8 === 3) read(number, []);
      else if (tag % 8 === 5) into.push({ number, value: take(4) });
      else if (tag % 8 === 4 && number === group) return;
      else throw new Error(`wire type ${tag % 8}`);
    }
  };
  read(undefined, fields);
  return fields;
}

/** The bytes of the last field of that number, which is the one that counts. */
export function naiveBytes(fields: readonly NaiveField[], number: number): Uint8Array | undefined {
  const value = fields.findLast((field) => field.number === number)?.value;
  return typeof value === "number" ? undefined : value;
}

/** As {@link naiveBytes}, as text; empty when absent. */
export function naiveText(fields: readonly NaiveField[], number: number): string {
  return new TextDecoder().decode(naiveBytes(fields, number) ?? new Uint8Array());
}

/** A length-delimited field. */
export function naiveEncode(number: number, content: string | Iterable<number>): Uint8Array {
  const bytes =
    typeof content === "string" ? new TextEncoder().encode(content) : Uint8Array.from(content);
  return Uint8Array.from([...naiveVarint(number * 8 + 2), ...naiveVarint(bytes.length), ...bytes]);
}

function naiveVarint(value: number): readonly number[] {
  return value < 128 ? [value] : [(value % 128) + 128, ...naiveVarint(Math.floor(value / 128))];
}

const BAGGAGE_KEYS: readonly (readonly [key: RegExp, field: string])[] = [
  [/^k8s\.cluster\.name$/, "clusterId"],
  [/^k8s\.namespace\.name$/, "namespace"],
  [/^k8s\.(deployment|cronjob|pod|job)\.name$/, "workloadName"],
  [/^service\.name$/, "canonicalName"],
  [/^service\.version$/, "canonicalRevision"],
  [/^cloud\.region$/, "region"],
  [/^cloud\.availability_zone$/, "zone"],
];

/** Field name → value of a `baggage` header of plain text, by one rule after the other. */
export function naiveBaggage(header: string): Readonly<Record<string, string>> {
  const found: Record<string, string> = { workloadType: "" };
  for (const [, field] of BAGGAGE_KEYS) found[field] = "";
  for (const pair of header.split(",")) {
    const pieces = pair.split("=");
    for (const [pattern, field] of BAGGAGE_KEYS) {
      const match = pattern.exec(pieces[0] ?? "");
      if (match === null) continue;
      found[field] = pieces[1] ?? "";
      if (field === "workloadName") found["workloadType"] = pieces[1] ? (match[1] ?? "") : "";
    }
  }
  return found;
}

/** The host of a `forwarded` header of plain text. */
export function naiveForwardedHost(header: string): string | undefined {
  const part = header
    .split(";")
    .map((text) => text.trim())
    .find((text) => text.startsWith("host="));
  const host = part?.replace(/^host="?/, "").replace(/"$/, "");
  return host === "" ? undefined : host;
}

/** Host and port of an `:authority`, brackets kept. */
export function naiveAuthority(text: string): { host: string; port: number } | undefined {
  const match = /^(\[[0-9A-Fa-f:.]+\]|[\w\-.~!$&'()*+,;=%]+):([0-9]{1,5})$/.exec(text);
  if (match === null || Number(match[2]) > 65535) return undefined;
  return { host: match[1] ?? "", port: Number(match[2]) };
}

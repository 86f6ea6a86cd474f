/** Header fields between the engine port and Node's flat lists. */
import type { HeaderFields } from "../../../src/engine/engine.ts";

/** Name, value, name, value …, pseudo-headers first. */
export function toFlatList(first: HeaderFields, fields: HeaderFields): string[] {
  return [...first, ...fields].flat();
}

/** The fields of a flat list; repeated ones joined with `,`. Pseudo-headers are among them. */
export function fromFlatList(list: readonly string[]): Map<string, string> {
  const fields = new Map<string, string>();
  for (let i = 0; i + 1 < list.length; i += 2) {
    const [name, value] = [list[i] as string, list[i + 1] as string];
    const before = fields.get(name);
    fields.set(name, before === undefined ? value : `${before},${value}`);
  }
  return fields;
}

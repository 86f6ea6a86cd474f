/** Protobuf enums ⇄ the words that the mesh's nouns use for them. */
import { WireError } from "./wire-error.ts";

/** Index is the number on the wire; `undefined` where a number must not come. */
export type EnumNames<Name extends string> = readonly (Name | undefined)[];

/** @throws WireError `unknown` for a number without a name: it may mean anything, so it can't be ignored. */
export function enumName<Name extends string>(
  kind: string,
  names: EnumNames<Name>,
  value: number,
): Name {
  const name = names[value];
  if (name === undefined) throw new WireError("unknown", `decode error: ${kind} ${value}`);
  return name;
}

/** The number of a name that the table has. */
export function enumNumber<Name extends string, Value extends number>(
  names: EnumNames<Name>,
  name: Name,
): Value {
  return names.indexOf(name) as Value;
}

/** What pays for calls to a control plane. */
import { readFile } from "node:fs/promises";
import { LineError } from "./line-error.ts";

export type AccessToken =
  /** Read for each call: the kubelet replaces it before it expires. */
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "literal"; readonly token: string };

/** @throws LineError `token` when the file can't be read or is empty. */
export async function readAccessToken(source: AccessToken): Promise<string> {
  if (source.kind === "literal") return source.token;
  let text: string;
  try {
    text = await readFile(source.path, "utf8");
  } catch (cause) {
    throw new LineError("token", `can't read the token in ${source.path}`, { cause });
  }
  const token = text.trim();
  if (token === "") throw new LineError("token", `the token in ${source.path} is empty`);
  return token;
}

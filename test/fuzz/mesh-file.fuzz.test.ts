import { readFileSync } from "node:fs";
import fc from "fast-check";
import { LocalMeshError, parseLocalMesh } from "../../src/config/local-mesh-file.ts";
import { fuzz, lawful, mutated } from "./fuzz.ts";

const FILE = new URL("../fixtures/ztunnel/local-a.yaml", import.meta.url);

fuzz(
  "a mesh file of any or damaged text is read or refused with its mistakes",
  fc.property(
    fc.oneof(
      fc.string({ unit: "binary", maxLength: 200 }),
      mutated(fc.constant(readFileSync(FILE))).map((bytes) => Buffer.from(bytes).toString()),
    ),
    (text) => {
      lawful(
        () => parseLocalMesh(text, "mesh.yaml"),
        (error) => error instanceof LocalMeshError && error.mistakes.length > 0,
      );
    },
  ),
);

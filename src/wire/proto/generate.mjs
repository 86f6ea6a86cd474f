/**
 * Writes the TypeScript beside the .proto texts of this folder (npm run proto).
 *
 * protobufjs parses the texts and ts-proto makes the code, both from node_modules: nothing is
 * downloaded. The output is erasable TypeScript: interfaces, literals for enums, tagged unions for
 * oneofs, and an encode and a decode for each message. Each .proto file is one package, named after it.
 */
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { CodeGeneratorRequestSchema, CodeGeneratorResponseSchema } from "@bufbuild/protobuf/wkt";
import { descriptorSet } from "./descriptors.mjs";

const OPTIONS = [
  "oneof=unions-value",
  "enumsAsLiterals=true",
  "unrecognizedEnum=false",
  "useMapType=true",
  "importSuffix=.ts",
  "outputJsonMethods=false",
  "outputPartialMethods=false",
  "outputServices=none",
];

const protoFile = descriptorSet().file;
const request = create(CodeGeneratorRequestSchema, {
  fileToGenerate: protoFile.map((file) => file.name),
  protoFile,
  parameter: OPTIONS.join(","),
});

const packageFile = createRequire(import.meta.url).resolve("ts-proto/package.json");
const plugin = path.join(path.dirname(packageFile), "protoc-gen-ts_proto");
const run = spawnSync(process.execPath, [plugin], {
  input: toBinary(CodeGeneratorRequestSchema, request),
  maxBuffer: 2 ** 26,
});
if (run.status !== 0) throw new Error(`ts-proto failed: ${run.stderr}`);
const response = fromBinary(CodeGeneratorResponseSchema, new Uint8Array(run.stdout));
if (response.error) throw new Error(`ts-proto failed: ${response.error}`);
for (const file of response.file) {
  writeFileSync(
    path.join(import.meta.dirname, file.name),
    `// @ts-nocheck\n${strict(file.content)}`,
  );
}

/**
 * ts-proto stops silently at a stray end of a group or at field 0, lets a nested message read on past
 * its length and a group end with another's number. Other implementations refuse all of it; so do we.
 */
function strict(code) {
  const stop = /if \(\(tag & 7\) === 4 \|\| tag === 0\) \{\s+break;\s+\}/g;
  const end = /reader\.skip\(tag & 7\);(\s+\})(\s+return message;)/g;
  const decoders = code.match(/decode\(input: /g)?.length;
  if (code.match(stop)?.length !== decoders - 1 || code.match(end)?.length !== decoders - 1) {
    throw new Error("ts-proto writes decoders in another way than this script knows");
  }
  return code
    .replace(stop, 'if (tag >>> 3 === 0) throw new globalThis.Error("field number 0");')
    .replace(
      end,
      'reader.skip(tag & 7, tag >>> 3);$1\n      if (reader.pos !== end) throw new globalThis.Error("a field crosses the end of its message");$2',
    );
}

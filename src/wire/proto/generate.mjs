/**
 * Writes the TypeScript beside the .proto texts of this folder (npm run proto).
 *
 * protobufjs parses the texts and ts-proto makes the code, both from node_modules: nothing is
 * downloaded. The output is erasable TypeScript: interfaces, literals for enums, tagged unions for
 * oneofs, and an encode and a decode for each message. Each .proto file is one package, named after it.
 */
import { spawnSync } from "node:child_process";
import { readdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  CodeGeneratorRequestSchema,
  CodeGeneratorResponseSchema,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";
import protobuf from "protobufjs";
import "protobufjs/ext/descriptor/index.js";

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

const folder = import.meta.dirname;
const sources = readdirSync(folder).filter((name) => name.endsWith(".proto"));

const root = new protobuf.Root();
root.resolvePath = (_origin, target) => path.join(folder, target);
root.loadSync(sources).resolveAll();

const set = root.toDescriptor("proto3");
for (const file of set.file) {
  const packages = new Set();
  for (const message of file.messageType) {
    qualify(message, root.lookupType(`${file.package}.${message.name}`), packages);
  }
  packages.delete(file.package);
  file.name = fileName(file.package);
  file.dependency = [...packages].map(fileName);
}

function fileName(packageName) {
  return `${packageName.replaceAll(".", "-")}.proto`;
}

/** protobufjs names types as seen from their user; plugins expect full names. */
function qualify(message, scope, packages) {
  const entries = (message.nestedType ?? []).filter((nested) => nested.options?.mapEntry);
  for (const nested of message.nestedType ?? []) {
    qualify(nested, entries.includes(nested) ? scope : scope.get(nested.name), packages);
  }
  for (const field of message.field) {
    if (!field.typeName) continue;
    if (entries.some((entry) => entry.name === field.typeName)) {
      field.typeName = `${scope.fullName}.${field.typeName}`;
      continue;
    }
    const type = scope.lookupTypeOrEnum(field.typeName);
    field.typeName = type.fullName;
    let parent = type.parent;
    while (parent instanceof protobuf.Type) parent = parent.parent;
    packages.add(parent.fullName.slice(1));
  }
}

const encoded = protobuf.descriptor.FileDescriptorSet.encode(set).finish();
const { file: protoFile } = fromBinary(FileDescriptorSetSchema, encoded);
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
  writeFileSync(path.join(folder, file.name), `// @ts-nocheck\n${file.content}`);
}

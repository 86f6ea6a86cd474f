/**
 * The protobuf libraries of the comparison, each as one function from the bytes of a Workload to an
 * object, all made from the same .proto texts.
 */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import {
  createFileRegistry,
  type DescMessage,
  fromBinary,
  type Registry,
} from "@bufbuild/protobuf";
import type { FileDescriptorSet } from "@bufbuild/protobuf/wkt";
import { PbfReader } from "pbf";
import type { Root } from "protobufjs";
import { decodeMessage } from "../../src/wire/message-codec.ts";
import { Workload } from "../../src/wire/proto/istio-workload.ts";
import { readWorkload } from "./hand-written-reader.ts";

export type DecodeWorkload = (bytes: Uint8Array) => unknown;

export const decoderMakers: Readonly<Record<string, () => Promise<DecodeWorkload>>> = {
  "ts-proto, through our message-codec": async () => (bytes) =>
    decodeMessage("Workload", Workload, bytes),
  "ts-proto": async () => (bytes) => Workload.decode(bytes),
  "protobuf-es": async () => {
    const { descriptorSet } = await descriptors();
    const registry: Registry = createFileRegistry(descriptorSet());
    const schema = registry.getMessage("istio.workload.Workload") as DescMessage;
    return (bytes) => fromBinary(schema, bytes);
  },
  protobufjs: async () => {
    const { root } = await descriptors();
    const type = root.lookupType("istio.workload.Workload");
    return (bytes) => type.decode(bytes);
  },
  "protobufjs, toObject": async () => {
    const { root } = await descriptors();
    const type = root.lookupType("istio.workload.Workload");
    return (bytes) => type.toObject(type.decode(bytes), { defaults: true });
  },
  pbf: async () => {
    const read = compilePbf();
    return (bytes) => {
      const reader = new PbfReader(bytes);
      return read(reader, bytes.length);
    };
  },
  "written by hand": async () => readWorkload,
};

async function descriptors(): Promise<{ root: Root; descriptorSet: () => FileDescriptorSet }> {
  return import(new URL("../../src/wire/proto/descriptors.mjs", import.meta.url).href);
}

/** pbf knows neither imports nor packages: both texts become one. */
function compilePbf(): (reader: PbfReader, end: number) => unknown {
  const require = createRequire(import.meta.url);
  const { compile }: { compile: (schema: unknown) => Record<string, never> } =
    require("pbf/compile");
  // pbf's own parser, wherever npm put it.
  const fromPbf = createRequire(require.resolve("pbf"));
  const fromParser = createRequire(fromPbf.resolve("resolve-protobuf-schema"));
  const parse: (text: string) => unknown = fromParser("protocol-buffers-schema");
  const text = ["google-protobuf", "istio-workload"]
    .map((name) =>
      readFileSync(new URL(`../../src/wire/proto/${name}.proto`, import.meta.url), "utf8")
        .replaceAll(/^(syntax|package|import) .*$/gm, "")
        .replaceAll("google.protobuf.", ""),
    )
    .join("");
  return compile(parse(`syntax = "proto3";\n${text}`))["readWorkload"] as never;
}

/** The .proto texts of this folder as descriptors, one file for each package; for the generator and the benchmark. */
import { readdirSync } from "node:fs";
import path from "node:path";
import { fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import protobuf from "protobufjs";
import "protobufjs/ext/descriptor/index.js";

/** The texts as protobufjs reads them. */
export const root = new protobuf.Root();
root.resolvePath = (_origin, target) => path.join(import.meta.dirname, target);
root
  .loadSync(readdirSync(import.meta.dirname).filter((name) => name.endsWith(".proto")))
  .resolveAll();

/** @returns a google.protobuf.FileDescriptorSet message of protobuf-es, imported files first. */
export function descriptorSet() {
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
  set.file = set.file.reduce((sorted, file) => imported(file, set.file, sorted), []);
  const bytes = protobuf.descriptor.FileDescriptorSet.encode(set).finish();
  return fromBinary(FileDescriptorSetSchema, bytes);
}

function imported(file, all, sorted) {
  if (sorted.includes(file)) return sorted;
  for (const name of file.dependency) {
    imported(
      all.find((other) => other.name === name),
      all,
      sorted,
    );
  }
  sorted.push(file);
  return sorted;
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

/** What the codes of gRPC mean, in the words that the original's logs have for them. */
import { status } from "@grpc/grpc-js";

/** @param code a gRPC status code, 0 to 16. */
export function describeStatus(code: number): string {
  return DESCRIPTIONS[code as status] ?? `code ${code}`;
}

/** What gRPC tells of an error, without its empty headings and Node's advice to its own users. */
export function plainDetails(details: string): string {
  return details
    .replace(/\.? Resolution note: $/, "")
    .replace(
      /; if the root CA is installed locally, try running Node\.js with --use-system-ca/,
      "",
    );
}

const DESCRIPTIONS: Readonly<Record<status, string>> = {
  [status.OK]: "The operation completed successfully",
  [status.CANCELLED]: "The operation was cancelled",
  [status.UNKNOWN]: "Unknown error",
  [status.INVALID_ARGUMENT]: "Client specified an invalid argument",
  [status.DEADLINE_EXCEEDED]: "Deadline expired before operation could complete",
  [status.NOT_FOUND]: "Some requested entity was not found",
  [status.ALREADY_EXISTS]: "Some entity that we attempted to create already exists",
  [status.PERMISSION_DENIED]:
    "The caller does not have permission to execute the specified operation",
  [status.RESOURCE_EXHAUSTED]: "Some resource has been exhausted",
  [status.FAILED_PRECONDITION]:
    "The system is not in a state required for the operation's execution",
  [status.ABORTED]: "The operation was aborted",
  [status.OUT_OF_RANGE]: "Operation was attempted past the valid range",
  [status.UNIMPLEMENTED]: "Operation is not implemented or not supported",
  [status.INTERNAL]: "Internal error",
  [status.UNAVAILABLE]: "The service is currently unavailable",
  [status.DATA_LOSS]: "Unrecoverable data loss or corruption",
  [status.UNAUTHENTICATED]: "The request does not have valid authentication credentials",
};

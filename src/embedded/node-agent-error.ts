/** What the node agent refuses, apart from what system tools and the proxy say. */

export type NodeAgentErrorCode =
  /** The request can't be understood. */
  | "bad-request"
  /** No such namespace. */
  | "no-netns"
  /** The uid or the namespace is taken. */
  | "attached-already"
  /** Nothing of that name is attached. */
  | "not-attached";

export class NodeAgentError extends Error {
  override readonly name = "NodeAgentError";
  readonly code: NodeAgentErrorCode;

  constructor(code: NodeAgentErrorCode, message: string, more: { cause?: unknown } = {}) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause });
    this.code = code;
  }
}

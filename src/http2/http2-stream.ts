/** One stream of a connection: what its owner sees, and the numbers that the connection keeps. */

/** Made by the connection only. `Owner` is whatever the owner of the connection hangs on it. */
export interface Http2Stream<Owner> {
  readonly id: number;
  owner: Owner | undefined;
  /** END_STREAM has come. */
  readonly hasPeerEnded: boolean;
  /** END_STREAM was sent. */
  readonly hasEnded: boolean;
  /** The final status was sent, or has come. */
  readonly isAnswered: boolean;
  /** Both sides have ended, or one has reset it. */
  readonly isClosed: boolean;
}

export class StreamState<Owner> implements Http2Stream<Owner> {
  readonly id: number;
  owner: Owner | undefined = undefined;
  hasPeerEnded = false;
  hasEnded = false;
  isAnswered = false;
  isClosed = false;
  /** Reset or refused: whatever else the peer says of it is of no interest. */
  isAbandoned = false;
  /** Bytes that we may send; negative after the peer made its windows smaller. */
  sendWindow: number;
  /** Bytes that the peer may send. */
  receiveWindow: number;
  /** Bytes that came and were not taken yet; of a DATA frame that has begun, all. */
  untaken = 0;
  /** Of these, what the connection's window was given back for in advance. */
  lent = 0;
  /** Nobody takes what comes. */
  isHeld = false;
  /** Bytes taken for which no WINDOW_UPDATE was sent. */
  creditDue = 0;

  constructor(id: number, sendWindow: number, receiveWindow: number) {
    this.id = id;
    this.sendWindow = sendWindow;
    this.receiveWindow = receiveWindow;
  }
}

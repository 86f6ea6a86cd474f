/** Numbered questions to the other side of a message port, and their answers. */
export class Calls<Answer> {
  readonly #open = new Map<
    number,
    { resolve: (answer: Answer) => void; reject: (error: Error) => void }
  >();
  #last = 0;
  #gone: Error | undefined;

  /** @param send called at once with the number that the answer must carry. */
  ask(send: (call: number) => void): Promise<Answer> {
    return new Promise((resolve, reject) => {
      if (this.#gone !== undefined) return reject(this.#gone);
      const call = ++this.#last;
      this.#open.set(call, { resolve, reject });
      send(call);
    });
  }

  answer(call: number, answer: Answer): void {
    this.#take(call)?.resolve(answer);
  }

  fail(call: number, error: Error): void {
    this.#take(call)?.reject(error);
  }

  /** The other side is gone: neither what is open nor what is asked from now on gets an answer. */
  failAll(error: Error): void {
    this.#gone = error;
    for (const call of [...this.#open.keys()]) this.fail(call, error);
  }

  #take(
    call: number,
  ): { resolve: (answer: Answer) => void; reject: (e: Error) => void } | undefined {
    const open = this.#open.get(call);
    this.#open.delete(call);
    return open;
  }
}

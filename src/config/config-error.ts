/** What an operator wrote can't be understood: everything that is wrong, at once. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  /** One line each, naming the variable and its value. At least one. */
  readonly mistakes: readonly string[];

  constructor(mistakes: readonly string[]) {
    super(mistakes.join("\n"));
    this.mistakes = mistakes;
  }
}

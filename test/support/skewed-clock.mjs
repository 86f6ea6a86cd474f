/** Puts the clock of a process ahead by as many milliseconds as the file CLOCK_AHEAD says by then. */
import { readFileSync } from "node:fs";

const now = Date.now;
Date.now = () => now() + Number(readFileSync(process.env.CLOCK_AHEAD, "utf8"));

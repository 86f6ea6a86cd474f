/** What this program is: the version line of the log and of `ztunnel version`, the build metric. */
import { readFileSync } from "node:fs";
import { Gauge, type Registry } from "prom-client";

/** Written beside the built output by the build; absent when the sources run directly. */
const STAMP = new URL("../build-stamp.json", import.meta.url);

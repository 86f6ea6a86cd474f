import { requireNetns } from "../../test/support/netns-lab.ts";
import { orGiveUp } from "../give-up.ts";

/** Ends the process with one sentence when the machine lacks what a stage is built with. */
export function requireStage(): void {
  orGiveUp(() => {
    const obstacle = requireNetns("iptables", "cc");
    if (obstacle !== false) throw new Error(obstacle);
  });
}

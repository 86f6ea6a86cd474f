/**
 * Our daemon and node agent against a real istiod: `npm run test:istiod`. The cases share one
 * cluster and run in this order; each leaves it as it found it.
 */
import { after } from "node:test";
import { authorityCases } from "./authority-cases.ts";
import { changeCases } from "./change-cases.ts";
import { dedicatedCases } from "./dedicated-cases.ts";
import { identityCases } from "./identity-cases.ts";
import { mistakeCases } from "./mistake-cases.ts";
import { onDemandCases } from "./on-demand-cases.ts";
import { outageCases } from "./outage-cases.ts";
import { Stage } from "./stage.ts";
import { trafficCases } from "./traffic-cases.ts";

const stage = await Stage.start();
after(() => stage.close());

identityCases(stage);
trafficCases(stage);
changeCases(stage);
await mistakeCases(stage);
outageCases(stage);
onDemandCases(stage);
dedicatedCases(stage);
// Last: the authority that istiod made for itself does not come back.
authorityCases(stage);

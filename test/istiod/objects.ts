/** Kubernetes objects beside the recorded ones. */
import { join } from "node:path";
import type { StagePod } from "./stage.ts";

/** Paths of their files. */
export const OBJECTS: Readonly<Record<"db2" | "dbReady" | "denyFrontend" | "denyCatalog", string>> =
  {
    db2: path("db-2"),
    dbReady: path("db-ready"),
    denyFrontend: path("deny-frontend"),
    denyCatalog: path("deny-catalog"),
  };

/** The pod of {@link OBJECTS.db2}. */
export const DB2: StagePod = {
  name: "db-2",
  ip: "10.244.2.21",
  serviceAccount: "archive",
  node: "node2",
  ports: [5432],
};

function path(name: string): string {
  return join(import.meta.dirname, "objects", `${name}.yaml`);
}

/**
 * An HBONE server written by hand on Node's HTTP/2, in the place of a waypoint or a gateway: what it
 * does with a stream is the test's to say.
 */
import { createSecureServer, type ServerHttp2Stream } from "node:http2";
import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { listenOn } from "./lab-application.ts";
import { type LabCertificate, labCertificate, workloadName } from "./lab-certificate.ts";
import type { MeshLab } from "./mesh-lab.ts";

/** One CONNECT that was answered 200. */
export interface HboneRequest {
  readonly authority: string;
  readonly headers: Readonly<Record<string, string>>;
  /** `URI:spiffe://…` of the caller. */
  readonly caller: string;
}

export interface HboneServer {
  readonly requests: readonly HboneRequest[];
  readonly certificate: LabCertificate;
  /** Idempotent. */
  close(): void;
}

/**
 * Listens on 15008 of a host with the certificate of a service account.
 *
 * @param serve takes the stream when 200 has been sent.
 */
export async function listenHbone(
  lab: MeshLab,
  host: string,
  serviceAccount: string,
  serve: (stream: ServerHttp2Stream, request: HboneRequest) => void,
): Promise<HboneServer> {
  const certificate = await labCertificate(lab, workloadName(serviceAccount));
  const server = createSecureServer({
    ...certificate,
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: "TLSv1.3",
  });
  const requests: HboneRequest[] = [];
  server.on("stream", (stream: ServerHttp2Stream, { ":authority": authority = "", ...headers }) => {
    const request = {
      authority,
      headers: Object.fromEntries(Object.entries(headers).map(([key, value]) => [key, `${value}`])),
      caller: callerOf(stream),
    };
    requests.push(request);
    stream.on("error", () => {
      // The other side tells.
    });
    stream.respond({ ":status": 200 });
    serve(stream, request);
  });
  const listening = listenOn(lab.host(host), 15008, (socket: Socket) => {
    server.emit("connection", socket);
  });
  return { requests, certificate, close: () => listening.close() };
}

function callerOf(stream: ServerHttp2Stream): string {
  const socket = stream.session?.socket as TLSSocket | undefined;
  return socket?.getPeerCertificate().subjectaltname ?? "";
}

/** Says `waypoint` first, then echoes: what stands before a destination in the contract's tests. */
export function serveAsWaypoint(stream: ServerHttp2Stream): void {
  stream.write("waypoint\n");
  stream.pipe(stream);
}

/**
 * An HBONE client written by hand on Node's HTTP/2: certificates of the lab's authority, CONNECT
 * streams with as little around them as possible, so that a test's load lands on the server's proxy.
 */
import { type ClientHttp2Session, connect } from "node:http2";
import { connect as connectTls } from "node:tls";
import type { AlternativeName } from "../../src/embedded/certificate-builder.ts";
import { connectFrom } from "./lab-application.ts";
import { labCertificate, workloadName } from "./lab-certificate.ts";
import type { MeshLab } from "./mesh-lab.ts";

export class ConnectClient {
  readonly #session: ClientHttp2Session;

  private constructor(session: ClientHttp2Session) {
    this.#session = session;
  }

  /**
   * Speaks as the service account named like the host it calls from.
   *
   * @param name shown instead.
   * @throws what the handshake failed with.
   */
  static async dial(
    lab: MeshLab,
    from: string,
    ip: string,
    localAddress?: string,
    name: AlternativeName = workloadName(from),
  ): Promise<ConnectClient> {
    const certificate = await labCertificate(lab, name);
    const socket = await connectFrom(lab.host(from), ip, 15008, localAddress);
    const secured = connectTls({
      socket,
      ...certificate,
      // SPIFFE certificates carry no host name; the chain is still checked.
      checkServerIdentity: () => undefined,
      ALPNProtocols: ["h2"],
      minVersion: "TLSv1.3",
    });
    await new Promise<void>((resolve, reject) => {
      secured.once("secureConnect", resolve).once("error", reject);
    });
    const session = connect("https://tunnel", { createConnection: () => secured });
    session.on("error", () => {
      // Streams tell.
    });
    return new ConnectClient(session);
  }

  /**
   * One short connection: CONNECT, half-close as soon as it is accepted, EOF from the other side.
   *
   * @throws when it does not go exactly like that.
   */
  tryOut(authority: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const stream = this.#session.request(
        { ":method": "CONNECT", ":authority": authority },
        { endStream: false },
      );
      let status = 0;
      stream.once("response", (headers) => {
        status = Number(headers[":status"]);
        stream.end();
      });
      stream.once("error", reject);
      stream.once("close", () => {
        if (status === 200 && stream.rstCode === 0) resolve();
        else reject(new Error(`${authority}: status ${status}, reset code ${stream.rstCode}`));
      });
      stream.resume();
    });
  }

  /** One CONNECT. @returns the status of its answer. @throws when none comes. */
  status(authority: string): Promise<number> {
    return new Promise((resolve, reject) => {
      const stream = this.#session.request(
        { ":method": "CONNECT", ":authority": authority },
        { endStream: false },
      );
      stream.once("response", (headers) => {
        resolve(Number(headers[":status"]));
        stream.close();
      });
      stream.once("error", reject);
      stream.once("close", () => reject(new Error(`${authority}: no answer`)));
    });
  }

  close(): void {
    this.#session.destroy();
  }
}

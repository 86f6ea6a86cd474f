/** Authorities as an operator plugs them in: made with openssl, in the files that istiod reads. */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const DAYS = 3650;

/** A root, an intermediate below it, and istiod's own below that. */
export class AuthorityFiles {
  readonly #folder: string;
  readonly #name: string;

  /** @param name tells its certificates from those of others. */
  constructor(folder: string, name: string) {
    this.#folder = join(folder, name);
    this.#name = name;
    mkdirSync(this.#folder, { recursive: true });
    this.#sign("root", undefined);
    this.#sign("middle", "root");
    this.#sign("issuer", "middle");
  }

  get root(): string {
    return this.#read("root.pem");
  }

  /** @param roots what istiod is to trust and to hand out. @returns the folder for it. */
  plugIn(title: string, roots: readonly string[]): string {
    const folder = join(this.#folder, title);
    mkdirSync(folder);
    const files = {
      "ca-cert.pem": this.#read("issuer.pem"),
      "ca-key.pem": this.#read("issuer.key"),
      "cert-chain.pem": this.#read("issuer.pem") + this.#read("middle.pem"),
      "root-cert.pem": roots.join(""),
    };
    for (const [file, text] of Object.entries(files)) writeFileSync(join(folder, file), text);
    return folder;
  }

  #sign(file: string, issuer: string | undefined): void {
    const path = (name: string): string => join(this.#folder, name);
    const subject = `/O=${this.#name}/CN=${file}`;
    const extensions = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n";
    writeFileSync(path("extensions"), extensions);
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path(`${file}.key`));
    openssl("req", "-new", "-key", path(`${file}.key`), "-subj", subject, "-out", path("csr"));
    const by =
      issuer === undefined
        ? ["-signkey", path(`${file}.key`)]
        : ["-CA", path(`${issuer}.pem`), "-CAkey", path(`${issuer}.key`), "-CAcreateserial"];
    const form = ["-days", String(DAYS), "-extfile", path("extensions")];
    openssl("x509", "-req", "-in", path("csr"), ...by, ...form, "-out", path(`${file}.pem`));
  }

  #read(file: string): string {
    return readFileSync(join(this.#folder, file), "utf8");
  }
}

function openssl(...args: readonly string[]): void {
  execFileSync("openssl", args, { stdio: ["ignore", "pipe", "pipe"] });
}

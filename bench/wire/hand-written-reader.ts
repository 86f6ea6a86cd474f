/**
 * A reader of the fields of a Workload written by hand, with no checks beyond the bounds: the lower
 * bound of the comparison.
 */
class Cursor {
  readonly bytes: Buffer & { latin1Slice(start: number, end: number): string };
  at = 0;

  constructor(bytes: Uint8Array) {
    this.bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength) as Cursor["bytes"];
  }

  varint(): number {
    const bytes = this.bytes;
    let byte = bytes[this.at++] as number;
    if (byte < 0x80) return byte;
    let value = byte & 0x7f;
    for (let shift = 7; shift < 35; shift += 7) {
      byte = bytes[this.at++] as number;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value >>> 0;
    }
    throw new RangeError("varint too long");
  }

  end(): number {
    const length = this.varint();
    const end = this.at + length;
    if (end > this.bytes.length) throw new RangeError("cut off");
    return end;
  }

  text(): string {
    const end = this.end();
    const start = this.at;
    this.at = end;
    return this.bytes.latin1Slice(start, end);
  }

  slice(): Uint8Array {
    const end = this.end();
    const start = this.at;
    this.at = end;
    return this.bytes.subarray(start, end);
  }
}

export function readWorkload(bytes: Uint8Array): unknown {
  const cursor = new Cursor(bytes);
  const workload = {
    uid: "",
    name: "",
    namespace: "",
    addresses: [] as Uint8Array[],
    hostname: "",
    network: "",
    tunnelProtocol: 0,
    trustDomain: "",
    serviceAccount: "",
    waypoint: undefined as unknown,
    networkGateway: undefined as unknown,
    node: "",
    canonicalName: "",
    canonicalRevision: "",
    workloadType: 0,
    workloadName: "",
    nativeTunnel: false,
    authorizationPolicies: [] as string[],
    status: 0,
    clusterId: "",
    services: new Map<string, unknown>(),
    applicationTunnel: undefined as unknown,
    locality: undefined as unknown,
    networkMode: 0,
    extensions: [] as unknown[],
    capacity: undefined as number | undefined,
  };
  while (cursor.at < bytes.length) {
    switch (cursor.varint() >>> 3) {
      case 1:
        workload.name = cursor.text();
        break;
      case 2:
        workload.namespace = cursor.text();
        break;
      case 3:
        workload.addresses.push(cursor.slice());
        break;
      case 5:
        workload.tunnelProtocol = cursor.varint();
        break;
      case 7:
        workload.serviceAccount = cursor.text();
        break;
      case 8:
        workload.waypoint = readGateway(cursor, cursor.end());
        break;
      case 9:
        workload.node = cursor.text();
        break;
      case 10:
        workload.canonicalName = cursor.text();
        break;
      case 11:
        workload.canonicalRevision = cursor.text();
        break;
      case 12:
        workload.workloadType = cursor.varint();
        break;
      case 13:
        workload.workloadName = cursor.text();
        break;
      case 16:
        workload.authorizationPolicies.push(cursor.text());
        break;
      case 17:
        workload.status = cursor.varint();
        break;
      case 18:
        workload.clusterId = cursor.text();
        break;
      case 20:
        workload.uid = cursor.text();
        break;
      case 22:
        readService(cursor, cursor.end(), workload.services);
        break;
      case 24:
        workload.locality = readLocality(cursor, cursor.end());
        break;
      case 27:
        workload.capacity = readNumber(cursor, cursor.end());
        break;
      default:
        throw new RangeError("a field that the fixture has not");
    }
  }
  return workload;
}

function readGateway(cursor: Cursor, end: number): unknown {
  const gateway = { destination: undefined as unknown, hboneMtlsPort: 0 };
  while (cursor.at < end) {
    if (cursor.varint() >>> 3 === 1) {
      const host = { namespace: "", hostname: "" };
      const hostEnd = cursor.end();
      while (cursor.at < hostEnd) {
        if (cursor.varint() >>> 3 === 1) host.namespace = cursor.text();
        else host.hostname = cursor.text();
      }
      gateway.destination = { kind: "hostname", value: host };
    } else gateway.hboneMtlsPort = cursor.varint();
  }
  return gateway;
}

function readService(cursor: Cursor, end: number, services: Map<string, unknown>): void {
  let key = "";
  const ports: unknown[] = [];
  while (cursor.at < end) {
    if (cursor.varint() >>> 3 === 1) {
      key = cursor.text();
      continue;
    }
    const listEnd = cursor.end();
    while (cursor.at < listEnd) {
      cursor.varint();
      const portEnd = cursor.end();
      const port = { servicePort: 0, targetPort: 0, appProtocol: 0 };
      while (cursor.at < portEnd) {
        const field = cursor.varint() >>> 3;
        if (field === 1) port.servicePort = cursor.varint();
        else if (field === 2) port.targetPort = cursor.varint();
        else port.appProtocol = cursor.varint();
      }
      ports.push(port);
    }
  }
  services.set(key, { ports });
}

function readLocality(cursor: Cursor, end: number): unknown {
  const locality = { region: "", zone: "", subzone: "" };
  while (cursor.at < end) {
    const field = cursor.varint() >>> 3;
    if (field === 1) locality.region = cursor.text();
    else if (field === 2) locality.zone = cursor.text();
    else locality.subzone = cursor.text();
  }
  return locality;
}

function readNumber(cursor: Cursor, end: number): number {
  let value = 0;
  while (cursor.at < end) {
    cursor.varint();
    value = cursor.varint();
  }
  return value;
}

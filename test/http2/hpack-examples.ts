/** The examples of RFC 7541 appendix C. */

export interface HpackBlock {
  readonly hex: string;
  readonly fields: readonly (readonly [name: string, value: string])[];
}

/** Name, value, name, value … */
export function pairs(block: HpackBlock): string[] {
  return block.fields.flat();
}

/** SETTINGS_HEADER_TABLE_SIZE of these examples is 256; here a size update says so. */
const TABLE_OF_256 = "3fe101";

const REQUESTS = [
  [
    [":method", "GET"],
    [":scheme", "http"],
    [":path", "/"],
    [":authority", "www.example.com"],
  ],
  [
    [":method", "GET"],
    [":scheme", "http"],
    [":path", "/"],
    [":authority", "www.example.com"],
    ["cache-control", "no-cache"],
  ],
  [
    [":method", "GET"],
    [":scheme", "https"],
    [":path", "/index.html"],
    [":authority", "www.example.com"],
    ["custom-key", "custom-value"],
  ],
] as const;

const RESPONSES = [
  [
    [":status", "302"],
    ["cache-control", "private"],
    ["date", "Mon, 21 Oct 2013 20:13:21 GMT"],
    ["location", "https://www.example.com"],
  ],
  [
    [":status", "307"],
    ["cache-control", "private"],
    ["date", "Mon, 21 Oct 2013 20:13:21 GMT"],
    ["location", "https://www.example.com"],
  ],
  [
    [":status", "200"],
    ["cache-control", "private"],
    ["date", "Mon, 21 Oct 2013 20:13:22 GMT"],
    ["location", "https://www.example.com"],
    ["content-encoding", "gzip"],
    ["set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"],
  ],
] as const;

export const HPACK_EXAMPLES: readonly {
  readonly section: string;
  readonly blocks: readonly HpackBlock[];
}[] = [
  {
    section: "C.2.1, a literal that is kept",
    blocks: [
      {
        hex: "400a637573746f6d2d6b65790d637573746f6d2d686561646572",
        fields: [["custom-key", "custom-header"]],
      },
    ],
  },
  {
    section: "C.2.2, a literal that is not kept",
    blocks: [{ hex: "040c2f73616d706c652f70617468", fields: [[":path", "/sample/path"]] }],
  },
  {
    section: "C.2.3, a literal that is never kept",
    blocks: [{ hex: "100870617373776f726406736563726574", fields: [["password", "secret"]] }],
  },
  { section: "C.2.4, an indexed field", blocks: [{ hex: "82", fields: [[":method", "GET"]] }] },
  {
    section: "C.3, requests without Huffman coding",
    blocks: blocks(REQUESTS, [
      "828684410f7777772e6578616d706c652e636f6d",
      "828684be58086e6f2d6361636865",
      "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
    ]),
  },
  {
    section: "C.4, requests with Huffman coding",
    blocks: blocks(REQUESTS, [
      "828684418cf1e3c2e5f23a6ba0ab90f4ff",
      "828684be5886a8eb10649cbf",
      "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
    ]),
  },
  {
    section: "C.5, responses without Huffman coding",
    blocks: blocks(RESPONSES, [
      `${TABLE_OF_256}4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a3231` +
        "20474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d",
      "4803333037c1c0bf",
      "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a6970" +
        "7738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167" +
        "653d333630303b2076657273696f6e3d31",
    ]),
  },
  {
    section: "C.6, responses with Huffman coding",
    blocks: blocks(RESPONSES, [
      `${TABLE_OF_256}488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad17` +
        "1863c78f0b97c8e9ae82ae43d3",
      "4883640effc1c0bf",
      "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6" +
        "c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
    ]),
  },
];

function blocks(
  fields: readonly (readonly (readonly [string, string])[])[],
  hex: readonly string[],
): readonly HpackBlock[] {
  return fields.map((list, i) => ({ hex: hex[i] ?? "", fields: list }));
}

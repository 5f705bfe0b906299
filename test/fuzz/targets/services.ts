/**
 * @module test/fuzz/targets/services
 *
 * What an authenticated peer says of streams, services, copies and deposits; and the files and words that name
 * services.
 */

import { RecordReader } from "../../../src/channel/record-bytes.ts"
import { HEAD_WORDS } from "../../../src/channel/record.ts"
import { encodeStatement, parseStatement } from "../../../src/channel/deposit-statement.ts"
import { targetAndService } from "../../../src/cli/guest/service-target.ts"
import { COPY_MESSAGES } from "../../../src/guest/copy/messages.ts"
import { checkLinkText, checkName, componentsOf } from "../../../src/guest/copy/names.ts"
import { parseService } from "../../../src/guest/services/service-file.ts"
import { SERVICE_REQUESTS, decodeRequest } from "../../../src/guest/services/requests.ts"
import { addressText, parseAddress } from "../../../src/guest/streams/address.ts"
import { STREAM_FRAMES, decodeFrame } from "../../../src/guest/streams/frames.ts"
import { concat, equalBytes, fromUtf8, utf8 } from "../../../src/lib/bytes.ts"
import { MvmError } from "../../../src/lib/errors.ts"
import { parseEventLine } from "../../../src/platform/libvirt/events.ts"
import { messageBytes } from "../grammar.ts"
import { promise, type Target } from "../target.ts"
import { rows } from "./wire.ts"

function textOf(input: Uint8Array): string {
  try {
    return fromUtf8(input)
  } catch (cause) {
    throw new MvmError("config", "not utf-8", { cause })
  }
}

const streamFrame: Target = {
  name: "stream-frame",
  generate: (random) => messageBytes(random, random.pick(Object.values(STREAM_FRAMES.rows))),
  run: (input) => decodeFrame(input, (input[0] ?? 0) % 2 === 0 ? "asker" : "answerer").name,
}

const serviceRequest: Target = {
  name: "service-request",
  generate: (random) => messageBytes(random, random.pick(Object.values(SERVICE_REQUESTS.rows))),
  run: (input) => decodeRequest(input).name,
}

/** One file of each kind of service, with every key that goes with it. */
const SERVICES = [
  `command = ["/usr/bin/tar", "-c", "/srv"]
user = "nobody"
directory = "/srv"
environment = { LANG = "C" }
eof = "close"
pty = false
max_runs = 4
max_time = "5m"
max_bytes = "1 GiB"
source = "web"
`,
  'tcp = "127.0.0.1:5432"\nsource = "web"\nmax_runs = 2\n',
  'unix = "/run/db.sock"\neof = "end"\nmax_time = "10s"\n',
  `copy = "/srv"
read_only = true
max_files = 10
min_free = "1G"
max_bytes = "1 GiB"
links = "inside"
`,
]
const SERVICE_LINES = [
  ...SERVICES.flatMap((file) => file.split("\n")),
  "write_only = true",
  "environment = { MVM_X = 1 }",
  "[environment]",
  'command = "/bin/true"',
  'max_time = "0s"',
  "max_runs = -1",
]

const serviceFile: Target = {
  name: "service-file",
  seeds: () => SERVICES.map(utf8),
  generate: (random) => {
    const more = (): string => random.pick(SERVICE_LINES)
    const lines = [random.pick(SERVICES), ...Array.from({ length: random.below(4) }, more)]
    return utf8((random.once(2) ? lines : lines.slice(1)).join("\n"))
  },
  words: [
    "command = ",
    "tcp = ",
    "unix = ",
    "copy = ",
    "[",
    "]",
    "{",
    '"',
    "\n",
    "= ",
    "[[a]]",
    "1e400",
    "environment.",
  ],
  run: (input) => {
    const { name } = parseService(textOf(input), "s", "s.toml")
    promise(name === "s", "another name")
    return "service"
  },
}

const copyNames: Target = {
  name: "copy-names",
  taken: /^name link path$/,
  seeds: () =>
    ["file.txt", "a/b/../c", "/etc/passwd", ".mvm-part-" + "0".repeat(32), "..", "x/./y//z"].map(utf8),
  words: ["..", "/", ".", "\u0000", "\u001b", "../", "a"],
  run: (input) => {
    const said: string[] = []
    const tryEach: [string, () => void][] = [
      ["name", () => checkName(input)],
      ["link", () => checkLinkText(input, 2, "inside")],
      [
        "path",
        () => {
          for (const name of componentsOf(input)) {
            promise(
              name.length > 0 && !name.includes(0x2f) && !name.includes(0),
              "a component that is a path",
            )
            promise(!(name.length <= 2 && name.every((byte) => byte === 0x2e)), "a component of dots")
          }
        },
      ],
    ]
    for (const [what, run] of tryEach) {
      try {
        run()
        said.push(what)
      } catch (error) {
        if (!(error instanceof MvmError)) throw error
      }
    }
    return said.join(" ")
  },
}

const filled = (lengthBytes: number): Uint8Array => new Uint8Array(lengthBytes).fill(lengthBytes)

const statement: Target = {
  name: "deposit-statement",
  seeds: () => [
    encodeStatement({
      depositId: filled(16),
      timeMs: 1_700_000_000_000,
      expiresMs: 1_700_000_900_000,
      source: {
        uuid: filled(16),
        name: "alpha",
        identityKey: filled(65),
        verdict: "trusted",
        bootId: filled(16),
        kind: "kernel",
        program: { path: "/usr/bin/mvm", digest: filled(32) },
      },
      targetUuid: filled(16),
      targetName: "beta",
      service: "nightly",
      rule: "policy.toml:3",
      lengthBytes: 1000,
      storedBytes: 1100,
      records: 3,
      hash: filled(32),
      nonce: filled(32),
      epoch: filled(16),
      programUid: 1000,
      sourceSignature: filled(64),
      mvmMeasurement: filled(32),
    }),
  ],
  words: ["untrusted", "agent", "\u0000", "\u001b", "\u202e"],
  run: (input) => {
    promise(equalBytes(encodeStatement(parseStatement(input)), input), "another encoding")
    return "statement"
  },
}

const keptRecords: Target = {
  name: "kept-records",
  taken: /^1/,
  generate: (random) =>
    concat(
      ...Array.from({ length: random.below(5) }, () => {
        const payload = random.bytes(random.length(400))
        const head = new Uint8Array(4 * HEAD_WORDS)
        new DataView(head.buffer).setUint32(0, random.once(10) ? random.u32() : payload.length, true)
        return concat(head, payload)
      }),
    ),
  run: (input) => {
    const reader = new RecordReader()
    const head = new Uint32Array(HEAD_WORDS)
    let taken = 0
    for (let at = 0; at < input.length; at += 97) {
      reader.push(input.subarray(at, at + 97))
      for (let record = reader.next(head); record; record = reader.next(head)) taken += record.length + 24
    }
    promise(taken + reader.restBytes === input.length, "bytes were lost between records")
    return `${Math.min(taken, 1)}`
  },
}

const address: Target = {
  name: "service-address",
  taken: /^taken taken$/,
  seeds: () => ["127.0.0.1:80", "[::1]:65535", "unix:/run/x.sock", "/run/x", "db:web"].map(utf8),
  words: [":", "[", "]", "unix:", "/", "65536", "0", "localhost"],
  run: (input) => {
    const typed = textOf(input)
    const said: string[] = []
    for (const run of [
      () => addressText(parseAddress(typed, "address")),
      () => targetAndService(typed).target,
    ]) {
      try {
        run()
        said.push("taken")
      } catch (error) {
        if (!(error instanceof MvmError)) throw error
        said.push(error.code)
      }
    }
    return said.join(" ")
  },
}

const virsh: Target = {
  name: "virsh-event",
  taken: /^event$/,
  seeds: () => [
    utf8(`event SHUTDOWN at 1700000000.000001 for domain 'web': {"guest":true,"reason":"guest-reset"}`),
  ],
  words: ["event ", "'", " for domain '", "RESET", "': ", "{", "}", "<null>", "web"],
  run: (input) => (parseEventLine(textOf(input), ["web", "we'b': "]) === undefined ? "none" : "event"),
}

export const SERVICE_TARGETS: readonly Target[] = [
  streamFrame,
  serviceRequest,
  ...rows(STREAM_FRAMES, "stream", ["asker", "answerer"]),
  ...rows(SERVICE_REQUESTS, "service", ["asker", "answerer"]),
  ...rows(COPY_MESSAGES, "copy", ["sender", "receiver"]),
  serviceFile,
  copyNames,
  statement,
  keptRecords,
  address,
  virsh,
]

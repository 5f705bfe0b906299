/**
 * @module test/fuzz/targets/host
 *
 * What operators bring: policy, reference values and images, evidence from elsewhere, requests on the control
 * socket, sizes and times.
 */

import { fromUtf8, toHex, utf8 } from "../../../src/lib/bytes.ts"
import { p256PublicKey, p256Sign, sha256 } from "../../../src/lib/crypto.ts"
import { MvmError } from "../../../src/lib/errors.ts"
import { formatDuration, formatSize, parseDuration, parseSize } from "../../../src/lib/units.ts"
import { boolean, integer, optionalInteger, text, texts } from "../../../src/mvm/control/params.ts"
import { bundleMessage, parseBody, parseBundle } from "../../../src/mvm/evidence/bundle.ts"
import { verifyEvidence } from "../../../src/mvm/evidence/verify.ts"
import { decide } from "../../../src/mvm/policy/decide.ts"
import { lint } from "../../../src/mvm/policy/lint.ts"
import { parsePolicy } from "../../../src/mvm/policy/parse.ts"
import { matchGlob, parsePattern } from "../../../src/mvm/policy/pattern.ts"
import { cpioReference } from "../../../src/mvm/reference/cpio.ts"
import { formatReference, parseReference } from "../../../src/mvm/reference/file.ts"
import { parseSha256sum } from "../../../src/mvm/reference/sha256sum.ts"
import { parseSigningKey, verifySignedReference } from "../../../src/mvm/reference/signature.ts"
import { LineReader } from "../../../src/platform/json-rpc.ts"
import { mutateJson } from "../json.ts"
import type { Random } from "../random.ts"
import { corpusFiles, promise, type Target } from "../target.ts"

const PRIVATE = sha256(new Uint8Array(1))
const KEY = p256PublicKey(PRIVATE)
const HEX = "ab".repeat(32)

/** Text a decoder is given only when it is UTF-8, as its callers do. */
function textOf(input: Uint8Array): string {
  try {
    return fromUtf8(input)
  } catch (cause) {
    throw new MvmError("config", "not utf-8", { cause })
  }
}

const POLICY = `[settings]
measurement = ["kernel", "agent"]
[tags]
front = ["web", "web2"]
[[rule]]
service = ["nightly", "log-*"]
from = "tag:front"
to = "@any"
action = "allow"
target = "backup"
programs = ["/usr/bin/mvm", { path = "/usr/bin/tar", digest = "${HEX}" }]
max_bytes = "10 GiB"
max_seconds = 60
max_channels = 4
transport = "memory"
isolation = "arena"
digest = "sha256"
comment = "nightly dumps"
[[rule]]
service = "@any"
from = "?"
to = "*"
action = "deny"
`

const POLICY_LINES = [
  ...POLICY.split("\n"),
  "a.b.c = { d = [[[1]]], e = 1979-05-27T07:32:00Z }",
  '"" = """\n\\u00e9"""',
  "x = 0xffffffffffffffff",
  "[[rule.rule]]",
  "[rule]",
  "= 1",
  "measurement = []",
]

const policy: Target = {
  name: "policy",
  taken: /^allow/,
  seeds: () => [utf8(POLICY)],
  words: [
    "[[rule]]",
    "[",
    "]",
    "{",
    '"',
    "'''",
    "\\u0000",
    "@any",
    "tag:",
    "*",
    "\n",
    "= ",
    "nan",
    "1e400",
    "-0",
  ],
  generate: (random) => {
    const lines = linesOf(random, POLICY_LINES)
    return utf8((random.once(3) ? [POLICY, ...lines.slice(0, 4)] : lines).join("\n"))
  },
  run: (input) => {
    const parsed = parsePolicy(textOf(input), "policy.toml")
    lint(parsed)
    const party = (name: string) => ({ name, tags: ["front"] })
    const program = { path: "/usr/bin/mvm", digest: HEX }
    const decision = decide(parsed, { service: "log-a", from: party("web"), to: party("b"), program })
    promise(decision.action === "deny" || parsed.rules.length > 0, "allowed without a rule")
    return decision.action
  },
}

function linesOf(random: Random, from: readonly string[]): string[] {
  return Array.from({ length: random.below(24) }, () => random.pick(from))
}

const pattern: Target = {
  name: "policy-pattern",
  taken: /^pattern true/,
  seeds: () =>
    ["a*b?c\u0000aXbYc", "*a*a*a*a*a*\u0000aaaaaaaaaaaaaaaaaaaaaaaaaaaab", "tag:x\u0000y"].map(utf8),
  words: ["*", "?", "tag:", "@any", "\u0000", "a"],
  run: (input) => {
    const [glob = "", name = ""] = textOf(input).split("\u0000")
    const parsed = parsePattern(glob, "vm")
    return `${parsed ? "pattern" : "none"} ${matchGlob(glob.slice(0, 256), name.slice(0, 256))}`
  },
}

const REFERENCE = `# mvm reference 1
# measurement: kernel
# violations: deny
# required: boot_aggregate
# exclude: /var/**
# pcr 7: ${HEX}
${HEX}  boot_aggregate
${HEX}  /usr/bin/a_b\\x20c
`

const reference: Target = {
  name: "reference-file",
  seeds: () => [utf8(REFERENCE)],
  words: ["# required: ", "# exclude: ", "# pcr 0: ", "# measurement: agent\n", "\n", "\\x", HEX],
  generate: (random) => utf8(["# mvm reference 1", ...linesOf(random, REFERENCE.split("\n"))].join("\n")),
  run: (input) => {
    const table = parseReference(input)
    const again = parseReference(utf8(formatReference(table)))
    promise(formatReference(again) === formatReference(table), "it reads back as another table")
    return "table"
  },
}

const signed: Target = {
  name: "signed-reference",
  seeds: () => [utf8(HEX), new Uint8Array(64), utf8("A".repeat(86) + "==")],
  run: (input) => {
    const key = input.length > 32 ? input.slice(0, 32) : sha256(input)
    verifySignedReference(utf8(REFERENCE), input, [key])
    promise(false, "a signature that nobody made verified")
    return ""
  },
}

const signingKey: Target = {
  name: "signing-key",
  seeds: () => [
    utf8(HEX),
    utf8(
      "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n",
    ),
  ],
  words: ["-----BEGIN PUBLIC KEY-----\n", "-----END PUBLIC KEY-----", "\n", "MCow"],
  run: (input) => {
    promise(parseSigningKey(textOf(input)).length === 32, "a key of another length")
    return "key"
  },
}

const sha256sum: Target = {
  name: "sha256sum",
  seeds: () => [utf8(`${HEX}  ./usr/bin/x\n\\${HEX} *a\\nb\\\\c\n`)],
  words: [HEX, "  ", " *", "\\", "\n", "../", "/"],
  run: (input) => {
    for (const path of parseSha256sum(input).keys())
      promise(path.startsWith("/"), "a path that is not absolute")
    return "listing"
  },
}

function cpioEntry(name: string, content: Uint8Array, mode: number): Uint8Array {
  const fields = [1, mode, 0, 0, 1, 0, content.length, 0, 0, 0, 0, name.length + 1, 0]
  const head = utf8(`070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}${name}\0`)
  const pad = (bytes: Uint8Array): Uint8Array => {
    const out = new Uint8Array(Math.ceil(bytes.length / 4) * 4)
    out.set(bytes)
    return out
  }
  return new Uint8Array([...pad(head), ...pad(content)])
}

const ARCHIVE = new Uint8Array([
  ...cpioEntry("usr/bin/x", utf8("#!/bin/sh\n"), 0o100755),
  ...cpioEntry("lib", new Uint8Array(0), 0o040755),
  ...cpioEntry("TRAILER!!!", new Uint8Array(0), 0),
])

const cpio: Target = {
  name: "cpio",
  seeds: () => [ARCHIVE, Bun.gzipSync(ARCHIVE), Bun.zstdCompressSync(ARCHIVE)],
  words: ["070701", "070702", "TRAILER!!!\0", "00000000", "ffffffff", "000081a4", "\u001f"],
  run: (input) => {
    for (const path of cpioReference(input, { all: true }).keys())
      promise(path.startsWith("/"), "a relative path")
    return "image"
  },
}

/** A captured bundle, its body changed and signed again by a key that the file brings along. */
function signedBundle(random: Random): Uint8Array {
  const captured = corpusFiles("seeds", "evidence-bundle")
  if (captured.length === 0) return utf8("{}")
  const file = JSON.parse(fromUtf8(random.pick(captured).bytes)) as Record<string, unknown>
  let bodyValue: unknown = JSON.parse(String(file["body"]))
  for (let changes = random.below(3); changes > 0; changes--) bodyValue = mutateJson(random, bodyValue)
  const bodyText = JSON.stringify(bodyValue) ?? "null"
  const again = {
    ...file,
    mvmKey: toHex(KEY),
    body: bodyText,
    signature: toHex(p256Sign(PRIVATE, bundleMessage(bodyText))),
  }
  return utf8(JSON.stringify(random.once(3) ? mutateJson(random, again) : again) ?? "null")
}

const bundle: Target = {
  name: "evidence-bundle",
  taken: /^held \/ held$/,
  seeds: () => [utf8('{"format":"mvm evidence 1"}')],
  generate: signedBundle,
  words: ['"ends":[]', "null", "{}", "[]", '""', '"logs":', '"mvmKey":', "1e999", '"__proto__":'],
  run: (input) => {
    const source = textOf(input)
    // What a file says that brings its own key is looked at whole, its signature first.
    const { bodyText } = parseBundle(source)
    const outcomes = [() => parseBody(bodyText), () => verifyEvidence(source)].map(refusalOf)
    return outcomes.join(" / ")
  },
}

function refusalOf(run: () => unknown): string {
  try {
    run()
    return "held"
  } catch (error) {
    if (error instanceof MvmError) return `${error.code} ${error.message.split(":")[0]}`
    throw error
  }
}

const body: Target = {
  name: "evidence-body",
  words: ['"ends":[', "null", "{}", "[]", '""', "1e999", '"quote":{"pcrs":[]}', '"failed":[]'],
  seeds: () => [
    utf8(
      '{"ends":[{"vm":"a","uuid":"","kind":"","bootId":"","purpose":"","verdict":"","quote":{"pcrs":[]},"failed":[]}]}',
    ),
  ],
  generate: (random) => {
    const captured = corpusFiles("seeds", "evidence-bundle")
    const text = captured.length === 0 ? "{}" : fromUtf8(random.pick(captured).bytes)
    const bodyText = String((JSON.parse(text) as { body?: unknown }).body ?? "{}")
    return utf8(JSON.stringify(mutateJson(random, JSON.parse(bodyText))) ?? "null")
  },
  run: (input) => {
    parseBody(textOf(input))
    return "body"
  },
}

const REQUEST = { id: 1, method: "vm.create", params: { name: "a", tags: ["x"], cpus: 2, force: true } }

const controlLine: Target = {
  name: "control-socket",
  taken: /^held$/,
  generate: (random) => utf8(`${JSON.stringify(mutateJson(random, REQUEST))}\n`),
  seeds: () => [
    utf8('{"id":1,"method":"vm.create","params":{"name":"a","tags":["x"],"cpus":2}}\n{"id":2}\n'),
  ],
  words: ["\n", '"params":', "null", "[]", "{}", "1e400", '"id":', '"method":"__proto__"'],
  run: (input) => {
    const lines: string[] = []
    const reader = new LineReader((line) => lines.push(line))
    for (let at = 0; at < input.length; at += 7) reader.push(input.subarray(at, at + 7))
    promise(
      lines.every((line) => !line.includes("\n")),
      "a line with a line feed",
    )
    return lines.length === 0 ? "nothing" : refusalOf(() => paramsOf(lines[0]!))
  },
}

function paramsOf(line: string): void {
  let params: Record<string, unknown>
  try {
    params = ((JSON.parse(line) as { params?: unknown }).params ?? {}) as Record<string, unknown>
  } catch (cause) {
    throw new MvmError("usage", "not json", { cause })
  }
  boolean(params, "force")
  texts(params, "tags")
  optionalInteger(params, "cpus")
  text(params, "name")
  integer(params, "cpus")
}

const units: Target = {
  name: "units",
  taken: /^held \/ held$/,
  seeds: () => ["1.5 MiB", "250ms", "10", "1e3", "9999999999999999"].map(utf8),
  words: ["K", "MiB", "ms", ".", "-", " ", "\t", "9999999999999999", "00000000000000000000"],
  run: (input) => {
    const typed = textOf(input)
    const seen = [
      () => formatSize(parseSize(typed, "size")),
      () => formatDuration(parseDuration(typed, "time")),
    ]
    return seen.map((run) => refusalOf(run)).join(" / ")
  },
}

export const HOST_TARGETS: readonly Target[] = [
  policy,
  pattern,
  reference,
  signed,
  signingKey,
  sha256sum,
  cpio,
  bundle,
  body,
  controlLine,
  units,
]

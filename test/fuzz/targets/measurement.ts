/**
 * @module test/fuzz/targets/measurement
 *
 * Evidence as a guest sends it: quotes, the kernel's log, the firmware's log; and what they are held against.
 */

import { concat, toHex, utf8 } from "../../../src/lib/bytes.ts"
import { p256PublicKey, p256Sign, sha256 } from "../../../src/lib/crypto.ts"
import { authenticodeSha256 } from "../../../src/tcb/measurement/authenticode.ts"
import { checkEventLog, parseEventLog, replayEventLog } from "../../../src/tcb/measurement/event-log.ts"
import { compileGlob } from "../../../src/tcb/measurement/glob.ts"
import { encodeImaEntry } from "../../../src/tcb/measurement/ima-encode.ts"
import { parseImaEntries, templateDigestSha1 } from "../../../src/tcb/measurement/ima-log.ts"
import { isPathText, kernelPathText, pathText } from "../../../src/tcb/measurement/measured-path.ts"
import { qemuKernelImage } from "../../../src/tcb/measurement/qemu-kernel.ts"
import { verifyQuote } from "../../../src/tcb/measurement/quote.ts"
import { MeasurementLog } from "../../../src/tcb/measurement/replay.ts"
import { BOOTS, OVMF_BOOT } from "../../tcb/measurement/measured-boots.ts"
import authenticode from "../../vectors/authenticode.json"
import type { Random } from "../random.ts"
import { promise, type Target } from "../target.ts"

/** The beginning of a real log: a few entries are as good as all, and quicker. */
const LOGS = BOOTS.map(({ imaLog }) => imaLog.subarray(0, 4000))
const PATHS = ["/usr/bin/mvm", "boot_aggregate", "/tmp/a b", "memfd:x", "/\u202e", "//", "/a\\x20"]
const PRIVATE = sha256(new Uint8Array(1))
const KEY = p256PublicKey(PRIVATE)

/** Entries whose outer frame is right (SHA-1 too), so that what is inside is looked at. */
function entries(random: Random): Uint8Array {
  return concat(...Array.from({ length: 1 + random.below(4) }, () => entry(random)))
}

function entry(random: Random): Uint8Array {
  const field = (bytes: Uint8Array): Uint8Array =>
    concat(le32(random.once(40) ? random.u32() : bytes.length), bytes)
  const isViolation = random.once(8)
  const algorithm = random.once(12) ? random.pick(["sha1:", "sha512:", "md5:", "", "x", "sha256"]) : "sha256:"
  const digest = isViolation
    ? new Uint8Array(random.pick([20, 32, 32, 31]))
    : random.bytes(random.once(12) ? random.below(70) : 32)
  const path = random.once(3) ? random.bytes(1 + random.length(5000)) : utf8(random.pick(PATHS))
  const end = random.once(20) ? random.bytes(random.below(3)) : new Uint8Array(1)
  const template = random.once(10)
    ? random.pick(["ima-ng", "ima-buf", "ima-sigv2", "ima", "d|n", ""])
    : "ima-sig"
  const last =
    template === "ima-ng" ? new Uint8Array(0) : field(random.bytes(random.once(4) ? random.below(300) : 0))
  const data = concat(field(concat(utf8(`${algorithm}\0`), digest)), field(concat(path, end)), last)
  const sha1 = isViolation
    ? new Uint8Array(20)
    : random.once(20)
      ? random.bytes(20)
      : templateDigestSha1(data)
  return concat(le32(random.once(30) ? random.below(24) : 10), sha1, field(utf8(template)), field(data))
}

function le32(value: number): Uint8Array {
  const out = new Uint8Array(4)
  new DataView(out.buffer).setUint32(0, value, true)
  return out
}

/** The captured header and events of the log's own form. */
function events(random: Random): Uint8Array {
  const event = (): Uint8Array => {
    const data = random.once(5)
      ? utf8(`StartupLocality\0${String.fromCharCode(random.below(6))}`)
      : random.bytes(random.length(200))
    const count = random.once(30) ? random.below(4) : 1
    const algorithm = random.once(30) ? random.bytes(2) : Uint8Array.of(0x0b, 0)
    const size = le32(random.once(40) ? random.u32() : data.length)
    return concat(
      le32(random.below(random.once(20) ? 40 : 11)),
      le32(random.pick([3, 8, 0xd, random.u32()])),
      le32(count),
      algorithm,
      random.bytes(32),
      size,
      data,
    )
  }
  return concat(OVMF_BOOT.eventLog.subarray(0, 65), ...Array.from({ length: random.below(8) }, event))
}

const imaLog: Target = {
  name: "ima-log",
  taken: /^4/,
  seeds: () => LOGS,
  generate: entries,
  run: (input) => {
    const { entries, consumedBytes } = parseImaEntries(input, 0, { more: true })
    const total = entries.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)
    promise(total === consumedBytes && consumedBytes <= input.length, "entries are longer than the log")
    for (const { path } of entries) promise(path === "" || isPathText(path), "a path that cannot be shown")
    return `${Math.min(entries.length, 4)} entries`
  },
}

const replay: Target = {
  name: "ima-replay",
  seeds: () => LOGS,
  generate: entries,
  run: (input) => {
    const log = new MeasurementLog()
    const cut = input.length >> 1
    log.add(input.subarray(0, cut), 0)
    log.add(input.subarray(cut >> 1), cut >> 1)
    promise(log.nextOffset === input.length, "the log forgot where it is")
    const { entries } = parseImaEntries(input, 0, { more: true })
    let pcr: Uint8Array = new Uint8Array(32)
    for (const { extendDigest } of entries) pcr = sha256(pcr, extendDigest)
    const matched = log.match(pcr)
    promise(matched.length === entries.length, "it matched another number of entries")
    return "matched"
  },
}

const eventLog: Target = {
  name: "event-log",
  seeds: () => BOOTS.map(({ eventLog }) => eventLog),
  generate: events,
  run: (input) => {
    const events = parseEventLog(input)
    for (const value of replayEventLog(events).values())
      promise(value.length === 32, "a pcr of another length")
    checkEventLog(events, OVMF_BOOT.pcrs)
    return "explains"
  },
}

/** What a TPM signed, whatever it is: the signature is made here, so that all behind it is reached. */
const quote: Target = {
  name: "quote",
  seeds: () => BOOTS.map(({ quote }) => quote.attest),
  run: (input) => {
    const { pcrs, qualifyingData } = OVMF_BOOT
    const signature = p256Sign(PRIVATE, input)
    const verified = verifyQuote({ attest: input, signature, pcrs }, { attestationKey: KEY, qualifyingData })
    promise(
      verified.pcrs.every((value) => value.length === 32),
      "a pcr of another length",
    )
    return "verified"
  },
}

const path: Target = {
  name: "measured-path",
  seeds: () => [new TextEncoder().encode("/usr/bin/a b\\c\u00e9\u202e")],
  run: (input) => {
    const text = pathText(input)
    promise(text === "" || isPathText(text), "not a path's text")
    promise(kernelPathText(input).length > 0 || input.length === 0, "the kernel's form is empty")
    return "path"
  },
}

const glob: Target = {
  name: "glob",
  taken: /^match$/,
  seeds: () =>
    ["/usr/**\u0000/usr/lib/a", "/a?*b\u0000/aXb", "**a**b**c**\u0000aaaaaaaaaaaaaaaaaaaaaaaaaaaa"].map(
      (text) => new TextEncoder().encode(text),
    ),
  words: ["*", "**", "?", "/", "\u0000", "a", "***", "𝒳"],
  run: (input) => {
    const [pattern = "", ...rest] = new TextDecoder().decode(input).split("\u0000")
    const isMatch = compileGlob(pattern)
    return rest.some(isMatch) ? "match" : "none"
  },
}

const image: Target = {
  name: "authenticode",
  seeds: () => authenticode.cases.map(({ image }) => Bun.gunzipSync(Uint8Array.fromBase64(image))),
  run: (input) => {
    promise(toHex(authenticodeSha256(input)).length === 64, "no digest")
    return "image"
  },
}

const kernel: Target = {
  name: "kernel-image",
  taken: /^placed$/,
  // Setup headers of protocol 2.15 and 2.6, loaded high: an initrd where the kernel says, or above 4 GiB.
  seeds: () =>
    [0x20f, 0x206].flatMap((protocol) =>
      [0, 2].map((xloadFlags) => {
        const bytes = new Uint8Array(1024)
        const view = new DataView(bytes.buffer)
        view.setUint32(0x202, 0x53726448, true)
        view.setUint16(0x206, protocol, true)
        view.setUint8(0x211, 1)
        view.setUint32(0x22c, 0x7fffffff, true)
        view.setUint16(0x236, xloadFlags, true)
        return bytes
      }),
    ),
  run: (input) => {
    const changed = qemuKernelImage(input, { machine: "pc", memoryBytes: 512 << 20, initrdBytes: 4096 })
    promise(changed === undefined || changed.length === input.length, "another length")
    return changed ? "placed" : "left"
  },
}

const encode: Target = {
  name: "ima-encode",
  seeds: () => [new TextEncoder().encode("/usr/bin/mvm")],
  run: (input) => {
    // The contract of the encoder: what the format cannot hold is a RangeError.
    const name = new TextDecoder().decode(input.subarray(0, 4000)).replaceAll("\0", "") || "/"
    const { bytes } = encodeImaEntry({ path: name.slice(0, 1000), sha256: sha256(input) })
    const { entries } = parseImaEntries(bytes, 0)
    promise(entries.length === 1, "what the agent writes is not one entry")
    return "entry"
  },
}

export const MEASUREMENT_TARGETS: readonly Target[] = [
  imaLog,
  replay,
  eventLog,
  quote,
  path,
  glob,
  image,
  kernel,
  encode,
]

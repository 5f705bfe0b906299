/**
 * @module bench/attest
 *
 * What the MVM's appraisal of one incremental request costs: quote verified, one new entry replayed and judged, in a
 * boot that has measured 100 or 10,000 files before.
 */

import { concat, utf8 } from "../../src/lib/bytes.ts"
import { p256Generate, p256Sign, p256Verify, sha256 } from "../../src/lib/crypto.ts"
import { Appraiser } from "../../src/tcb/measurement/appraise.ts"
import { encodeImaEntry, type EncodedImaEntry } from "../../src/tcb/measurement/ima-encode.ts"
import { BOOT_AGGREGATE_PCRS, verifyQuote, type UntrustedQuote } from "../../src/tcb/measurement/quote.ts"
import { allowFile, learnReference, type ReferenceTable } from "../../src/tcb/measurement/reference-table.ts"
import { MeasurementLog } from "../../src/tcb/measurement/replay.ts"
import { OVMF_BOOT } from "../tcb/measurement/measured-boots.ts"
import { figure, ratios, type Bench } from "./measure.ts"

const REQUESTS = 300
const AGAIN = { path: "/usr/bin/again", sha256: sha256(utf8("again")) }

const { publicKey, privateKey } = p256Generate()
const expected = { attestationKey: publicKey, qualifyingData: OVMF_BOOT.qualifyingData }

/** A real quote, signed by our key over other values of PCR 10. */
function quoteOf(pcr10: Uint8Array): UntrustedQuote {
  const pcrs = OVMF_BOOT.pcrs.with(10, pcr10)
  const attest = OVMF_BOOT.quote.attest.slice()
  attest.set(sha256(...pcrs), attest.length - 32)
  return { attest, signature: p256Sign(privateKey, attest), pcrs }
}

function fileEntry(i: number): EncodedImaEntry {
  return encodeImaEntry({ path: `/usr/lib/x86_64-linux-gnu/lib${i}.so`, sha256: sha256(utf8(`${i}`)) })
}

/** A boot that has measured `entries` files and was appraised once. */
class Boot {
  readonly #log = new MeasurementLog()
  readonly #appraiser: Appraiser
  #pcr10: Uint8Array = new Uint8Array(32)

  constructor(entries: number) {
    const aggregate = sha256(...BOOT_AGGREGATE_PCRS.map((index) => OVMF_BOOT.pcrs[index]!))
    const all = [encodeImaEntry({ path: "boot_aggregate", sha256: aggregate })]
    for (let i = 1; i < entries; i += 1) all.push(fileEntry(i))
    for (const entry of all) this.#extend(entry)
    this.#log.advance(concat(...all.map((entry) => entry.bytes)), 0, this.#pcr10)
    const pcrs = new Map([4, 9].map((index) => [index, OVMF_BOOT.pcrs[index]!]))
    const { table } = learnReference(this.#log.seen, { measurementKind: "kernel", required: [], pcrs })
    const whole: ReferenceTable = allowFile(table, AGAIN.path, AGAIN.sha256.toHex())
    this.#appraiser = new Appraiser({ table: whole, vm: "bench", kind: "kernel" })
    this.#appraiser.appraise(verifyQuote(quoteOf(this.#pcr10), expected), this.#log.seen)
  }

  /** CPU milliseconds of one request, over many. */
  appraiseMs(): number {
    const requests = Array.from({ length: REQUESTS }, () => {
      const { bytes } = this.#extend(encodeImaEntry(AGAIN))
      return { bytes, quote: quoteOf(this.#pcr10) }
    })
    return cpuMs(() => {
      for (const { bytes, quote } of requests) {
        this.#log.add(bytes, this.#log.nextOffset)
        const verified = verifyQuote(quote, expected)
        const { verdict } = this.#appraiser.appraise(verified, this.#log.match(verified.pcrs[10]!))
        if (verdict !== "trusted") throw new Error("the bench's own boot is not trusted")
      }
    })
  }

  #extend(entry: EncodedImaEntry): EncodedImaEntry {
    this.#pcr10 = sha256(this.#pcr10, entry.extendDigest)
    return entry
  }
}

function signatureMs(): number {
  const { attest, signature } = quoteOf(new Uint8Array(32))
  return cpuMs(() => {
    for (let i = 0; i < REQUESTS; i += 1) p256Verify(publicKey, attest, signature)
  })
}

/** User and system time of this process for one of {@link REQUESTS}. */
function cpuMs(work: () => void): number {
  const before = process.cpuUsage()
  work()
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 1000 / REQUESTS
}

export const bench: Bench = async ({ rounds, note }) => {
  const [short, long] = [new Boot(100), new Boot(10_000)]
  const shortMs: number[] = []
  const longMs: number[] = []
  const verifyMs: number[] = []
  // The first round warms up.
  for (let round = 0; round <= rounds; round += 1) {
    const [a, b, c] = [short.appraiseMs(), long.appraiseMs(), signatureMs()]
    if (round === 0) continue
    shortMs.push(a)
    longMs.push(b)
    verifyMs.push(c)
    note(`round ${round}: ${b.toFixed(3)} ms, ${c.toFixed(3)} ms of it the signature`)
  }
  return [
    figure("attest.appraise_cpu_ms", "ms", longMs, "<= 5"),
    figure("attest.signature_cpu_ms", "ms", verifyMs, "<= 2.5"),
    figure("attest.signature_share", "", ratios(verifyMs, longMs), "<= 0.5"),
    figure("attest.long_vs_short_log", "", ratios(longMs, shortMs), "<= 2"),
  ]
}

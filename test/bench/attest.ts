/**
 * @module bench/attest
 *
 * What the MVM's appraisal of one incremental request costs: quote verified, one new entry replayed, judged and kept
 * as evidence, in a boot that has measured 100 or 10,000 files before.
 */

import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { concat, utf8 } from "../../src/lib/bytes.ts"
import { p256Generate, p256Sign, p256Verify, random, sha256 } from "../../src/lib/crypto.ts"
import { Log } from "../../src/lib/log.ts"
import { EvidenceStore } from "../../src/mvm/evidence/store.ts"
import type { VmRecord } from "../../src/mvm/state/registry.ts"
import { uuidBytes, type Session } from "../../src/mvm/session.ts"
import { Verifier, type Evidence } from "../../src/mvm/verifier.ts"
import { encodeImaEntry, type EncodedImaEntry } from "../../src/tcb/measurement/ima-encode.ts"
import { evidenceQualifyingData } from "../../src/tcb/measurement/qualifying-data.ts"
import { GrantSealer } from "../../src/tcb/grant.ts"
import { BOOT_AGGREGATE_PCRS } from "../../src/tcb/measurement/quote.ts"
import { allowFile, learnReference } from "../../src/tcb/measurement/reference-table.ts"
import { MeasurementLog } from "../../src/tcb/measurement/replay.ts"
import { parseQuote } from "../../src/tpm/attest.ts"
import { OVMF_BOOT } from "../tcb/measurement/measured-boots.ts"
import { figure, ratios, type Bench } from "./measure.ts"

const REQUESTS = 300
const AGAIN = { path: "/usr/bin/again", sha256: sha256(utf8("again")) }

/** Behind magic, type and the signer's name. */
const EXTRA_DATA_AT = 44

const { publicKey, privateKey } = p256Generate()
const UUID = crypto.randomUUID()
const SESSION: Session = {
  epoch: random(16),
  bootId: "00".repeat(16),
  kind: "kernel",
  grants: new GrantSealer(publicKey, { recipientUuid: random(16), epoch: random(16) }),
  isReady: true,
  canMap: true,
  mapping: "",
  sinceMs: 0,
}
const SIGNED = signedQuote(new Uint8Array(32), new Uint8Array(32))

/** A real quote, signed by our key over other values of PCR 10 and other qualifying data. */
function signedQuote(pcr10: Uint8Array, qualifyingData: Uint8Array): Evidence["quote"] {
  const pcrs = OVMF_BOOT.pcrs.with(10, pcr10)
  const attest = OVMF_BOOT.quote.attest.slice()
  attest.set(qualifyingData, EXTRA_DATA_AT)
  attest.set(sha256(...pcrs), attest.length - 32)
  return { attest, signature: p256Sign(privateKey, attest), pcrs }
}

function evidenceOf(pcr10: Uint8Array): Evidence {
  const fields = { purpose: "request", nonce: random(32), binding: random(32) } as const
  const vmUuid = uuidBytes(UUID)
  return {
    ...fields,
    quote: signedQuote(pcr10, evidenceQualifyingData({ ...fields, vmUuid, epoch: SESSION.epoch })),
  }
}

function fileEntry(i: number): EncodedImaEntry {
  return encodeImaEntry({ path: `/usr/lib/x86_64-linux-gnu/lib${i}.so`, sha256: sha256(utf8(`${i}`)) })
}

/** A boot that has measured `entries` files and was appraised once. */
class Boot {
  readonly #verifier: Verifier
  #pcr10: Uint8Array = new Uint8Array(32)

  constructor(entries: number, store: EvidenceStore) {
    const aggregate = sha256(...BOOT_AGGREGATE_PCRS.map((index) => OVMF_BOOT.pcrs[index]!))
    const all = [encodeImaEntry({ path: "boot_aggregate", sha256: aggregate })]
    for (let i = 1; i < entries; i += 1) all.push(fileEntry(i))
    for (const entry of all) this.#extend(entry)
    const bytes = concat(...all.map((entry) => entry.bytes))
    const log = new MeasurementLog()
    log.advance(bytes, 0, this.#pcr10)
    const pcrs = new Map([4, 9].map((index) => [index, OVMF_BOOT.pcrs[index]!]))
    const { table } = learnReference(log.seen, { measurementKind: "kernel", required: [], pcrs })
    const whole = allowFile(table, AGAIN.path, AGAIN.sha256.toHex())
    this.#verifier = new Verifier(recordOf(), {
      reference: () => ({ table: whole, vm: "bench", kind: "kernel" }),
      onUntrusted: () => {},
      onUnseenReset: () => {},
      onClock: () => {},
      onApproved: () => {},
      store,
    })
    this.#verifier.expectBoot(parseQuote(OVMF_BOOT.quote.attest).resetCount)
    this.#verifier.addLog(0, bytes)
    this.#verifier.appraise(SESSION, evidenceOf(this.#pcr10))
  }

  /** CPU milliseconds of one request, over many. */
  appraiseMs(): number {
    const requests = Array.from({ length: REQUESTS }, () => {
      const { bytes } = this.#extend(encodeImaEntry(AGAIN))
      return { bytes, evidence: evidenceOf(this.#pcr10) }
    })
    return cpuMs(() => {
      for (const { bytes, evidence } of requests) {
        this.#verifier.addLog(this.#verifier.nextOffset, bytes)
        this.#verifier.appraise(SESSION, evidence)
      }
    })
  }

  #extend(entry: EncodedImaEntry): EncodedImaEntry {
    this.#pcr10 = sha256(this.#pcr10, entry.extendDigest)
    return entry
  }
}

/** As much of a record as an appraisal looks at. */
function recordOf(): VmRecord {
  const none = new Uint8Array(0)
  return {
    uuid: UUID,
    name: "bench",
    kind: "qemu",
    config: {
      memoryMiB: 512,
      cpus: 1,
      net: "none",
      firmware: "ovmf",
      machine: "pc",
      remeasureSeconds: 30,
    },
    keys: { attestation: publicKey, identity: none, sealing: none },
    names: { storage: none, attestation: none, identity: none, sealing: none },
    auths: { owner: none, endorsement: none, lockout: none },
    tags: [],
    createdMs: 0,
  }
}

function signatureMs(): number {
  const { attest, signature } = SIGNED
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
  const folder = mkdtempSync(join(tmpdir(), "mvm-bench-"))
  try {
    const log = new Log({ level: "error", format: "text" })
    const bootOf = (entries: number): Boot =>
      new Boot(entries, new EvidenceStore(join(folder, `${entries}`), log))
    return await figures(bootOf(100), bootOf(10_000), { rounds, note })
  } finally {
    rmSync(folder, { recursive: true })
  }
}

async function figures(short: Boot, long: Boot, { rounds, note }: Parameters<Bench>[0]): ReturnType<Bench> {
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

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { concat, utf8 } from "../../../src/lib/bytes.ts"
import { random, sha256 } from "../../../src/lib/crypto.ts"
import { Appraiser } from "../../../src/tcb/measurement/appraise.ts"
import { encodeImaEntry } from "../../../src/tcb/measurement/ima-encode.ts"
import { BOOT_AGGREGATE_PCRS, IMA_PCR, QUOTED_PCRS, verifyQuote } from "../../../src/tcb/measurement/quote.ts"
import { learnReference } from "../../../src/tcb/measurement/reference-table.ts"
import { MeasurementLog } from "../../../src/tcb/measurement/replay.ts"
import { connectSwtpm } from "../../../src/tpm/swtpm-transport.ts"
import { encodeSignature } from "../../../src/tpm/signature.ts"
import { keyTemplate } from "../../../src/tpm/templates.ts"
import { Tpm } from "../../../src/tpm/tpm.ts"
import { type ScratchSwtpm, scratchDir, startScratchSwtpm, tpm2 } from "../../tpm/scratch-swtpm.ts"
import { codeOf } from "./measured-boots.ts"

/** A real TPM, with a log that is kept as the agent of a local endpoint keeps it. */
let swtpm: ScratchSwtpm
let tpm: Tpm
let key: { handle: number; point: Uint8Array }
let log = new Uint8Array(0)

async function measure(path: string, content: string): Promise<void> {
  const entry = encodeImaEntry({ path, sha256: sha256(utf8(content)) })
  await tpm.pcrExtend(IMA_PCR, entry.extendDigest)
  log = new Uint8Array(concat(log, entry.bytes))
}

async function quote(qualifyingData: Uint8Array, pcrs: readonly number[] = QUOTED_PCRS) {
  const { attest, signature } = await tpm.quote(key.handle, qualifyingData, pcrs)
  return { attest, signature, pcrs: await tpm.pcrRead(pcrs) }
}

beforeAll(async () => {
  swtpm = await startScratchSwtpm()
  tpm = new Tpm(await connectSwtpm(swtpm.dataSocket))
  await tpm.startup()
  key = await tpm.createPrimary("platform", keyTemplate("attestation", random(32)))
  const aggregate = encodeImaEntry({
    path: "boot_aggregate",
    sha256: sha256(...(await tpm.pcrRead(BOOT_AGGREGATE_PCRS))),
  })
  await tpm.pcrExtend(IMA_PCR, aggregate.extendDigest)
  log = new Uint8Array(aggregate.bytes)
})

afterAll(async () => {
  tpm?.close()
  await swtpm?.stop()
})

describe("a real tpm and a log made for it", () => {
  test("are trusted evidence, and stay so as the log grows", async () => {
    const qualifyingData = random(32)
    await measure("/usr/bin/mvm", "mvm")
    const expected = { attestationKey: key.point, qualifyingData }
    const first = verifyQuote(await quote(qualifyingData), expected)
    const state = new MeasurementLog()
    const entries = state.advance(log, 0, first.pcrs[IMA_PCR]!)
    expect(entries.map((entry) => entry.path)).toEqual(["boot_aggregate", "/usr/bin/mvm"])
    const { table } = learnReference(entries, {
      measurementKind: "agent",
      required: ["/usr/bin/mvm"],
      pcrs: new Map(),
    })
    const appraiser = new Appraiser({ table, vm: "host", kind: "agent" })
    expect(appraiser.appraise(first, entries).verdict).toBe("trusted")

    await measure("/usr/bin/tar", "tar")
    const second = verifyQuote(await quote(qualifyingData), { ...expected, lastClock: first.clock })
    const added = state.advance(log.subarray(state.nextOffset), state.nextOffset, second.pcrs[IMA_PCR]!)
    const appraisal = appraiser.appraise(second, added)
    expect(appraisal.verdict).toBe("untrusted")
    expect(appraisal.checks[0]!.subject).toBe("/usr/bin/tar")
  })

  test("are broken evidence when the tpm was extended and the log says nothing of it", async () => {
    const state = new MeasurementLog()
    state.add(log, 0)
    await tpm.pcrExtend(IMA_PCR, random(32))
    const qualifyingData = random(32)
    const last = verifyQuote(await quote(qualifyingData), { attestationKey: key.point, qualifyingData })
    expect(codeOf(() => state.match(last.pcrs[IMA_PCR]!))).toBe("evidence_log_mismatch")
  })

  test("a quote by an unrestricted key over a forged attest is refused: it is not the attestation key", async () => {
    const identity = await tpm.createPrimary("platform", keyTemplate("identity", random(32)))
    const qualifyingData = random(32)
    const real = await quote(qualifyingData)
    const forged = real.attest.slice()
    forged.set(sha256(...real.pcrs), forged.length - 32)
    const signature = await tpm.sign(identity.handle, sha256(forged))
    await tpm.flushContext(identity.handle)
    const untrusted = { attest: forged, signature, pcrs: real.pcrs }
    expect(codeOf(() => verifyQuote(untrusted, { attestationKey: key.point, qualifyingData }))).toBe(
      "evidence_quote_signature",
    )
    // That the forgery is otherwise perfect is why the key has to be a restricted one.
    expect(verifyQuote(untrusted, { attestationKey: identity.point, qualifyingData }).pcrs).toEqual(real.pcrs)
  })

  test("the restricted key signs no attest that the tpm did not make", async () => {
    const { attest } = await quote(random(32))
    await expect(tpm.sign(key.handle, sha256(attest))).rejects.toMatchObject({ code: "tpm" })
  })

  test("a quote over fewer or more pcrs is refused", async () => {
    const qualifyingData = random(32)
    const expected = { attestationKey: key.point, qualifyingData }
    for (const pcrs of [[10], [0, 1, 2, 3, 4, 5, 6, 7, 9, 10], [...QUOTED_PCRS, 23]]) {
      const other = await quote(qualifyingData, pcrs)
      expect(codeOf(() => verifyQuote(other, expected))).toBe("evidence_pcr_selection")
    }
  })

  test("tpm2_checkquote agrees that our quote is good", async () => {
    const qualifyingData = random(32)
    const { attest, signature } = await quote(qualifyingData)
    const dir = scratchDir()
    try {
      const file = (name: string, bytes: Uint8Array | string): string => {
        writeFileSync(join(dir.path, name), bytes)
        return join(dir.path, name)
      }
      const der = concat(
        Uint8Array.fromHex("3059301306072a8648ce3d020106082a8648ce3d030107034200"),
        key.point,
      )
      const pem = `-----BEGIN PUBLIC KEY-----\n${Buffer.from(der).toString("base64")}\n-----END PUBLIC KEY-----\n`
      const { status, output } = await tpm2(
        swtpm.dataSocket,
        "tpm2_checkquote",
        ...[
          "-u",
          file("key.pem", pem),
          "-m",
          file("attest", attest),
          "-s",
          file("signature", encodeSignature(signature)),
        ],
        ...["-q", qualifyingData.toHex(), "-g", "sha256"],
      )
      expect({ status, output }).toMatchObject({ status: 0 })
    } finally {
      dir.remove()
    }
  })
})

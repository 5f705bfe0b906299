import { describe, expect, test } from "bun:test"
import { join } from "node:path"
import { concat, toHex, utf8 } from "../../src/lib/bytes.ts"
import { p256Generate, p256Sign, random, sha256 } from "../../src/lib/crypto.ts"
import { MvmError } from "../../src/lib/errors.ts"
import { Log } from "../../src/lib/log.ts"
import { EvidenceStore } from "../../src/mvm/evidence/store.ts"
import { exportBundle, vmBody } from "../../src/mvm/evidence/bundle.ts"
import { verifyEvidence } from "../../src/mvm/evidence/verify.ts"
import { uuidBytes, type Session } from "../../src/mvm/session.ts"
import { Verifier, type Evidence } from "../../src/mvm/verifier.ts"
import { GrantSealer } from "../../src/tcb/grant.ts"
import type { ClockReading } from "../../src/tcb/measurement/clock.ts"
import { encodeImaEntry } from "../../src/tcb/measurement/ima-encode.ts"
import { evidenceQualifyingData } from "../../src/tcb/measurement/qualifying-data.ts"
import { BOOT_AGGREGATE_PCRS } from "../../src/tcb/measurement/quote.ts"
import { allowFile, emptyReference, type ReferenceTable } from "../../src/tcb/measurement/reference-table.ts"
import { parseQuote } from "../../src/tpm/attest.ts"
import { OVMF_BOOT, SEABIOS_BOOT } from "../tcb/measurement/measured-boots.ts"
import { sampleVm, scratchFolder } from "./scratch-state.ts"

const EXTRA_DATA_AT = 44
const CLOCK_AT = EXTRA_DATA_AT + 32
const { resetCount: RESETS, clock: CLOCK } = parseQuote(OVMF_BOOT.quote.attest)

const SESSION: Session = {
  epoch: random(16),
  bootId: "ab".repeat(16),
  kind: "kernel",
  grants: new GrantSealer(p256Generate().publicKey, { recipientUuid: random(16), epoch: random(16) }),
  isReady: true,
  canMap: true,
  mapping: "",
  sinceMs: 0,
}

interface Reading {
  extra?: Uint8Array
  clock?: bigint
  /** resetCount and restartCount */
  counts?: [number, number]
}

/** A verifier of a VM whose attestation key is ours, with the PCRs of a real boot under OVMF. */
class Setting {
  readonly keys = p256Generate()
  readonly record = {
    ...sampleVm("web"),
    keys: { attestation: this.keys.publicKey, identity: random(65), sealing: random(65) },
  }
  readonly store = new EvidenceStore(
    join(scratchFolder(), "evidence"),
    new Log({ level: "error", format: "text" }),
  )
  table: ReferenceTable = emptyReference("kernel")
  readonly distrusts: MvmError[] = []
  readonly clocks: ClockReading[] = []
  readonly resets: string[] = []
  approvals = 0
  readonly verifier = new Verifier(this.record, {
    reference: (kind) => ({ table: this.table, vm: "web", kind }),
    onUntrusted: (error) => this.distrusts.push(error),
    onUnseenReset: (error) => this.resets.push(error.code),
    onClock: (clock) => this.clocks.push(clock),
    onApproved: () => (this.approvals += 1),
    store: this.store,
  })
  #pcr10: Uint8Array = new Uint8Array(32)
  #offset = 0

  /** @param isBootSeen whether the MVM started the VM, or knows that it runs */
  constructor(isBootSeen = true) {
    if (isBootSeen) this.verifier.expectBoot(RESETS)
    this.log("boot_aggregate", sha256(...BOOT_AGGREGATE_PCRS.map((index) => OVMF_BOOT.pcrs[index]!)))
  }

  /** One more entry, sent as the agent would. */
  log(path: string, digest = sha256(utf8(path))): void {
    const { bytes, extendDigest } = encodeImaEntry({ path, sha256: digest })
    this.#pcr10 = sha256(this.#pcr10, extendDigest)
    this.verifier.addLog(this.#offset, bytes)
    this.#offset += bytes.length
  }

  allow(path: string): void {
    this.table = allowFile(this.table, path, toHex(sha256(utf8(path))))
  }

  /** What the appraisal of a fresh quote throws. @param extra extends PCR 10 with what the log does not have */
  appraise({ extra, clock = CLOCK, counts = [RESETS, 0] }: Reading = {}): string | undefined {
    if (extra) this.#pcr10 = sha256(this.#pcr10, extra)
    const fields = { purpose: "periodic", nonce: random(32), binding: new Uint8Array(32) } as const
    const vmUuid = uuidBytes(this.record.uuid)
    const pcrs = OVMF_BOOT.pcrs.with(10, this.#pcr10)
    const attest = OVMF_BOOT.quote.attest.slice()
    attest.set(evidenceQualifyingData({ ...fields, vmUuid, epoch: SESSION.epoch }), EXTRA_DATA_AT)
    const view = new DataView(attest.buffer)
    view.setBigUint64(CLOCK_AT, clock)
    counts.forEach((count, index) => view.setUint32(CLOCK_AT + 8 + 4 * index, count))
    attest.set(sha256(...pcrs), attest.length - 32)
    const quote: Evidence["quote"] = { attest, signature: p256Sign(this.keys.privateKey, attest), pcrs }
    try {
      this.verifier.appraise(SESSION, { ...fields, quote })
      return undefined
    } catch (error) {
      if (error instanceof MvmError) return error.code
      throw error
    }
  }
}

describe("a distrust", () => {
  test("of the software ends with the operator's approval", () => {
    const vm = new Setting()
    vm.allow("/bin/a")
    vm.log("/bin/a")
    vm.log("/bin/b")
    expect(vm.appraise()).toBe("untrusted")
    expect(vm.distrusts.map((error) => error.message)).toEqual([
      expect.stringContaining("/bin/b is not in the reference table"),
    ])
    vm.allow("/bin/b")
    expect(vm.appraise()).toBe("untrusted")
    vm.verifier.reconsider()
    expect([vm.approvals, vm.verifier.opinion.verdict, vm.appraise()]).toEqual([1, "trusted", undefined])
  })

  test("is what evidence of a boot that the MVM did not see gets", () => {
    const vm = new Setting(false)
    vm.allow("/bin/a")
    vm.log("/bin/a")
    expect(vm.appraise()).toBe("evidence_reset")
  })

  test("of the evidence outlasts every approval, and ends with the next boot", () => {
    const vm = new Setting()
    expect(vm.appraise({ extra: random(32) })).toBe("evidence_log_mismatch")
    vm.verifier.reconsider()
    expect([vm.approvals, vm.verifier.opinion.verdict]).toEqual([0, "untrusted"])
    expect(vm.appraise()).toBe("evidence_log_mismatch")
    vm.verifier.expectBoot(RESETS)
    expect(vm.verifier.opinion.verdict).toBe("unknown")
  })

  test("of the evidence costs no more work: the log of such a boot is not looked at", () => {
    const vm = new Setting()
    expect(vm.appraise({ extra: random(32) })).toBe("evidence_log_mismatch")
    const { nextOffset } = vm.verifier
    vm.verifier.addLog(nextOffset, new Uint8Array(1 << 20))
    vm.verifier.addLog(99_999_999, new Uint8Array(1))
    expect([vm.verifier.nextOffset, vm.appraise()]).toEqual([nextOffset, "evidence_log_mismatch"])
    // Its clock still is: a reset ends the VM, whatever else it did.
    expect([vm.appraise({ counts: [RESETS + 1, 0] }), vm.resets]).toEqual([
      "evidence_log_mismatch",
      ["evidence_reset"],
    ])
  })

  test("kept from before a restart of the MVM ends with an approval too, if it was of the software", () => {
    const vm = new Setting()
    vm.verifier.restoreDistrust(new MvmError("untrusted", "web: /bin/x"), 0)
    vm.verifier.reconsider()
    expect([vm.approvals, vm.appraise()]).toEqual([1, undefined])
    vm.verifier.restoreDistrust(new MvmError("evidence_rollback", "web: the clock"), 0)
    vm.verifier.reconsider()
    expect([vm.approvals, vm.appraise()]).toEqual([1, "evidence_rollback"])
  })
})

describe("the clock of a vTPM", () => {
  test("is told at the first quote of a boot, and at the end, not at every quote", () => {
    const vm = new Setting()
    expect([vm.appraise(), vm.appraise({ clock: CLOCK + 5n })]).toEqual([undefined, undefined])
    expect(vm.clocks.map(({ clock }) => clock)).toEqual([CLOCK])
    vm.verifier.keepClock()
    vm.verifier.keepClock()
    expect(vm.clocks.map(({ clock }) => clock)).toEqual([CLOCK, CLOCK + 5n])
  })

  test("that went back within a boot is found by an MVM that was restarted meanwhile", () => {
    const reading = { resetCount: RESETS, restartCount: 0, clock: CLOCK + 1n }
    const vm = new Setting()
    vm.verifier.expectBoot(RESETS, { clock: reading })
    expect(vm.appraise()).toBe("evidence_rollback")
    const other = new Setting()
    other.verifier.expectBoot(RESETS, { clock: { ...reading, clock: CLOCK } })
    other.verifier.addLog(0, new Uint8Array(0))
    expect(other.appraise()).toBe("evidence_log_mismatch")
  })
})

describe("a TPM that started again, or went back, where the MVM saw no reset", () => {
  test.each([
    ["a reset", { counts: [RESETS + 1, 0] }, "evidence_reset"],
    ["a resume", { counts: [RESETS, 1] }, "evidence_reset"],
    ["an older state", { counts: [RESETS - 1, 0] }, "evidence_rollback"],
    ["an older clock", { clock: CLOCK - 1n }, "evidence_rollback"],
  ] satisfies [string, Reading, string][])("(%s) is told, so that the VM ends", (_, reading, code) => {
    const vm = new Setting()
    expect([vm.appraise(), vm.resets]).toEqual([undefined, []])
    expect([vm.appraise(reading), vm.resets]).toEqual([code, [code]])
  })

  test("is told of a VM as well that is not trusted anyway, and no approval makes up for it", () => {
    const vm = new Setting()
    vm.allow("/bin/a")
    vm.log("/bin/b")
    expect(vm.appraise()).toBe("untrusted")
    expect([vm.appraise({ counts: [RESETS, 1] }), vm.resets]).toEqual(["evidence_reset", ["evidence_reset"]])
    vm.allow("/bin/b")
    vm.verifier.reconsider()
    expect([vm.approvals, vm.verifier.opinion.code]).toEqual([0, "evidence_reset"])
  })

  test("is not what a log is that does not add up", () => {
    const vm = new Setting()
    expect([vm.appraise({ extra: random(32) }), vm.resets]).toEqual(["evidence_log_mismatch", []])
  })
})

describe("the firmware's event log", () => {
  test("of this boot is a check that holds, and is kept with the evidence", () => {
    const vm = new Setting()
    expect([vm.verifier.wantsEvents, vm.appraise(), vm.verifier.wantsEvents]).toEqual([
      false,
      undefined,
      true,
    ])
    vm.verifier.addEvents(OVMF_BOOT.eventLog)
    expect(vm.verifier.wantsEvents).toBe(false)
    const { checks } = vm.verifier.opinion
    expect(checks.find((check) => check.name === "event_log")).toMatchObject({ ok: true })
    expect(vm.verifier.lastRecord).toMatchObject({ hasEvents: true, verdict: "trusted" })
  })

  test.each([
    ["of another boot", SEABIOS_BOOT.eventLog],
    ["that is none", utf8("not a log")],
    ["cut short", OVMF_BOOT.eventLog.slice(0, -1)],
  ])("%s makes the VM distrusted until the next boot", (_, log) => {
    const vm = new Setting()
    expect(vm.appraise()).toBeUndefined()
    expect(() => vm.verifier.addEvents(log)).toThrow(expect.objectContaining({ code: "evidence_event_log" }))
    vm.verifier.reconsider()
    expect(vm.appraise()).toBe("evidence_event_log")
    expect(vm.distrusts).toHaveLength(1)
  })

  test("that a VM does not have changes nothing, and is not asked for again", () => {
    const vm = new Setting()
    expect(vm.appraise()).toBeUndefined()
    vm.verifier.addEvents(new Uint8Array(0))
    expect([vm.verifier.wantsEvents, vm.appraise()]).toEqual([false, undefined])
  })
})

describe("evidence that was exported", () => {
  const identity = p256Generate()
  const signer = {
    publicKey: identity.publicKey,
    sign: (message: Uint8Array) => p256Sign(identity.privateKey, message),
  }

  /** The file, with what `change` makes of its records; signed over again, as an MVM that lies would. */
  function bundleOf(vm: Setting, change: (end: Record<string, unknown>) => object = (end) => end): string {
    const body = vmBody(vm.verifier.lastRecord!)
    const ends = body.ends.map((end) => ({ ...end, ...change({ ...end }) }))
    return exportBundle({ ...body, ends } as typeof body, vm.store, signer)
  }

  function codeOf(text: string): string | undefined {
    try {
      verifyEvidence(text, identity.publicKey)
      return undefined
    } catch (error) {
      if (error instanceof MvmError) return error.code
      throw error
    }
  }

  function trusted(): Setting {
    const vm = new Setting()
    vm.allow("/bin/a")
    vm.log("/bin/a")
    expect(vm.appraise()).toBeUndefined()
    vm.verifier.addEvents(OVMF_BOOT.eventLog)
    return vm
  }

  test("is judged to the same verdict, checks and all", () => {
    const vm = trusted()
    const { ends } = verifyEvidence(bundleOf(vm), identity.publicKey)
    expect(ends[0]).toMatchObject({ entries: 2, appraisal: { verdict: "trusted" } })
    expect(ends[0]!.appraisal.checks).toEqual([...vm.verifier.opinion.checks])
  })

  test("of an untrusted VM says so, with the file", () => {
    const vm = trusted()
    vm.log("/bin/evil")
    expect(vm.appraise()).toBe("untrusted")
    const { ends } = verifyEvidence(bundleOf(vm), identity.publicKey)
    expect(ends[0]!.appraisal.checks[0]).toMatchObject({ name: "file", subject: "/bin/evil", ok: false })
  })

  const other = toHex(random(32))
  const cases: [string, (end: Record<string, unknown>) => object, string][] = [
    ["another nonce", () => ({ nonce: other }), "evidence_nonce"],
    ["another binding", () => ({ binding: other }), "evidence_nonce"],
    ["another purpose", () => ({ purpose: "request" }), "evidence_nonce"],
    ["another epoch", () => ({ epoch: other.slice(0, 32) }), "evidence_nonce"],
    [
      "another attestation key",
      () => ({ attestationKey: toHex(p256Generate().publicKey) }),
      "evidence_quote_signature",
    ],
    ["another verdict", () => ({ verdict: "untrusted" }), "untrusted"],
    ["a log kept by another", () => ({ kind: "agent" }), "untrusted"],
    [
      "a share of the launch that is none",
      () => ({ launch: { digests: 1, predicted: 2 } }),
      "evidence_malformed",
    ],
    ["a field of another kind", () => ({ quote: 1 }), "evidence_malformed"],
    ["a nonce that is no hex", () => ({ nonce: "zz" }), "evidence_malformed"],
  ]
  test.each(cases)("with %s is refused, even under the MVM's signature", (_, change, code) => {
    expect(codeOf(bundleOf(trusted(), change)) ?? "").toBe(code)
  })

  test("with an entry of the log swapped, reordered, dropped or added is refused", () => {
    const vm = trusted()
    vm.log("/bin/a")
    expect(vm.appraise()).toBeUndefined()
    const text = bundleOf(vm)
    const file = JSON.parse(text) as { logs: { measurements: string; events: string }[] }
    const log = Uint8Array.fromBase64(file.logs[0]!.measurements)
    const entry = encodeImaEntry({ path: "/bin/a", sha256: sha256(utf8("/bin/a")) }).bytes
    const first = log.subarray(0, log.length - 2 * entry.length)
    const swapped = encodeImaEntry({ path: "/bin/b", sha256: sha256(utf8("/bin/a")) }).bytes
    const logs = [
      concat(first, swapped, entry),
      concat(entry, first, entry),
      concat(first, entry),
      concat(first, entry, entry, entry),
    ]
    for (const measurements of logs) {
      const changed = { ...file, logs: [{ ...file.logs[0], measurements: measurements.toBase64() }] }
      expect(codeOf(JSON.stringify(changed))).toBe("evidence_log_mismatch")
    }
  })

  test("with another boot's event log or other reference values is refused", () => {
    const file = JSON.parse(bundleOf(trusted())) as Record<string, unknown> & { logs: object[] }
    const events = SEABIOS_BOOT.eventLog.toBase64()
    expect(codeOf(JSON.stringify({ ...file, logs: [{ ...file.logs[0], events }] }))).toBe(
      "evidence_event_log",
    )
    const [digest] = Object.keys(file["references"] as object)
    const references = { [digest!]: utf8("# mvm reference 1\n# measurement: kernel\n").toBase64() }
    expect(codeOf(JSON.stringify({ ...file, references }))).toBe("evidence_malformed")
  })

  test("cut anywhere is refused, and never a crash", () => {
    const text = bundleOf(trusted())
    for (let cut = 0; cut < text.length; cut += 97)
      expect(codeOf(text.slice(0, cut))).toBe("evidence_malformed")
  })
})

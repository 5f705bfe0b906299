import { describe, expect, test } from "bun:test"
import { concat } from "../../../src/lib/bytes.ts"
import { sha256 } from "../../../src/lib/crypto.ts"
import { MvmError } from "../../../src/lib/errors.ts"
import { checkEventLog, parseEventLog, replayEventLog } from "../../../src/tcb/measurement/event-log.ts"
import { BOOTS, OVMF_BOOT, codeOf, failureOf } from "./measured-boots.ts"

/** The captured header event: 32 bytes of TCG_PCClientPCREvent and 33 of TCG_EfiSpecIDEvent. */
const HEADER = OVMF_BOOT.eventLog.slice(0, 65)

function le(value: number): Uint8Array {
  return new Uint8Array(new Uint32Array([value]).buffer)
}

function event(pcr: number, type: number, data: Uint8Array, digest = sha256(data)): Uint8Array {
  return concat(le(pcr), le(type), le(1), new Uint8Array([0x0b, 0]), digest, le(data.length), data)
}

describe.each(BOOTS)("the firmware's log of a real boot ($name)", (boot) => {
  test("replays to the quoted pcrs 0-9", () => {
    const events = parseEventLog(boot.eventLog)
    expect(events.length).toBeGreaterThan(10)
    checkEventLog(events, boot.pcrs)
  })

  test("is refused when any event is dropped, naming the pcr", () => {
    const events = parseEventLog(boot.eventLog)
    for (const [at, { pcr }] of events.entries()) {
      const error = failureOf(() => checkEventLog(events.toSpliced(at, 1), boot.pcrs))
      expect(error.code).toBe("evidence_event_log")
      expect(error.message).toContain(`pcr ${pcr} `)
    }
  })

  test("cut anywhere is refused or explains other pcrs", () => {
    for (let cut = 0; cut < boot.eventLog.length; cut += 1) {
      const run = (): void => checkEventLog(parseEventLog(boot.eventLog.subarray(0, cut)), boot.pcrs)
      expect(codeOf(run)).toBe("evidence_event_log")
    }
  })

  test("survives a change of any byte", () => {
    for (let at = 0; at < boot.eventLog.length; at += 1) {
      const log = boot.eventLog.slice()
      log[at]! ^= 0x81
      try {
        replayEventLog(parseEventLog(log))
      } catch (error) {
        expect(error).toBeInstanceOf(MvmError)
      }
    }
  })
})

describe("the parser of firmware logs", () => {
  test("reads a log without events", () => {
    expect(parseEventLog(HEADER)).toEqual([])
    expect(replayEventLog([]).size).toBe(0)
  })

  test("starts pcr 0 at the locality the firmware started the tpm from, and extends no other no-action event", () => {
    const locality = concat(new TextEncoder().encode("StartupLocality\0"), new Uint8Array([3]))
    const log = concat(HEADER, event(0, 3, locality, new Uint8Array(32)), event(0, 4, new Uint8Array(4)))
    const start = new Uint8Array(32)
    start[31] = 3
    expect(replayEventLog(parseEventLog(log)).get(0)).toEqual(sha256(start, sha256(new Uint8Array(4))))
  })

  const cases: [string, () => Uint8Array][] = [
    ["a log of tpm 1.2", () => event(0, 4, new Uint8Array(4))],
    ["a header with another signature", () => HEADER.with(32, 0x58)],
    ["a header of another major version", () => HEADER.with(32 + 21, 1)],
    ["a header without the sha256 bank", () => HEADER.with(32 + 28, 0x0c)],
    ["a digest size that sha256 does not have", () => HEADER.with(32 + 30, 20)],
    ["a header with no algorithm", () => HEADER.with(32 + 24, 0)],
    ["an event of a pcr there is not", () => concat(HEADER, event(24, 4, new Uint8Array(4)))],
    ["an event with no digest", () => concat(HEADER, le(0), le(4), le(0), le(0))],
    ["an event with two digests of one bank", () => concat(HEADER, le(0), le(4), le(2), new Uint8Array(80))],
    ["an event of another bank", () => concat(HEADER, event(0, 4, new Uint8Array(4)).with(12, 0x04))],
    ["an event of 4 GiB", () => concat(HEADER, event(0, 4, new Uint8Array(0)).slice(0, -4), le(0xffffffff))],
    ["more than 4 MiB", () => concat(HEADER, new Uint8Array(4 * 1024 * 1024))],
  ]
  test.each(cases)("refuses %s", (_, log) => {
    expect(codeOf(() => parseEventLog(log()))).toBe("evidence_event_log")
  })
})

import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { concat, utf8 } from "../../../src/lib/bytes.ts"
import { sha256 } from "../../../src/lib/crypto.ts"
import { encodeImaEntry } from "../../../src/tcb/measurement/ima-encode.ts"
import { MeasurementLog } from "../../../src/tcb/measurement/replay.ts"
import { BOOTS, OVMF_BOOT, codeOf, failureOf, runningPcr10 } from "./measured-boots.ts"
import { parseImaEntries } from "../../../src/tcb/measurement/ima-log.ts"

const ENTRIES = Array.from({ length: 8 }, (_, i) =>
  encodeImaEntry({ path: `/bin/p${i}`, sha256: sha256(utf8(`${i}`)) }),
)
const LOG = concat(...ENTRIES.map((entry) => entry.bytes))
/** PCR[n]: after n entries. END[n]: where entry n begins. */
const PCR = runningPcr10(ENTRIES.map((entry) => entry.extendDigest))
const END = ENTRIES.reduce<number[]>((ends, entry) => [...ends, ends.at(-1)! + entry.bytes.length], [0])
const LAST = PCR[ENTRIES.length]!

function paths(entries: readonly { path: string }[]): string[] {
  return entries.map((entry) => entry.path)
}

describe.each(BOOTS)("the log of a real boot ($name)", (boot) => {
  test("is matched by the first quote, and goes on to the later one", () => {
    const log = new MeasurementLog()
    expect(log.advance(boot.imaLog, 0, boot.pcrs[10]!)).toHaveLength(9)
    expect(log.nextOffset).toBe(boot.imaLog.length)
    const later = runningPcr10(
      parseImaEntries(boot.laterImaLog, 0).entries.map((entry) => entry.extendDigest),
    ).at(-1)!
    const added = boot.laterImaLog.subarray(log.nextOffset)
    expect(paths(log.advance(added, log.nextOffset, later))).toEqual(["/opt/later"])
    expect(log.pcr10).toEqual(later)
  })

  test("comes out the same in chunks of one byte", () => {
    const log = new MeasurementLog()
    for (let at = 0; at < boot.imaLog.length; at += 1)
      log.add(boot.imaLog.subarray(at, at + 1), log.nextOffset)
    expect(log.match(boot.pcrs[10]!)).toHaveLength(9)
    expect(log.entryCount).toBe(9)
  })

  test("tells apart each content and each violation, counting what repeats", () => {
    const log = new MeasurementLog()
    log.advance(boot.imaLog, 0, boot.pcrs[10]!)
    const libc = [...log.seen].filter((seen) => seen.path.endsWith("libc.so.6"))
    expect(libc.map((seen) => seen.violation)).toEqual([false, true])
    expect([...log.seen].map((seen) => seen.count)).toEqual(Array.from({ length: 9 }, () => 1))
  })

  test("cut short or changed in any byte under the pcr does not match", () => {
    // The violation comes last, and of its data nothing is under the pcr.
    const entries = parseImaEntries(boot.imaLog, 0).entries
    for (const { offset, lengthBytes, templateData } of entries.slice(0, -1)) {
      for (let at = offset + lengthBytes - templateData.length; at < offset + lengthBytes; at += 1) {
        const changed = boot.imaLog.slice()
        changed[at]! ^= 1
        expect(codeOf(() => new MeasurementLog().advance(changed, 0, boot.pcrs[10]!))).toStartWith(
          "evidence_",
        )
      }
    }
    for (let cut = 0; cut < boot.imaLog.length; cut += 1) {
      const part = boot.imaLog.subarray(0, cut)
      expect(codeOf(() => new MeasurementLog().advance(part, 0, boot.pcrs[10]!))).toBe(
        "evidence_log_mismatch",
      )
    }
  })
})

describe("an advancing log", () => {
  test("gives each entry once, at the quote that proves it", () => {
    const log = new MeasurementLog()
    expect(paths(log.advance(LOG.subarray(0, END[3]), 0, PCR[2]!))).toEqual(["/bin/p0", "/bin/p1"])
    expect(log.matchedOffset).toBe(END[2]!)
    expect(log.nextOffset).toBe(END[3]!)
    expect(paths(log.advance(LOG.subarray(END[3]), END[3]!, LAST))).toEqual(paths(entriesFrom(2)))
  })

  test("keeps an entry of which only a part has come", () => {
    const log = new MeasurementLog()
    log.advance(LOG.subarray(0, END[1]! + 5), 0, PCR[1]!)
    expect(log.nextOffset).toBe(END[1]! + 5)
    expect(log.advance(LOG.subarray(log.nextOffset), log.nextOffset, LAST)).toHaveLength(7)
  })

  test("finds nothing new in a quote of the same value, with or without bytes beyond", () => {
    const log = new MeasurementLog()
    log.advance(LOG.subarray(0, END[4]), 0, PCR[4]!)
    expect(log.match(PCR[4]!)).toEqual([])
    expect(log.advance(LOG.subarray(END[4]), END[4]!, PCR[4]!)).toEqual([])
    expect(log.match(LAST)).toHaveLength(4)
  })

  test("skips bytes that are known already, matched or pending", () => {
    const log = new MeasurementLog()
    log.advance(LOG.subarray(0, END[3]), 0, PCR[2]!)
    expect(log.advance(LOG, 0, LAST)).toHaveLength(6)
    expect(log.nextOffset).toBe(LOG.length)
    expect(log.advance(LOG, 0, LAST)).toEqual([])
  })

  test("comes to the same entries however the log is cut and repeated", () => {
    const cuts = fc.array(fc.record({ back: fc.nat(40), length: fc.integer({ min: 1, max: 200 }) }), {
      maxLength: 30,
    })
    fc.assert(
      fc.property(cuts, fc.array(fc.nat(ENTRIES.length), { maxLength: 4 }), (pieces, quotes) => {
        const log = new MeasurementLog()
        const got: string[] = []
        const due = quotes.toSorted((a, b) => a - b)
        for (const { back, length } of pieces) {
          const from = Math.max(0, log.nextOffset - back)
          log.add(LOG.subarray(from, from + length), from)
          while (due.length > 0 && log.nextOffset >= END[due[0]!]!)
            got.push(...paths(log.match(PCR[due.shift()!]!)))
        }
        got.push(...paths(log.advance(LOG.subarray(log.nextOffset), log.nextOffset, LAST)))
        expect(got).toEqual(paths(entriesFrom(0)))
      }),
    )
  })

  test("costs nothing for what was matched: the pending bytes are all that is kept", () => {
    const log = new MeasurementLog()
    log.advance(LOG.subarray(0, END[7]), 0, PCR[7]!)
    // Bytes before the matched offset are not looked at any more, so other ones do no harm.
    const forged = LOG.slice()
    forged.fill(0xee, 0, END[7])
    expect(paths(log.advance(forged, 0, LAST))).toEqual(["/bin/p7"])
  })
})

describe("broken evidence", () => {
  const parts = ENTRIES.map((entry) => entry.bytes)
  const swapped = [parts[1]!, parts[0]!, ...parts.slice(2)]
  const cases: [string, Uint8Array][] = [
    ["two entries swapped", concat(...swapped)],
    ["all entries reordered", concat(...parts.toReversed())],
    ["an entry dropped", concat(...parts.toSpliced(3, 1))],
    ["the last entry dropped", concat(...parts.slice(0, -1))],
    [
      "an entry added",
      concat(...parts.toSpliced(3, 0, encodeImaEntry({ path: "/x", sha256: sha256() }).bytes)),
    ],
    ["an entry doubled", concat(...parts.toSpliced(3, 0, parts[3]!))],
    [
      "an entry of another program in place of one",
      concat(...parts.with(3, encodeImaEntry({ path: "/bin/p3", sha256: sha256() }).bytes)),
    ],
    [
      "an entry turned into a violation",
      concat(...parts.with(3, encodeImaEntry({ path: "/bin/p3", sha256: sha256(), violation: true }).bytes)),
    ],
    ["no log at all", new Uint8Array(0)],
  ]
  test.each(cases)("with %s is a mismatch, and the whole log is asked for again", (_, bytes) => {
    const log = new MeasurementLog()
    expect(codeOf(() => log.advance(bytes, 0, LAST))).toBe("evidence_log_mismatch")
    expect(log.nextOffset).toBe(0)
    expect(log.advance(LOG, 0, LAST)).toHaveLength(8)
  })

  test("a quote that moved without a new entry is a mismatch", () => {
    const log = new MeasurementLog()
    log.advance(LOG.subarray(0, END[4]), 0, PCR[4]!)
    expect(codeOf(() => log.match(PCR[5]!))).toBe("evidence_log_mismatch")
    expect(log.pcr10).toEqual(PCR[4]!)
  })

  test("a quote older than what was matched is a mismatch", () => {
    const log = new MeasurementLog()
    log.advance(LOG.subarray(0, END[4]), 0, PCR[4]!)
    expect(codeOf(() => log.advance(LOG.subarray(END[4]), END[4]!, PCR[2]!))).toBe("evidence_log_mismatch")
  })

  test("a gap, a negative or a fractional offset has a code of its own", () => {
    const log = new MeasurementLog()
    log.advance(LOG.subarray(0, END[2]), 0, PCR[2]!)
    for (const offset of [END[2]! + 1, -1, 1.5, Number.MAX_SAFE_INTEGER + 1, Number.NaN]) {
      expect(codeOf(() => log.add(LOG, offset))).toBe("evidence_log_offset")
    }
    expect(failureOf(() => log.add(LOG, 99_999)).message).toBe(
      `log.offset: 99999, the log is known up to ${END[2]}`,
    )
  })

  test("pending bytes that are sent again and differ are a mismatch", () => {
    const log = new MeasurementLog()
    log.add(LOG.subarray(0, END[2]), 0)
    log.add(LOG.subarray(END[2], END[3]), END[2]!)
    const other = LOG.slice()
    other[END[2]! + 30]! ^= 1
    expect(codeOf(() => log.add(other, 0))).toBe("evidence_log_mismatch")
    expect(log.nextOffset).toBe(0)
  })

  test("a malformed entry before the quoted value drops what is pending; behind it, it waits", () => {
    const junk = new Uint8Array(64).fill(0xff)
    const log = new MeasurementLog()
    expect(codeOf(() => log.advance(concat(LOG.subarray(0, END[2]), junk), 0, LAST))).toBe(
      "evidence_malformed",
    )
    expect(log.nextOffset).toBe(0)
    expect(log.advance(concat(LOG, junk), 0, LAST)).toHaveLength(8)
    expect(codeOf(() => log.match(PCR[1]!))).toBe("evidence_malformed")
  })

  test("more pending than fits is refused and forgotten", () => {
    const log = new MeasurementLog()
    const chunk = new Uint8Array(2 * 1024 * 1024)
    log.add(chunk, 0)
    log.add(chunk, chunk.length)
    expect(codeOf(() => log.add(new Uint8Array(1), log.nextOffset))).toBe("evidence_malformed")
    expect(log.nextOffset).toBe(0)
  })

  test("the chunk may be changed by its owner after it was taken", () => {
    const log = new MeasurementLog()
    const chunk = OVMF_BOOT.imaLog.slice()
    log.add(chunk, 0)
    chunk.fill(0)
    expect(log.match(OVMF_BOOT.pcrs[10]!)).toHaveLength(9)
  })
})

function entriesFrom(from: number): { path: string }[] {
  return parseImaEntries(LOG, 0).entries.slice(from)
}

/** Entries that no boot had before, of paths of `pathLength` characters, batch after batch. */
class EverNew {
  pcr: Uint8Array = new Uint8Array(32)
  #count = 0

  batch(entries: number, pathLength: number, letter = "x"): Uint8Array {
    const made = Array.from({ length: entries }, () => {
      const path = `/${(this.#count += 1)}/`.padEnd(pathLength, letter)
      return encodeImaEntry({ path, sha256: new Uint8Array(32) })
    })
    for (const { extendDigest } of made) this.pcr = sha256(this.pcr, extendDigest)
    return concat(...made.map(({ bytes }) => bytes))
  }
}

describe("a log of ever new files", () => {
  test("with long paths is refused before it fills memory, and for the rest of the boot", () => {
    const log = new MeasurementLog()
    const made = new EverNew()
    log.advance(made.batch(500, 4096), 0, made.pcr)
    log.add(made.batch(500, 4096), log.nextOffset)
    expect(codeOf(() => log.match(made.pcr))).toBe("evidence_malformed")
    expect(log.seenCount).toBe(500)
    expect(codeOf(() => log.add(new Uint8Array(1), log.nextOffset))).toBe("evidence_malformed")
  })

  test("with short paths is, too, and what was proven before stays", () => {
    const log = new MeasurementLog()
    const made = new EverNew()
    for (let batch = 0; batch < 32; batch += 1) log.advance(made.batch(1024, 9), log.nextOffset, made.pcr)
    expect(log.seenCount).toBe(32_768)
    log.add(made.batch(1, 9), log.nextOffset)
    expect(codeOf(() => log.match(made.pcr))).toBe("evidence_malformed")
    expect(log.seenCount).toBe(32_768)
  })

  test("of which none was proven leaves room for the honest one", () => {
    const log = new MeasurementLog()
    const made = new EverNew()
    for (let round = 0; round < 3; round += 1) {
      log.add(made.batch(400, 4096), 0)
      log.dropPending()
    }
    expect(log.advance(LOG, 0, LAST)).toHaveLength(8)
    expect(paths([...log.seen])).toEqual(paths(entriesFrom(0)))
  })
})

describe("the work for a log", () => {
  /** Processor time of this thread, whatever else the machine does. */
  const usedMs = (): number => {
    const { user, system } = process.threadCpuUsage()
    return (user + system) / 1000
  }

  test("is done as it comes: a quote finds its place among 30,000 entries in a moment", () => {
    const log = new MeasurementLog()
    const made = new EverNew()
    const bytes = made.batch(30_000, 20)
    for (let at = 0; at < bytes.length; at += 48 * 1024) log.add(bytes.subarray(at, at + 48 * 1024), at)
    const began = usedMs()
    expect(codeOf(() => new MeasurementLog().match(made.pcr))).toBe("evidence_log_mismatch")
    expect(log.match(made.pcr)).toHaveLength(30_000)
    expect(usedMs() - began).toBeLessThan(60)
  })

  test("is done once for each entry, however often a quote comes", () => {
    const log = new MeasurementLog()
    const made = new EverNew()
    log.add(made.batch(20_000, 20), 0)
    const later = made.batch(1, 20)
    const began = usedMs()
    for (let quote = 0; quote < 100; quote += 1) expect(log.match(log.pcr10)).toEqual([])
    log.add(later, log.nextOffset)
    expect(log.match(made.pcr)).toHaveLength(20_001)
    expect(usedMs() - began).toBeLessThan(100)
  })
})

import { describe, expect, test } from "bun:test"
import { toHex, utf8 } from "../../../src/lib/bytes.ts"
import { sha256 } from "../../../src/lib/crypto.ts"
import { parseEventLog } from "../../../src/tcb/measurement/event-log.ts"
import {
  launchChecks,
  launchMeasured,
  predictionChecks,
  type Launch,
  type PredictedEvents,
} from "../../../src/tcb/measurement/launch.ts"
import { learnReference } from "../../../src/tcb/measurement/reference-table.ts"
import { OVMF_BOOT, verifiedQuote } from "./measured-boots.ts"

const hex = (text: string): string => toHex(sha256(utf8(text)))

const LAUNCH: Launch = {
  digests: { kernel: hex("k"), initrd: hex("i"), append: hex("a"), firmware: hex("f") },
}

const { table } = learnReference(launchMeasured(LAUNCH), {
  measurementKind: "kernel",
  required: [],
  pcrs: new Map(),
})

const events = parseEventLog(OVMF_BOOT.eventLog)
const quote = verifiedQuote(OVMF_BOOT)
const [application] = events.filter((event) => event.pcr === 4)
const [loadOptions, initrd] = events.filter((event) => event.pcr === 9)

const PREDICTED: PredictedEvents = {
  kernel: [hex("as it would be if patched"), toHex(application!.digest)],
  commandLine: toHex(loadOptions!.digest),
  initrd: toHex(initrd!.digest),
}

describe("the manager's own digests of a start", () => {
  test("pass when they are those of the table", () => {
    expect(launchChecks(LAUNCH, table, "web").map((check) => check.ok)).toEqual([true, true, true, true])
  })

  test.each(["kernel", "initrd", "append", "firmware"] as const)(
    "name another %s, and how to allow it",
    (part) => {
      const other = { digests: { ...LAUNCH.digests, [part]: hex("other") } }
      const failed = launchChecks(other, table, "web").filter((check) => !check.ok)
      expect(failed).toHaveLength(1)
      expect(failed[0]).toMatchObject({
        name: "launch",
        severity: "error",
        subject: `launch:${part}`,
        expected: `sha256:${LAUNCH.digests[part]}`,
        seen: `sha256:${hex("other")}`,
        approve: `mvm measure approve web launch:${part} --digest ${hex("other")}`,
      })
    },
  )

  test("are not judged where the table does not name them", () => {
    const bare = learnReference([], { measurementKind: "kernel", required: [], pcrs: new Map() }).table
    expect(launchChecks(LAUNCH, bare, "web")).toEqual([])
  })
})

describe("what measuring firmware started", () => {
  test("of a real boot is what was predicted, whichever form of the kernel it saw", () => {
    expect(predictionChecks(PREDICTED, quote, events).map((check) => check.ok)).toEqual([true, true])
  })

  const cases: [string, Partial<PredictedEvents>, string, "kernel" | "commandLine" | "initrd"][] = [
    ["kernel", { kernel: [hex("other")] }, "the firmware did not start the kernel that", "kernel"],
    [
      "command line",
      { commandLine: hex("other") },
      "the firmware did not start the kernel command line that",
      "commandLine",
    ],
    ["initrd", { initrd: hex("other") }, "the firmware did not start the initrd that", "initrd"],
  ]
  test.each(cases)("is another %s: named by its event", (_, change, message, part) => {
    const failed = predictionChecks({ ...PREDICTED, ...change }, quote, events).filter((check) => !check.ok)
    expect(failed).toHaveLength(1)
    expect(failed[0]!.message).toContain(message)
    const event = { kernel: application!, commandLine: loadOptions!, initrd: initrd! }[part]
    expect(failed[0]!.seen).toBe(toHex(event.digest))
    expect(failed[0]!.severity).toBe("error")
  })

  test("fails without the event log too, and then names what the pcr holds", () => {
    const wrong = { ...PREDICTED, initrd: hex("other") }
    const failed = predictionChecks(wrong, quote, undefined).filter((check) => !check.ok)
    expect(failed.map((check) => check.subject)).toEqual(["pcr 9"])
    expect(failed[0]!.message).toContain("kernel command line or initrd")
    expect(failed[0]!.seen).toBe(toHex(quote.pcrs[9]!))
  })

  test("fails when more was measured than was started", () => {
    const failed = predictionChecks({ ...PREDICTED, initrd: undefined }, quote, events).filter(
      (check) => !check.ok,
    )
    expect(failed[0]).toMatchObject({ subject: "pcr 9", expected: "none" })
  })
})

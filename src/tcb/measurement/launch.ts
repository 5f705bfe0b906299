/**
 * @module tcb/measurement/launch
 *
 * What the manager knows of the start of a boot, judged. Two things, apart from each other: whether kernel, initrd,
 * command line and firmware are those of the reference table (the manager's own digests, all there is under
 * SeaBIOS), and, under OVMF, whether the firmware's PCRs 4 and 9 say that just these were started.
 *
 * In a reference table the parts are paths `launch:kernel` and so on. A part the table does not name is not judged.
 */

import { equalBytes, fromHex, toHex } from "../../lib/bytes.ts"
import { approveCommand, errorCheck, type Check } from "./check.ts"
import { EV_NO_ACTION, type FirmwareEvent } from "./event-log.ts"
import { pcr4Of, pcr9Of } from "./predict.ts"
import type { VerifiedQuote } from "./quote.ts"
import type { Measured, ReferenceTable } from "./reference-table.ts"

const PREFIX = "launch:"

export const LAUNCH_PARTS = ["kernel", "initrd", "append", "firmware"] as const

export type LaunchPart = (typeof LAUNCH_PARTS)[number]

/** JSON holds it: it outlives the manager's process. */
export interface Launch {
  /**
   * Lower-case hex SHA-256 of each part; of the command line, its UTF-8 bytes. A VM whose firmware starts what is on
   * its disk has the firmware alone.
   */
  readonly digests: Readonly<Partial<Record<LaunchPart, string | undefined>>>
  /** What firmware that measures will extend; none under SeaBIOS. */
  readonly predicted?: PredictedEvents | undefined
}

/** Digests of the firmware's events, lower-case hex. */
export interface PredictedEvents {
  /** PCR 4: any one of these. */
  readonly kernel: readonly string[]
  /** PCR 9 */
  readonly commandLine: string
  /** PCR 9, after the command line */
  readonly initrd?: string | undefined
}

const NAMES: Readonly<Record<LaunchPart, string>> = {
  kernel: "kernel",
  initrd: "initrd",
  append: "kernel command line",
  firmware: "firmware",
}

export function isLaunchPath(path: string): boolean {
  return path.startsWith(PREFIX)
}

/** The parts as entries of a log, for learning and comparing. */
export function launchMeasured(launch: Launch): Measured[] {
  return LAUNCH_PARTS.flatMap((part) => {
    const hex = launch.digests[part]
    if (hex === undefined) return []
    return { path: `${PREFIX}${part}`, fileDigest: { algorithm: "sha256", hex }, violation: false }
  })
}

/** The manager's own digests against the table. */
export function launchChecks(launch: Launch, table: ReferenceTable, vm: string): Check[] {
  const checks: Check[] = []
  for (const part of LAUNCH_PARTS) {
    const subject = `${PREFIX}${part}`
    const allowed = table.files.get(subject)
    if (allowed === undefined) continue
    const hex = launch.digests[part]
    const expected = [...allowed].map((digest) => `sha256:${digest}`).join(" or ")
    if (hex === undefined) {
      const message = `no ${NAMES[part]} was given to the VM at its start, ${expected} expected`
      checks.push(errorCheck({ name: "launch", ok: false, subject, expected, seen: "none", message }))
      continue
    }
    const ok = allowed.has(hex)
    const seen = `sha256:${hex}`
    const message = ok
      ? `the ${NAMES[part]} is the one of the table`
      : `the ${NAMES[part]} is not the one of the table: it has ${seen}, ${expected} expected`
    const check = errorCheck({ name: "launch", ok, subject, expected, seen, message })
    checks.push(ok ? check : { ...check, approve: approveCommand(vm, subject, hex) })
  }
  return checks
}

/** Whether measuring firmware started what the manager gave it. `events` only name what differs. */
export function predictionChecks(
  predicted: PredictedEvents,
  quote: VerifiedQuote,
  events: readonly FirmwareEvent[] | undefined,
): Check[] {
  const pcr4 = predicted.kernel.map((hex) => pcr4Of(fromHex(hex)))
  const pcr9 = pcr9Of(
    fromHex(predicted.commandLine),
    predicted.initrd ? fromHex(predicted.initrd) : undefined,
  )
  return [
    predictedCheck(4, pcr4, quote, () => ({
      what: "kernel",
      expected: predicted.kernel,
      seen: eventsOf(events, 4)[0],
    })),
    predictedCheck(9, [pcr9], quote, () => differing(predicted, eventsOf(events, 9))),
  ]
}

interface Difference {
  readonly what: string
  readonly expected: readonly string[]
  /** Digest of the event; none where the log is not there or has no such event. */
  readonly seen: string | undefined
}

function predictedCheck(
  index: number,
  allowed: readonly Uint8Array[],
  quote: VerifiedQuote,
  explain: () => Difference,
): Check {
  const value = quote.pcrs[index]!
  const subject = `pcr ${index}`
  const ok = allowed.some((expected) => equalBytes(expected, value))
  if (ok) {
    const what = index === 4 ? "kernel is" : "command line and initrd are"
    const message = `${subject} says the ${what} what the manager started`
    const seen = toHex(value)
    return errorCheck({ name: "launch", ok, subject, expected: seen, seen, message })
  }
  const { what, expected, seen } = explain()
  const said = seen === undefined ? "" : `, the firmware measured ${seen}`
  return errorCheck({
    name: "launch",
    ok,
    subject,
    expected: seen === undefined ? allowed.map(toHex).join(" or ") : expected.join(" or "),
    seen: seen ?? toHex(value),
    message: `the firmware did not start the ${what} that the manager gave it (${subject}${said})`,
  })
}

/** Which of the two that PCR 9 holds is another. */
function differing(predicted: PredictedEvents, events: readonly string[]): Difference {
  const [commandLine, initrd] = events
  const line = { what: NAMES.append, expected: [predicted.commandLine], seen: commandLine }
  if (commandLine !== undefined && commandLine !== predicted.commandLine) return line
  if (initrd !== undefined && initrd !== predicted.initrd) {
    return { what: NAMES.initrd, expected: [predicted.initrd ?? "none"], seen: initrd }
  }
  if (events.length > 2) return { what: "sequence", expected: ["no further event"], seen: events[2] }
  return { what: `${NAMES.append} or ${NAMES.initrd}`, expected: [], seen: undefined }
}

/** Digests of the events that extend a PCR, in their order, as hex. */
function eventsOf(events: readonly FirmwareEvent[] | undefined, pcr: number): string[] {
  return (events ?? [])
    .filter((event) => event.pcr === pcr && event.eventType !== EV_NO_ACTION)
    .map((event) => toHex(event.digest))
}

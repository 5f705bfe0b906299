/**
 * @module test/guest/copy/copies
 *
 * Copies between two folders of this machine over a stream in memory.
 */

import { localSources, pullFiles, pushFiles, type CopyOptions } from "../../../src/guest/copy/client.ts"
import { NO_LIMITS } from "../../../src/guest/copy/limits.ts"
import { serveCopy, type CopyService } from "../../../src/guest/copy/service.ts"
import type { CopyObserver, CopySummary, EntryReport, Tally } from "../../../src/guest/copy/tally.ts"
import { asMvmError, type MvmError } from "../../../src/lib/errors.ts"
import { streamPair, type StreamPair } from "./stream-pair.ts"

export interface Copied {
  readonly summary: CopySummary | undefined
  /** What the end that asked says of the entries that failed, or of the whole. */
  readonly error: MvmError | undefined
  readonly served: MvmError | undefined
  /** As the end that asked saw them. */
  readonly reports: readonly EntryReport[]
  readonly streams: StreamPair
}

export interface CopySettings extends Partial<Omit<CopyOptions, "observer">> {
  readonly service?: Partial<CopyService>
  readonly observer?: CopyObserver
  /** Who asks. */
  readonly caller?: Uint8Array
  readonly prepare?: (streams: StreamPair) => void
}

/** `paths` into `target` of the folder `served`. */
export function push(paths: readonly string[], served: string, target = "", settings: CopySettings = {}) {
  return copy(served, settings, async (streams, options) => {
    const sources = localSources(paths)
    try {
      return await pushFiles(streams.a, sources, target, options)
    } finally {
      sources.close()
    }
  })
}

/** `paths` of the folder `served` into `target`. */
export function pull(served: string, paths: readonly string[], target: string, settings: CopySettings = {}) {
  const { limits = NO_LIMITS, links = "inside" } = settings.service ?? {}
  return copy(served, settings, (streams, options) =>
    pullFiles(streams.a, paths, target, { ...options, limits, links }),
  )
}

async function copy(
  served: string,
  { recursive = true, checksum = false, totals = false, service, observer, caller, prepare }: CopySettings,
  run: (streams: StreamPair, options: CopyOptions) => Promise<Tally>,
): Promise<Copied> {
  const streams = streamPair()
  prepare?.(streams)
  const reports: EntryReport[] = []
  const watching: CopyObserver = {
    ...observer,
    entry(report) {
      reports.push(report)
      observer?.entry?.(report)
    },
  }
  const whole: CopyService = {
    folder: served,
    mayRead: true,
    mayWrite: true,
    limits: NO_LIMITS,
    links: "inside",
    ...service,
  }
  const serving = serveCopy(streams.b, whole, caller ? { caller } : {}).then(
    () => undefined,
    (error: unknown) => asMvmError(error),
  )
  let summary: CopySummary | undefined
  let error: MvmError | undefined
  try {
    const tally = await run(streams, { recursive, checksum, totals, observer: watching })
    summary = tally.summary()
    tally.requireAll()
  } catch (cause) {
    error = asMvmError(cause)
    if (!summary) streams.a.reset(error)
  }
  return { summary, error, served: await serving, reports, streams }
}

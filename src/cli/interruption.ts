/**
 * @module cli/interruption
 *
 * For commands that do a thing again and again until they are told to stop, and then have a last word.
 */

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const

/** Fires when this process is asked to end; asked a second time, it does at once. */
export function untilInterrupted(): AbortSignal {
  const stopping = new AbortController()
  for (const signal of SIGNALS) process.once(signal, () => stopping.abort())
  return stopping.signal
}

/** @returns whether it was cut short, or had been before it began */
export function pause(timeMs: number, cut: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    const over = (): void => {
      clearTimeout(timer)
      cut.removeEventListener("abort", over)
      resolve(cut.aborted)
    }
    const timer = setTimeout(over, timeMs)
    cut.addEventListener("abort", over)
    if (cut.aborted) over()
  })
}

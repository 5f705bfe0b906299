/** @module lib/pause */

/** Resolves after `milliseconds`, or as soon as `ended` fires; no timer is left behind then. */
export function pause(milliseconds: number, ended: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer)
      ended.removeEventListener("abort", done)
      resolve()
    }
    const timer = setTimeout(done, milliseconds)
    ended.addEventListener("abort", done)
    if (ended.aborted) done()
  })
}

/**
 * @module mvm/policy/size
 *
 * Sizes as people write them: `512`, `"64 KiB"`, `"10 GiB"`, `"1.5 TB"`.
 */

const UNITS: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
}

/** Bytes, a whole positive number, or undefined for anything else. */
export function parseSize(value: unknown): number | undefined {
  const match = /^(\d{1,15}(?:\.\d{1,9})?) ?([A-Za-z]*)$/.exec(String(value))
  if (!match || (typeof value !== "string" && typeof value !== "number")) return undefined
  const unit = match[2]!.toLowerCase()
  if (!Object.hasOwn(UNITS, unit)) return undefined
  const bytes = Number(match[1]) * UNITS[unit]!
  return Number.isSafeInteger(bytes) && bytes > 0 ? bytes : undefined
}

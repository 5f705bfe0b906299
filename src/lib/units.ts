/**
 * @module lib/units
 *
 * Sizes and durations as people write them: "256M", "10 GiB", "90s", "5m".
 */

import { MvmError } from "./errors.ts"

const SIZE_UNITS: Record<string, number> = { "": 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 }
const TIME_UNITS: Record<string, number> = {
  ms: 1,
  "": 1000,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
}

/** "256M", "256 MiB", "4096" as bytes; units are powers of 1024. @throws MvmError `usage`. */
export function parseSize(text: string, what: string): number {
  const match = /^\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*$/i.exec(text)
  const unit = SIZE_UNITS[(match?.[2] ?? "").toLowerCase()]
  const bytes = match && unit !== undefined ? Number(match[1]) * unit : NaN
  if (!Number.isSafeInteger(bytes)) {
    throw new MvmError("usage", `${what}: ${text} is not a size`, { hint: "for example 512K, 256M or 1G" })
  }
  return bytes
}

/** "90s", "5m", "250ms", "10" (seconds) as milliseconds. @throws MvmError `usage`. */
export function parseDuration(text: string, what: string): number {
  const match = /^\s*(\d+(?:\.\d+)?)\s*(ms|[smhd]?)\s*$/i.exec(text)
  const unit = TIME_UNITS[(match?.[2] ?? "").toLowerCase()]
  const milliseconds = match && unit !== undefined ? Math.round(Number(match[1]) * unit) : NaN
  if (!Number.isSafeInteger(milliseconds)) {
    throw new MvmError("usage", `${what}: ${text} is not a time`, { hint: "for example 30s, 5m or 250ms" })
  }
  return milliseconds
}

/** Bytes for people: "1.5 MiB". */
export function formatSize(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"]
  let value = bytes
  let unit = 0
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit += 1
  }
  return `${unit === 0 ? Math.round(value) : value.toFixed(value < 10 ? 2 : 1)} ${units[unit]}`
}

/** Seconds for people, in few letters: "45s", "12m", "3h", "5d". */
export function formatAge(seconds: number): string {
  if (seconds < 100) return `${Math.floor(seconds)}s`
  if (seconds < 100 * 60) return `${Math.floor(seconds / 60)}m`
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)}h`
  return `${Math.floor(seconds / 86_400)}d`
}

/** Milliseconds for people: "850 ms", "12.3 s", "2 h 05 m". */
export function formatDuration(milliseconds: number): string {
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`
  const seconds = milliseconds / 1000
  if (seconds < 60) return `${seconds.toFixed(1)} s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return `${minutes} m ${String(Math.floor(seconds % 60)).padStart(2, "0")} s`
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} m`
}

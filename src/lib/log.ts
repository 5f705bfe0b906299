/**
 * @module lib/log
 *
 * Structured logs on stderr: one JSON object a line, or short text when a person watches. Fields hold names,
 * numbers and codes; nothing secret is ever passed here.
 */

import { writeSync } from "node:fs"

export type Level = "debug" | "info" | "warn" | "error"

export type LogFields = Record<string, string | number | boolean | null | undefined>

const ORDER: Record<Level, number> = { debug: 0, info: 1, warn: 2, error: 3 }

export interface LogOptions {
  level: Level
  format: "json" | "text"
}

export class Log {
  readonly options: LogOptions
  readonly #base: LogFields

  constructor(options: LogOptions, base: LogFields = {}) {
    this.options = options
    this.#base = base
  }

  /** A log whose every line also carries `fields`. */
  with(fields: LogFields): Log {
    return new Log(this.options, { ...this.#base, ...fields })
  }

  debug(event: string, fields?: LogFields): void {
    this.#write("debug", event, fields)
  }

  info(event: string, fields?: LogFields): void {
    this.#write("info", event, fields)
  }

  warn(event: string, fields?: LogFields): void {
    this.#write("warn", event, fields)
  }

  error(event: string, fields?: LogFields): void {
    this.#write("error", event, fields)
  }

  #write(level: Level, event: string, fields: LogFields = {}): void {
    if (ORDER[level] < ORDER[this.options.level]) return
    const all = { ...this.#base, ...fields }
    const line =
      this.options.format === "json"
        ? JSON.stringify({ time: new Date().toISOString(), level, event, ...all })
        : textLine(level, event, all)
    try {
      writeSync(2, `${line}\n`)
    } catch {
      // A closed or full stderr must not stop the daemon.
    }
  }
}

/** `text` with control characters shown as escapes, so that a peer cannot steer a terminal. */
export function printable(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g, (char) => {
    return `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`
  })
}

function textLine(level: Level, event: string, fields: LogFields): string {
  const time = new Date().toISOString().slice(11, 23)
  const pairs = Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => `${key}=${printable(String(value))}`)
  return [time, level, event, ...pairs].join(" ")
}

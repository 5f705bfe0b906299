/**
 * @module lib/toml-places
 *
 * Where in a TOML text each key stands. The TOML library gives values without places; an operator who mistyped a
 * key needs its line. This scanner runs only on text that the library has already accepted, so it follows the
 * shape of the document and checks nothing.
 *
 * @spec TOML 1.0
 */

import { parse } from "smol-toml"

export interface Place {
  /** 1 for the first line. */
  readonly line: number
  /** 1 for the first column. */
  readonly column: number
}

export type KeyPath = readonly (string | number)[]

/** No document of ours is this deep: what lies deeper is placed where its ancestor is, and costs nothing to find. */
const MAX_PLACED = 16

/** Finds keys and array elements by path, the nearest one above where a path itself is not in the text. */
export class Places {
  readonly #offsets = new Map<string, number>()
  /** Offset of the first character of each line. */
  readonly #lines: readonly number[]

  constructor(text: string) {
    this.#lines = [0, ...Array.from(text.matchAll(/\n/g), ({ index }) => index + 1)]
    new Scanner(text, (path, offset) => {
      const key = JSON.stringify(path)
      if (!this.#offsets.has(key)) this.#offsets.set(key, offset)
    }).scan()
  }

  of(path: KeyPath): Place {
    for (let length = Math.min(path.length, MAX_PLACED); length > 0; length--) {
      const offset = this.#offsets.get(JSON.stringify(path.slice(0, length)))
      if (offset !== undefined) return this.#place(offset)
    }
    return { line: 1, column: 1 }
  }

  #place(offset: number): Place {
    let low = 0
    let high = this.#lines.length
    while (high - low > 1) {
      const middle = (low + high) >>> 1
      if (this.#lines[middle]! <= offset) low = middle
      else high = middle
    }
    return { line: low + 1, column: offset - this.#lines[low]! + 1 }
  }
}

const VOID = /(?:[ \t\r\n\uFEFF]|#[^\n]*)*/y
const BARE_KEY = /[A-Za-z0-9_-]+/y
const SCALAR = /[^,\]}#\n]*/y
/** The four kinds of string, the longer quotes first. */
const STRING = /"""(?:\\[^]|[^\\])*?"{3,5}(?!")|'''[^]*?'{3,5}(?!')|"(?:\\.|[^"\\\n])*"|'[^'\n]*'/y

class Scanner {
  #at = 0
  readonly #text: string
  readonly #found: (path: KeyPath, offset: number) => void
  /** How many elements each array of tables has so far. */
  readonly #tables = new Map<string, number>()

  constructor(text: string, found: (path: KeyPath, offset: number) => void) {
    this.#text = text
    this.#found = found
  }

  scan(): void {
    let base: (string | number)[] = []
    for (this.#skip(); this.#at < this.#text.length; this.#skip()) {
      const start = this.#at
      if (this.#peek() === "[") base = this.#header()
      else this.#pair(base)
      // Malformed text never comes here; standing still would be for ever.
      if (this.#at === start) return
    }
  }

  #header(): (string | number)[] {
    const offset = this.#at
    const isArray = this.#text.startsWith("[[", this.#at)
    this.#at += isArray ? 2 : 1
    const key = this.#key()
    this.#at += isArray ? 2 : 1
    const path: (string | number)[] = []
    key.forEach((part, index) => {
      path.push(part)
      if (path.length > MAX_PLACED) return
      const name = JSON.stringify(path)
      if (isArray && index === key.length - 1) this.#tables.set(name, (this.#tables.get(name) ?? 0) + 1)
      const count = this.#tables.get(name)
      if (count !== undefined) path.push(count - 1)
    })
    if (path.length <= MAX_PLACED) this.#found(path, offset)
    return path.slice(0, MAX_PLACED + 1)
  }

  #pair(base: KeyPath): void {
    const offset = this.#at
    const path = [...base, ...this.#key()].slice(0, MAX_PLACED + 1)
    for (let length = base.length + 1; length <= Math.min(path.length, MAX_PLACED); length++)
      this.#found(path.slice(0, length), offset)
    this.#at++
    this.#value(path)
  }

  #key(): string[] {
    const parts: string[] = []
    for (;;) {
      this.#skip()
      const quoted = this.#match(STRING)
      parts.push(quoted === undefined ? (this.#match(BARE_KEY) ?? "") : unquote(quoted))
      this.#skip()
      if (this.#peek() !== ".") return parts
      this.#at++
    }
  }

  #value(path: KeyPath): void {
    this.#skip()
    const first = this.#peek()
    if (first === "[") return this.#list("]", (index) => this.#element([...path, index]))
    if (first === "{") return this.#list("}", () => this.#pair(path))
    if (this.#match(STRING) === undefined) this.#match(SCALAR)
  }

  #element(path: KeyPath): void {
    this.#found(path, this.#at)
    this.#value(path)
  }

  #list(close: string, item: (index: number) => void): void {
    this.#at++
    for (let index = 0; this.#at < this.#text.length; index++) {
      this.#skip()
      if (this.#peek() === close) break
      item(index)
      this.#skip()
      if (this.#peek() === ",") this.#at++
      else break
    }
    this.#skip()
    this.#at++
  }

  #peek(): string | undefined {
    return this.#text[this.#at]
  }

  #skip(): void {
    this.#match(VOID)
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at
    const found = pattern.exec(this.#text)?.[0]
    if (found !== undefined) this.#at += found.length
    return found
  }
}

function unquote(quoted: string): string {
  return String(parse(`key = ${quoted}`)["key"])
}

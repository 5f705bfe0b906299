/**
 * @module scripts/man/roff
 *
 * Text as troff takes it, with the macros of man(7) that the pages use.
 */

/** Plain text inside a line: nothing of it is an escape, and a hyphen stays one that can be copied. */
export function escape(text: string): string {
  return text.replaceAll("\\", "\\e").replaceAll("-", "\\-").replaceAll("'", "\\(aq").replaceAll("`", "\\(ga")
}

/** A line of text, which no leading dot makes a request. */
export function line(text: string): string {
  const escaped = escape(text)
  return escaped.startsWith(".") ? `\\&${escaped}` : escaped
}

export function macro(name: string, ...words: string[]): string {
  const quoted = words.map((word) => `"${escape(word).replaceAll('"', "\\(dq")}"`)
  return [`.${name}`, ...quoted].join(" ")
}

/** What stands under an indented label. */
export function item(label: string, ...text: string[]): string[] {
  return [".TP", macro("B", label), ...text.map(line)]
}

/** Lines as they are, indented. */
export function example(...lines: string[]): string[] {
  return [".PP", ".RS 4", ".EX", ...lines.map(line), ".EE", ".RE"]
}

/** The head of a page. No date: the same source makes the same page. */
export function title(name: string, section: number, source: string, manual: string): string {
  return macro("TH", name, String(section), "", source, manual)
}

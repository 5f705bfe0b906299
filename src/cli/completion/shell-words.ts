/**
 * @module cli/completion/shell-words
 *
 * A command line as bash hands it to completion, taken apart into words. Bash's own list of words is cut at ":" and
 * "=", and no longer tells "a:b" from "a : b".
 */

/** The words of `line` after the command, the last one as far as it is typed: empty behind a blank. */
export function shellWords(line: string): string[] {
  const words: string[] = []
  let word: string | undefined
  let quote = ""
  for (let at = 0; at < line.length; at += 1) {
    const char = line[at] ?? ""
    if (quote === "" && /\s/.test(char)) {
      if (word !== undefined) words.push(word)
      word = undefined
      continue
    }
    word ??= ""
    if (char === "\\" && quote !== "'") {
      at += 1
      word += line[at] ?? ""
    } else if (quote === char) {
      quote = ""
    } else if (quote === "" && (char === "'" || char === '"')) {
      quote = char
    } else {
      word += char
    }
  }
  words.push(word ?? "")
  return words.slice(1)
}

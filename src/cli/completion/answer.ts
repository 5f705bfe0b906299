/**
 * @module cli/completion/answer
 *
 * `mvm __complete`: what the shells' scripts ask at every Tab. Candidates come one a line, a description behind a
 * tab; a last line that begins with ":" says that files or directories may stand there too.
 */

import type { CommandSpec } from "../command.ts"
import { print } from "../output.ts"
import { namesOf } from "./names.ts"
import { shellWords } from "./shell-words.ts"
import { wantedAt, type Candidate, type NameKind } from "./wanted.ts"

export const COMPLETE_WORD = "__complete"

/** @param argv "--line" and the line up to the cursor, or "--" and the words after the command */
export async function answerCompletion(
  commands: readonly CommandSpec[],
  argv: readonly string[],
): Promise<void> {
  const words = argv[0] === "--line" ? shellWords(argv[1] ?? "") : argv.slice(1)
  const wanted = wantedAt(commands, words)
  const kinds = wanted.kinds.filter((kind): kind is NameKind => kind !== "file" && kind !== "directory")
  const named = (await Promise.all(kinds.map((kind) => namesOf(kind, wanted)))).flat()
  const all: Candidate[] = [
    ...wanted.candidates,
    ...named
      .filter(({ value }) => value.startsWith(wanted.typed))
      .map(({ value, description }) => ({ value: `${wanted.prefix}${value}${wanted.suffix}`, description })),
  ]
  const lines = all.map(({ value, description }) => (description === "" ? value : `${value}\t${description}`))
  if (wanted.kinds.includes("file")) lines.push(":file")
  else if (wanted.kinds.includes("directory")) lines.push(":directory")
  if (lines.length > 0) print(lines.join("\n"))
}

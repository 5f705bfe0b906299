/**
 * @module lib/shell
 *
 * Words for commands that people copy.
 */

/** A word as a POSIX shell takes it unchanged. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) && !text.startsWith("-") ? text : `'${text.replaceAll("'", `'\\''`)}'`
}

/**
 * @module platform/self-command
 *
 * How this program starts itself once more.
 */

/** Where the sources of a compiled executable lie. */
const COMPILED = "/$bunfs/"

/** The first words of a command line that runs this very program. */
export function selfCommand(): readonly [string, ...string[]] {
  return Bun.main.startsWith(COMPILED) ? [process.execPath] : [process.execPath, Bun.main]
}

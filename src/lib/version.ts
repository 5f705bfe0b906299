/**
 * @module lib/version
 *
 * The program's version. The build stamps it from package.json; a run from the source tree says so.
 */

declare const MVM_VERSION: string | undefined

export const VERSION: string = typeof MVM_VERSION === "string" ? MVM_VERSION : "source"

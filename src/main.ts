/**
 * @module main
 *
 * Entry point; the only place that ends the process.
 */

import { STATUS } from "./lib/errors.ts"
import { VERSION } from "./lib/version.ts"

if (process.argv[2] === "--version") {
  console.log(`mvm ${VERSION}`)
} else {
  console.error("usage: mvm --version")
  process.exitCode = STATUS.usage
}

/**
 * @module main
 *
 * Entry point; the only place that ends the process.
 */

import { COMMANDS } from "./cli/commands.ts"
import { runProgram } from "./cli/program.ts"

process.exitCode = await runProgram(COMMANDS, process.argv.slice(2))

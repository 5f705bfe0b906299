/**
 * @module scripts/man/main
 *
 * Writes the manual pages into a folder: `main.ts FOLDER VERSION`. scripts/build runs it.
 */

import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { COMMANDS } from "../../src/cli/commands.ts"
import { commandsPage } from "./commands.ts"
import { policyPage } from "./policy.ts"

const [folder = "dist/man", version = "source"] = process.argv.slice(2)
const PAGES = { "man1/mvm.1": commandsPage(COMMANDS, version), "man5/mvm-policy.5": policyPage(version) }
for (const [name, text] of Object.entries(PAGES)) {
  mkdirSync(join(folder, name, ".."), { recursive: true })
  writeFileSync(join(folder, name), text)
}

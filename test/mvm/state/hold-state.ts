/**
 * @module test/mvm/state/hold-state
 *
 * A process that holds the state directory named in its argument, with a child of its own, until it is killed.
 * Prints its child's pid once it holds.
 */

import { openStateDir } from "../../../src/mvm/state/state-dir.ts"

await openStateDir(process.argv[2]!)
const child = Bun.spawn(["sleep", "60"], { stdio: ["ignore", "ignore", "ignore"] })
console.log(child.pid)
await Bun.sleep(60_000)

/**
 * @module cli/host-verb
 *
 * What a guest's command does, from the host itself: through the local endpoint `host`, which the daemon makes and
 * whose agent it runs.
 */

import { statSync } from "node:fs"
import { join } from "node:path"
import { MvmError } from "../lib/errors.ts"
import { HOST_NAME } from "../mvm/vm/vm-name.ts"
import { optionName, type Call, type CommandSpec } from "./command.ts"
import { ask, stateDirectory } from "./connect.ts"

const GUEST = /^guest /
/** Which agent is meant is plain. */
const NOT_HERE = new Set(["--local", "--socket"])

/** "guest send <target> [file]" as "send <target> [file]". */
export function hostVerb(guest: CommandSpec): CommandSpec {
  return {
    ...guest,
    usage: guest.usage.replace(GUEST, ""),
    section: "host",
    options: (guest.options ?? []).filter((option) => !NOT_HERE.has(optionName(option))),
    examples: guest.examples
      .filter((words) => !/--(local|socket)\b/.test(words))
      .map((words) => words.replace(GUEST, "")),
    async run(call) {
      demandUser(call)
      await ask(call, "host.use")
      return guest.run(call.with({ local: HOST_NAME, socket: undefined }))
    },
  }
}

/**
 * The agent says which program asks, and an agent that is not root can say so of its own user's alone.
 *
 * @throws MvmError `usage`.
 */
function demandUser(call: Call): void {
  const owner = statSync(join(stateDirectory(call), "control.sock"), { throwIfNoEntry: false })?.uid
  if (owner === undefined || owner === 0 || owner === process.geteuid?.()) return
  throw new MvmError("usage", "these commands are for the user that mvm serve runs as", {
    hint: `sudo -u '#${owner}' mvm ...`,
  })
}

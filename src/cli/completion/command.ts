/** @module cli/completion/command */

import { MvmError } from "../../lib/errors.ts"
import { closest } from "../closest.ts"
import type { CommandSpec } from "../command.ts"
import { writeRaw } from "../output.ts"
import { SCRIPTS, SHELLS } from "./scripts.ts"

export const completionCommand: CommandSpec = {
  usage: "completion <shell>",
  summary: "print what makes bash, zsh or fish complete commands, options and names",
  examples: [
    "completion bash >/etc/bash_completion.d/mvm",
    "completion zsh >/usr/local/share/zsh/site-functions/_mvm",
    "completion fish >~/.config/fish/completions/mvm.fish",
  ],
  async run(call) {
    const name = call.arg(0)
    const shell = SHELLS.find((known) => known === name)
    if (!shell) {
      const nearest = closest(name, SHELLS)
      throw new MvmError("usage", `${name} is none of ${SHELLS.join(", ")}`, {
        hint: nearest === undefined ? "mvm completion --help" : `did you mean ${nearest}?`,
      })
    }
    writeRaw(Buffer.from(SCRIPTS[shell]))
  },
}

/** @module cli/doctor */

import { judge } from "../lib/health.ts"
import { HOST_CHECKS } from "../mvm/doctor/checks.ts"
import { probeHost } from "../mvm/doctor/facts.ts"
import type { CommandSpec } from "./command.ts"
import { JSON_OPTION, STATE_OPTION, stateDirectory } from "./connect.ts"
import { report } from "./health-report.ts"
import { DEFAULT_ARENA_BYTES, DEFAULT_DEDICATED_BYTES } from "./serve.ts"

export const doctorCommand: CommandSpec = {
  usage: "doctor",
  summary: "say what of this host is in order and what is not, with the remedy",
  options: [
    STATE_OPTION,
    { flags: "--state-key <file>", description: "as given to mvm serve" },
    { flags: "--policy <file>", description: "as given to mvm serve" },
    { flags: "--arena <size>", description: "as given to mvm serve" },
    { flags: "--dedicated <size>", description: "as given to mvm serve" },
    JSON_OPTION,
  ],
  examples: ["doctor", "doctor --json", "doctor --state /srv/mvm"],
  async run(call) {
    const facts = await probeHost({
      state: stateDirectory(call),
      stateKeyFile: call.text("stateKey"),
      policyFile: call.text("policy"),
      arenaBytes: call.sizeBytes("arena", DEFAULT_ARENA_BYTES),
      dedicatedBytes: call.sizeBytes("dedicated", DEFAULT_DEDICATED_BYTES),
    })
    return report(call, judge(HOST_CHECKS, facts))
  },
}

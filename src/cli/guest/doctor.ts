/** @module cli/guest/doctor */

import { GUEST_CHECKS, MEMBER_CHECKS } from "../../guest/doctor/checks.ts"
import { agentFacts, probeGuest } from "../../guest/doctor/facts.ts"
import { judge } from "../../lib/health.ts"
import type { CommandSpec } from "../command.ts"
import { AGENT_OPTIONS, JSON_OPTION, agentSocket } from "../connect.ts"
import { report } from "../health-report.ts"

export const guestDoctor: CommandSpec = {
  usage: "guest doctor",
  summary: "say what of this VM is in order and what is not, with the remedy",
  options: [
    ...AGENT_OPTIONS,
    {
      flags: "--probe",
      description:
        "also run unknown programs to see them measured: an MVM that has a table distrusts this VM then",
    },
    JSON_OPTION,
  ],
  examples: ["guest doctor", "guest doctor --json", "guest doctor --local backup"],
  async run(call) {
    const socket = agentSocket(call)
    // A local endpoint is processes on a host: there is no machine of its own to look at.
    if (call.text("local") !== undefined) {
      return report(call, judge(MEMBER_CHECKS, { agent: await agentFacts(socket) }))
    }
    return report(call, judge(GUEST_CHECKS, await probeGuest({ socket, probe: call.flag("probe") })))
  },
}

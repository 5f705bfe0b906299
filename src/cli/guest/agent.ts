/** @module cli/guest/agent */

import type { Log } from "../../lib/log.ts"
import type { Agent } from "../../guest/agent.ts"
import { runAgent } from "../../guest/agent-lives.ts"
import { localEnvironment, vmEnvironment } from "../../guest/environment.ts"
import { MvmError, asMvmError } from "../../lib/errors.ts"
import type { Call, CommandSpec } from "../command.ts"
import { AGENT_OPTIONS, agentSocket, ask, stateDirectory } from "../connect.ts"
import { DAEMON_OPTIONS, beginDaemon } from "../daemon.ts"

export const guestAgent: CommandSpec = {
  usage: "guest agent",
  summary: "run the guest daemon of a VM, or of a local endpoint",
  options: [...AGENT_OPTIONS, ...DAEMON_OPTIONS],
  examples: ["guest agent", "guest agent --local backup"],
  async run(call) {
    const { log, stopping, manager } = beginDaemon(call)
    let serving: Agent | undefined
    const local = call.text("local")
    if (local) await expectEndpoint(call, local, log)
    await runAgent({
      environment: () =>
        local ? localEnvironment(stateDirectory(call), local) : vmEnvironment(agentSocket(call)),
      log,
      // Root's commands alone may map the arena, which would show them every region.
      socketMode: 0o600,
      stopping,
      onServing: (agent) => {
        serving = agent
        manager.ready({ status: () => serving?.summary ?? "", isAlive: () => true })
      },
    })
  },
}

/**
 * The agent waits for its MVM as long as it takes, and would for an endpoint that nobody made.
 *
 * @throws MvmError `not_found`, `usage`.
 */
async function expectEndpoint(call: Call, name: string, log: Log): Promise<void> {
  try {
    const { kind } = await ask<{ kind: string }>(call, "vm.show", { name })
    if (kind === "local") return
  } catch (error) {
    const failure = asMvmError(error)
    if (failure.code === "not_found") {
      throw new MvmError("not_found", `there is no local endpoint ${name}`, {
        hint: `mvm vm create ${name} --local`,
      })
    }
    return log.warn("waiting", { message: failure.message })
  }
  throw new MvmError("usage", `${name} is a VM: its agent runs inside it`)
}

/** @module cli/guest/agent */

import { resolve } from "node:path"
import type { Log } from "../../lib/log.ts"
import type { Agent } from "../../guest/agent.ts"
import { WAYS, type Way } from "../../platform/mapping.ts"
import { runAgent } from "../../guest/agent-lives.ts"
import { localEnvironment, vmEnvironment, withoutMemory, type Environment } from "../../guest/environment.ts"
import { groupId } from "../../platform/group.ts"
import { MvmError, asMvmError } from "../../lib/errors.ts"
import type { Call, CommandSpec } from "../command.ts"
import { AGENT_OPTIONS, agentSocket, ask, stateDirectory } from "../connect.ts"
import { DAEMON_OPTIONS, beginDaemon } from "../daemon.ts"

export const guestAgent: CommandSpec = {
  usage: "guest agent",
  summary: "run the guest daemon of a VM, or of a local endpoint",
  options: [
    ...AGENT_OPTIONS,
    {
      flags: "--group <name>",
      description: "users of this group may use channels too (default: the agent's own user alone)",
    },
    {
      flags: "--map <way>",
      description: `${WAYS.join(", ")}, auto for the fastest, or none: records then go by way of the MVM (or MVM_MAP; default auto)`,
      values: ["auto", "none", ...WAYS],
    },
    ...DAEMON_OPTIONS,
  ],
  examples: [
    "guest agent",
    "guest agent --group mvm",
    "guest agent --map resource2",
    "guest agent --local backup",
  ],
  async run(call) {
    const { log, stopping, manager } = beginDaemon(call)
    let serving: Agent | undefined
    const local = call.text("local")
    if (local) await expectEndpoint(call, local, log)
    const environment = (): Environment =>
      local
        ? localEnvironment(stateDirectory(call), local, socket && resolve(socket))
        : vmEnvironment(agentSocket(call), way)
    const [group, socket] = [call.text("group"), call.text("socket")]
    const map = howToMap(call)
    const way = WAYS.find((known) => known === map)
    await runAgent({
      environment: () => (map === "none" ? withoutMemory(environment()) : environment()),
      log,
      gid: group === undefined ? undefined : groupId(group),
      stopping,
      onServing: (agent) => {
        serving = agent
        manager.ready({ status: () => serving?.summary ?? "", isAlive: () => true })
      },
    })
  },
}

/** @throws MvmError `usage`. */
function howToMap(call: Call): Way | "auto" | "none" {
  const named = call.text("map") ?? process.env["MVM_MAP"] ?? "auto"
  const how = (["auto", "none", ...WAYS] as const).find((known) => known === named)
  if (how) return how
  throw new MvmError("usage", `--map: ${named} is none of auto, none, ${WAYS.join(", ")}`)
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

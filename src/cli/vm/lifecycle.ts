/**
 * @module cli/vm/lifecycle
 *
 * start, stop, reboot and rm: one name each, and waiting where that is asked for.
 */

import type { Call, CommandSpec, OptionSpec } from "../command.ts"
import { STATE_OPTION, ask } from "../connect.ts"
import { WaitingLine, print, suggest } from "../output.ts"
import { nameOrAll, startAll, stopAll } from "./all.ts"

const DEFAULT_WAIT_MS = 120_000
const SHUTDOWN_OPTION: OptionSpec = {
  flags: "--timeout <time>",
  description: "how long its guest has to shut down; then it runs on (default 1m)",
}

export const vmStart: CommandSpec = {
  usage: "vm start [name]",
  summary: "start a VM",
  options: [
    STATE_OPTION,
    { flags: "--all", description: "every VM with autostart that does not run, in place of one" },
    { flags: "--wait [time]", description: "wait until its agent is linked (default up to 2m)" },
  ],
  examples: ["vm start web", "vm start web --wait", "vm start web --wait 30s", "vm start --all"],
  async run(call) {
    const name = nameOrAll(call)
    if (name === undefined) return startAll(call)
    await ask(call, "vm.start", { name })
    if (call.given("wait")) await waitForAgent(call, name, call.durationMs("wait", DEFAULT_WAIT_MS))
  },
}

export const vmWait: CommandSpec = {
  usage: "vm wait <name>",
  summary: "wait until a VM's agent is linked",
  options: [STATE_OPTION, { flags: "--timeout <time>", description: "at most this long (default 2m)" }],
  examples: ["vm wait web --timeout 30s"],
  async run(call) {
    await waitForAgent(call, call.arg(0), call.durationMs("timeout", DEFAULT_WAIT_MS))
  },
}

export const vmStop: CommandSpec = {
  usage: "vm stop [name]",
  summary: "shut a VM down",
  options: [
    STATE_OPTION,
    { flags: "--all", description: "every VM that this MVM started, in place of one" },
    SHUTDOWN_OPTION,
    { flags: "--force", description: "at once, without asking the guest" },
  ],
  examples: ["vm stop web", "vm stop web --timeout 5m", "vm stop web --force", "vm stop --all"],
  async run(call) {
    const name = nameOrAll(call)
    const [force, timeoutMs] = [call.flag("force"), shutdownMs(call)]
    if (name === undefined) return stopAll(call, { force, timeoutMs })
    const line = new WaitingLine(`waiting for ${name} to shut down`)
    await ask(call, "vm.stop", { name, force, timeoutMs }).finally(() => line.end())
  },
}

export const vmReboot: CommandSpec = {
  usage: "vm reboot <name>",
  summary: "shut a VM down and start it again",
  options: [
    STATE_OPTION,
    SHUTDOWN_OPTION,
    { flags: "--wait [time]", description: "wait until its agent is linked again (default up to 2m)" },
  ],
  examples: ["vm reboot web", "vm reboot web --wait"],
  async run(call) {
    const name = call.arg(0)
    const timeoutMs = shutdownMs(call)
    const waitMs = call.durationMs("wait", DEFAULT_WAIT_MS)
    const line = new WaitingLine(`waiting for ${name} to shut down`)
    await ask(call, "vm.reboot", { name, timeoutMs }).finally(() => line.end())
    if (call.given("wait")) await waitForAgent(call, name, waitMs)
  },
}

export const vmRemove: CommandSpec = {
  usage: "vm rm <name>",
  summary: "remove a stopped VM and its vTPM for good",
  options: [
    STATE_OPTION,
    { flags: "--apply", description: "take the MVM's elements out of its libvirt domain, too" },
  ],
  examples: ["vm rm web", "vm rm db --apply"],
  async run(call) {
    const name = call.arg(0)
    const apply = call.flag("apply")
    const { changed, domain } = await ask<{ changed: string[]; domain: string | null }>(call, "vm.rm", {
      name,
      apply,
    })
    if (changed.length > 0) print(`taken out of the domain, or put back: ${changed.join(", ")}`)
    if (domain !== null && !apply) {
      suggest(
        `its domain ${domain} still has the MVM's <shmem>, <tpm> and <channel>, and cannot start with them`,
      )
    }
  },
}

/** Undefined: as long as the MVM gives a guest. */
function shutdownMs(call: Call): number | undefined {
  return call.given("timeout") ? call.durationMs("timeout", 0) : undefined
}

async function waitForAgent(call: Call, name: string, timeoutMs: number): Promise<void> {
  const line = new WaitingLine(`waiting for the agent of ${name}`)
  try {
    await ask(call, "vm.wait", { name, timeoutMs }, (value) => line.update(String(value)))
    line.end(`the agent of ${name} is linked`)
  } catch (error) {
    line.end()
    throw error
  }
}

/** @module cli/policy */

import { statSync } from "node:fs"
import { resolve } from "node:path"
import { STATUS } from "../lib/errors.ts"
import { serviceOf } from "../mvm/install/installed.ts"
import { readPolicy } from "../mvm/policy/policy-file.ts"
import { lint } from "../mvm/policy/lint.ts"
import type { Call, CommandSpec } from "./command.ts"
import { JSON_OPTION, STATE_OPTION, ask, stateDirectory } from "./connect.ts"
import { counted, note, print, printJson } from "./output.ts"
import type { VmView } from "./vm/list.ts"

export const policyCheck: CommandSpec = {
  usage: "policy check [file]",
  summary: "read a policy file and say what is wrong with it",
  options: [STATE_OPTION],
  examples: ["policy check", "policy check new-policy.toml"],
  async run(call) {
    const path = resolve(call.args[0] ?? (await policyInForce(call)))
    // It may be the daemon's, which is another user where root asks.
    const policy = readPolicy(path, statSync(stateDirectory(call), { throwIfNoEntry: false })?.uid)
    // Names can be checked where an MVM runs that knows them; the file is good or bad without one.
    const vms = await ask<VmView[]>(call, "vm.list").catch(() => undefined)
    for (const { line, message } of lint(policy, vms)) note(`warning: ${policy.file}:${line}: ${message}`)
    print(`${path}: ${counted(policy.rules.length, "rule")}`)
  },
}

/** The file that the daemon reads; without one, where it would look. */
async function policyInForce(call: Call): Promise<string> {
  try {
    return (await ask<{ policy: { file: string } }>(call, "status")).policy.file
  } catch {
    const state = stateDirectory(call)
    return serviceOf(state)?.policy ?? `${state}/policy.toml`
  }
}

interface Outcome {
  action: string
  rule: string
  target: string
  reason: string
  steps: { line: number; comment: string; action: string; mismatch: string | null }[]
}

export const policyTest: CommandSpec = {
  usage: "policy test <service> <from> <to>",
  summary: "say what the policy in force decides, and by which rule",
  options: [
    STATE_OPTION,
    { flags: "--program <path>", description: "the program that asks" },
    {
      flags: "--digest <hex>",
      description: "its content (default: what the VM was seen to run by that name)",
    },
    { flags: "--steps", description: "show every rule that was tried, and what did not match" },
    JSON_OPTION,
  ],
  examples: ["policy test default web db", "policy test backup web host --program /usr/bin/mvm"],
  async run(call) {
    const outcome = await ask<Outcome>(call, "policy.test", {
      service: call.arg(0),
      from: call.arg(1),
      to: call.arg(2),
      program: call.text("program"),
      digest: call.text("digest"),
    })
    if (call.flag("json")) {
      printJson(outcome)
    } else {
      if (call.flag("steps")) printSteps(outcome.steps)
      print(`${outcome.action}: ${outcome.reason}`)
    }
    return outcome.action === "allow" ? STATUS.ok : STATUS.denied
  },
}

function printSteps(steps: Outcome["steps"]): void {
  for (const { line, comment, action, mismatch } of steps) {
    const said = comment === "" ? "" : ` (${comment})`
    print(`line ${line}${said}: ${mismatch === null ? action : `${mismatch} does not match`}`)
  }
}

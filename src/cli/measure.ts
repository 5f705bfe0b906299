/**
 * @module cli/measure
 *
 * A known-good boot as reference values, what they are, and measuring now.
 */

import type { CommandSpec } from "./command.ts"
import { JSON_OPTION, STATE_OPTION, ask } from "./connect.ts"
import { note, print, printJson, printTable, suggest } from "./output.ts"
import { MvmError } from "../lib/errors.ts"
import { GROUP_OPTION, target } from "./measure-values.ts"

export const measureLearn: CommandSpec = {
  usage: "measure learn <vm>",
  summary: "take what a known-good boot runs as its reference values",
  options: [
    STATE_OPTION,
    { flags: "--reason <text>", description: "why, for the audit log" },
    { flags: "--replace", description: "drop the values there were, instead of adding to them" },
    {
      flags: "--pcrs <list>",
      description: "firmware PCRs to hold later boots to: none, or as 0,2-4 (default 0,2-4,6-9)",
    },
    GROUP_OPTION,
    JSON_OPTION,
  ],
  examples: [
    "measure learn web",
    'measure learn web --replace --reason "new image 4.2"',
    "measure learn web --group web --pcrs none",
  ],
  async run(call) {
    const learnt = await ask<{ vm: string; added: number; entries: number; warnings: string[] }>(
      call,
      "measure.learn",
      { ...target(call), replace: call.flag("replace"), pcrs: pcrList(call.text("pcrs")) },
    )
    for (const warning of learnt.warnings) note(`warning: ${warning}`)
    if (call.flag("json")) return printJson(learnt)
    print(`${learnt.vm}: ${learnt.entries} entries seen, ${learnt.added} new reference values`)
    suggest(
      `mvm measure show ${learnt.vm} lists them; what is not among them makes it untrusted once it runs`,
    )
  },
}

export const measureShow: CommandSpec = {
  usage: "measure show <vm>",
  summary: "show the reference values of a VM",
  options: [STATE_OPTION, GROUP_OPTION, JSON_OPTION],
  examples: ["measure show web", "measure show web --json", "measure show group:web"],
  async run(call) {
    const values = await ask<
      { path: string; digest: string; required: boolean; source: string; reason: string }[]
    >(call, "measure.show", target(call))
    if (call.flag("json")) return printJson(values)
    printTable(
      ["DIGEST", "PATH", "REQUIRED", "SOURCE", "REASON"],
      values.map((value) => [
        value.digest.slice(0, 16),
        value.path,
        value.required ? "yes" : "",
        value.source,
        value.reason,
      ]),
    )
  },
}

export const measureRun: CommandSpec = {
  usage: "measure run <vm>",
  summary: "measure a VM now",
  options: [STATE_OPTION],
  examples: ["measure run web"],
  async run(call) {
    await ask(call, "measure.run", { vm: call.arg(0) })
    print(`${call.arg(0)}: trusted`)
  },
}

/** "none", "4", "0,2-4" */
function pcrList(text: string | undefined): number[] | undefined {
  if (text === undefined) return undefined
  if (text === "none") return []
  const indices = text.split(",").flatMap((part) => {
    const [, from, to = from] = /^(\d)(?:-(\d))?$/.exec(part) ?? []
    if (from === undefined || Number(to) < Number(from)) {
      throw new MvmError("usage", `--pcrs: ${text} is not a list of 0 to 9`, { hint: "for example 0,2-4,7" })
    }
    return Array.from({ length: Number(to) - Number(from) + 1 }, (_, index) => Number(from) + index)
  })
  return [...new Set(indices)]
}

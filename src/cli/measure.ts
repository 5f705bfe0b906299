/**
 * @module cli/measure
 *
 * Reference values and verdicts: what a VM may run, what it was seen to run, and why it is not trusted.
 */

import type { CommandSpec } from "./command.ts"
import { JSON_OPTION, STATE_OPTION, ask } from "./connect.ts"
import { note, print, printJson, printTable, suggest } from "./output.ts"
import { STATUS } from "../lib/errors.ts"

interface CheckView {
  name: string
  ok: boolean
  subject: string
  expected: string
  seen: string
  message: string
  approve?: string
}

interface Explanation {
  vm: string
  verdict: string
  code: string | null
  message: string | null
  since: string
  entries: number
  checks: CheckView[]
}

export const measureLearn: CommandSpec = {
  usage: "measure learn <vm>",
  summary: "take what a known-good boot runs as its reference values",
  options: [
    STATE_OPTION,
    { flags: "--reason <text>", description: "why, for the audit log" },
    { flags: "--replace", description: "drop the values there were, instead of adding to them" },
    JSON_OPTION,
  ],
  examples: ["measure learn web", 'measure learn web --replace --reason "new image 4.2"'],
  async run(call) {
    const learnt = await ask<{ vm: string; added: number; entries: number; warnings: string[] }>(
      call,
      "measure.learn",
      { vm: call.arg(0), reason: call.text("reason") ?? "", replace: call.flag("replace") },
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
  options: [STATE_OPTION, JSON_OPTION],
  examples: ["measure show web", "measure show web --json"],
  async run(call) {
    const values = await ask<
      { path: string; digest: string; required: boolean; source: string; reason: string }[]
    >(call, "measure.show", { vm: call.arg(0) })
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

export const measureExplain: CommandSpec = {
  usage: "measure explain <vm>",
  summary: "say whether a VM is trusted, and exactly why not",
  options: [STATE_OPTION, { flags: "--all", description: "show the checks that passed too" }, JSON_OPTION],
  examples: ["measure explain web", "measure explain web --all --json"],
  async run(call) {
    const explanation = await ask<Explanation>(call, "measure.explain", { vm: call.arg(0) })
    if (call.flag("json")) {
      printJson(explanation)
    } else {
      print(
        `${explanation.vm}: ${explanation.verdict} since ${explanation.since}, ${explanation.entries} log entries`,
      )
      if (explanation.message) print(`${explanation.code}: ${explanation.message}`)
      for (const check of explanation.checks) if (!check.ok || call.flag("all")) printCheck(check)
    }
    return explanation.verdict === "untrusted" ? STATUS.attestation : STATUS.ok
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

export const measureApprove: CommandSpec = {
  usage: "measure approve <vm> [path]",
  summary: "allow what a VM was seen to run and was refused for",
  options: [
    STATE_OPTION,
    { flags: "--all", description: "everything that is seen and not allowed" },
    { flags: "--digest <hex>", description: "exactly this content, seen or not; with pcr:N, a PCR value" },
    { flags: "--reason <text>", description: "why, for the audit log" },
  ],
  examples: ["measure approve web /usr/bin/rsync --reason upgrade", "measure approve web --all --reason 4.2"],
  async run(call) {
    const { approved } = await ask<{ approved: { path: string; digest: string }[] }>(
      call,
      "measure.approve",
      {
        vm: call.arg(0),
        path: call.args[1],
        all: call.flag("all"),
        digest: call.text("digest"),
        reason: call.text("reason") ?? "",
      },
    )
    for (const { path, digest } of approved) print(`${digest}  ${path}`)
  },
}

export const measureDiff: CommandSpec = {
  usage: "measure diff <vm>",
  summary: "show what a VM ran that is not allowed, and what is allowed and was not seen",
  options: [STATE_OPTION, JSON_OPTION],
  examples: ["measure diff web"],
  async run(call) {
    const diff = await ask<{
      seen: { path: string; digest: string }[]
      unseen: { path: string; digest: string }[]
    }>(call, "measure.diff", { vm: call.arg(0) })
    if (call.flag("json")) return printJson(diff)
    for (const { path, digest } of diff.seen) print(`+ ${digest}  ${path}`)
    for (const { path, digest } of diff.unseen) print(`- ${digest}  ${path}`)
  },
}

function printCheck(check: CheckView): void {
  print(`${check.ok ? "ok  " : "FAIL"} ${check.name}: ${check.message}`)
  if (check.ok) return
  print(`     ${check.subject}`)
  print(`     expected ${check.expected}`)
  print(`     seen     ${check.seen}`)
  if (check.approve) print(`     approve  ${check.approve}`)
}

/**
 * @module cli/measure-evidence
 *
 * Why a VM or a decision is what it is, and evidence that somebody else can judge again.
 */

import { toHex } from "../lib/bytes.ts"
import { MvmError, STATUS } from "../lib/errors.ts"
import { parsePublicKey } from "./public-key.ts"
import { verifyEvidence, type VerifiedEvidence } from "../mvm/evidence/verify.ts"
import type { CommandSpec } from "./command.ts"
import { JSON_OPTION, STATE_OPTION, ask } from "./connect.ts"
import { readInput } from "./input.ts"
import { note, print, printJson } from "./output.ts"
import { printable } from "../lib/log.ts"

interface CheckView {
  name: string
  ok: boolean
  subject: string
  expected: string
  seen: string
  message: string
  approve?: string
}

interface VmExplanation {
  vm: string
  verdict: string
  code: string | null
  message: string | null
  since: string
  entries: number
  checks: CheckView[]
}

interface ChannelExplanation {
  channel: string
  time: string
  refused: string | null
  service: string | null
  rule: string | null
  problem: string | null
  ends: {
    vm: string
    verdict: string
    kind: string
    bootId: string
    measured: string
    entries: number | null
    checks: CheckView[]
  }[]
}

export const measureExplain: CommandSpec = {
  usage: "measure explain <vm|channel>",
  summary: "say whether a VM is trusted, and exactly why not; or what a decision rested on",
  options: [STATE_OPTION, { flags: "--all", description: "show the checks that passed too" }, JSON_OPTION],
  examples: ["measure explain web", "measure explain web --all --json", "measure explain 3f9a12c0"],
  async run(call) {
    const all = call.flag("all")
    const explanation = await ask<VmExplanation | ChannelExplanation>(call, "measure.explain", {
      vm: call.arg(0),
    })
    if (call.flag("json")) printJson(explanation)
    else if ("ends" in explanation) printChannel(explanation, all)
    else printVm(explanation, all)
    const trusted =
      "ends" in explanation
        ? explanation.refused === null && explanation.ends.every((end) => end.verdict === "trusted")
        : explanation.verdict !== "untrusted"
    return trusted ? STATUS.ok : STATUS.attestation
  },
}

export const measureEvidence: CommandSpec = {
  usage: "measure evidence <vm|channel>",
  summary: "write the evidence of a VM's last appraisal, or of a decision, for measure verify elsewhere",
  options: [STATE_OPTION],
  examples: ["measure evidence web >web.json", "measure evidence 3f9a12c0 >decision.json"],
  async run(call) {
    const { text } = await ask<{ text: string }>(call, "measure.evidence", { vm: call.arg(0) })
    print(text)
  },
}

export const measureVerify: CommandSpec = {
  usage: "measure verify <file>",
  summary: "judge exported evidence again; needs no MVM",
  options: [
    {
      flags: "--key <key>",
      description: "the MVM's public key: 65 bytes in hex, or a file with them or PEM",
    },
    { flags: "--all", description: "show the checks that passed too" },
    JSON_OPTION,
  ],
  examples: ["measure verify decision.json --key 04ab...", "measure verify web.json --key mvm.pem --all"],
  async run(call) {
    const named = call.text("key")
    const key = named === undefined ? undefined : parsePublicKey(named)
    let verified: VerifiedEvidence
    try {
      verified = verifyEvidence(readInput(call.arg(0)), key)
    } catch (error) {
      // Whatever does not fit, the evidence proves nothing: one status for a script to test.
      if (!(error instanceof MvmError) || error.code === "usage") throw error
      if (call.flag("json")) printJson({ ok: false, code: error.code, message: error.message })
      note(`${error.code}: ${error.message}`)
      return STATUS.attestation
    }
    if (!key) note(`warning: taken from the file itself: the MVM's key ${toHex(verified.mvmKey)}`)
    const trusted = verified.ends.every((end) => end.appraisal.verdict === "trusted")
    if (call.flag("json")) printJson({ ok: trusted, ...viewOf(verified) })
    else printVerified(verified, call.flag("all"))
    return trusted ? STATUS.ok : STATUS.attestation
  },
}

function viewOf({ mvmKey, body, decision, ends }: VerifiedEvidence): Record<string, unknown> {
  return {
    mvmKey: toHex(mvmKey),
    channel: body.channel,
    time: new Date(body.timeMs).toISOString(),
    refused: body.refused,
    service: decision?.service ?? null,
    rule: decision?.rule ?? null,
    ends: ends.map(({ record, appraisal, entries }) => ({
      vm: record.vm,
      uuid: record.uuid,
      kind: record.kind,
      bootId: record.bootId,
      verdict: appraisal.verdict,
      entries,
      checks: appraisal.checks,
    })),
  }
}

function printVerified({ body, decision, ends }: VerifiedEvidence, all: boolean): void {
  const time = new Date(body.timeMs).toISOString()
  if (body.channel !== null) print(channelLine(body.channel, time, body.refused, decision))
  for (const { record, appraisal, entries } of ends) {
    const held = "signatures, nonce, log and boot_aggregate hold"
    print(printable(`${record.vm}: ${appraisal.verdict}, ${entries} log entries, ${held}`))
    for (const check of appraisal.checks) if (!check.ok || all) printCheck(check)
  }
}

function printVm(explanation: VmExplanation, all: boolean): void {
  const { vm, verdict, since, entries, code, message, checks } = explanation
  print(`${vm}: ${verdict} since ${since}, ${entries} log entries`)
  if (message) print(printable(`${code}: ${message}`))
  for (const check of checks) if (!check.ok || all) printCheck(check)
}

function printChannel(explanation: ChannelExplanation, all: boolean): void {
  const { channel, time, refused, ends, problem } = explanation
  print(channelLine(channel, time, refused, explanation))
  if (problem !== null) print(printable(`not judged again: ${problem}`))
  for (const end of ends) {
    const entries = end.entries === null ? "" : `, ${end.entries} log entries`
    print(`${end.vm}: ${end.verdict}, log kept by the ${end.kind}, boot ${end.bootId}${entries}`)
    for (const check of end.checks) if (!check.ok || all) printCheck(check)
  }
}

function channelLine(
  channel: string,
  time: string,
  refused: string | null,
  rule: { service: string | null; rule: string | null } | undefined,
): string {
  const outcome =
    refused === null ? `allowed by ${rule?.rule}, service ${rule?.service}` : `refused, ${refused}`
  return printable(`${channel}: ${outcome}, ${time}`)
}

function printCheck(
  check: CheckView | VerifiedEvidence["ends"][number]["appraisal"]["checks"][number],
): void {
  print(printable(`${check.ok ? "ok  " : "FAIL"} ${check.name}: ${check.message}`))
  if (check.ok || check.expected === "") return
  print(printable(`     ${check.subject}`))
  print(printable(`     expected ${check.expected}`))
  print(printable(`     seen     ${check.seen}`))
  if (check.approve) print(printable(`     approve  ${check.approve}`))
}

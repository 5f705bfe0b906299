/**
 * @module cli/status
 *
 * The MVM at a glance: once, or again and again until it is interrupted.
 */

import { isatty } from "node:tty"
import { MvmError, STATUS, asMvmError } from "../lib/errors.ts"
import type { RpcClient } from "../platform/json-rpc.ts"
import { formatDuration, formatSize } from "../lib/units.ts"
import { CHANNEL_HEADINGS, channelRow, type ChannelView } from "./channel.ts"
import type { Call, CommandSpec } from "./command.ts"
import { JSON_OPTION, STATE_OPTION, ask, askWhenUp, withMvm } from "./connect.ts"
import { pause, untilInterrupted } from "./interruption.ts"
import { counted, note, print, printJson, tableLines } from "./output.ts"
import { Screen } from "./screen.ts"
import type { VmView } from "./vm/list.ts"

const WATCH_MS = 2000
const MIN_WATCH_MS = 100

interface StatusView {
  pid: number
  state: string
  uptimeSeconds: number
  arena: { path: string; sizeBytes: number; freeBytes: number }
  dedicated: { limitBytes: number; usedBytes: number; used: number; idle: number; ignored: number }
  policy: { file: string; state: string; rules: number; reason?: string }
  vms: VmView[]
  channels: number
}

/** The daemon's answers to both questions, or why there is none. */
type Glance = { readonly status: StatusView; readonly channels: readonly ChannelView[] } | MvmError

export const statusCommand: CommandSpec = {
  usage: "status",
  summary: "show the daemon, its VMs, its channels and its memory",
  options: [
    STATE_OPTION,
    { flags: "--wait [time]", description: "wait until the daemon answers (without a time: 30s)" },
    { flags: "--watch [time]", description: "show it again and again, so often (without a time: every 2s)" },
    JSON_OPTION,
  ],
  examples: ["status", "status --wait", "status --watch", "status --watch 10s --json >status.log"],
  async run(call) {
    const waitMs = call.given("wait") ? call.durationMs("wait", 30_000) : 0
    if (call.given("watch") && waitMs === 0) return watch(call)
    const status = await askWhenUp<StatusView>(call, "status", waitMs)
    if (call.given("watch")) return watch(call)
    const channels = await ask<ChannelView[]>(call, "channel.list")
    if (call.flag("json")) return printGlance(status, channels)
    for (const line of glanceLines({ status, channels })) print(line)
  },
}

/** Until a signal comes. On a terminal in place; elsewhere one block, or one line of JSON, after another. */
async function watch(call: Call): Promise<number> {
  const periodMs = call.durationMs("watch", WATCH_MS)
  if (periodMs < MIN_WATCH_MS) {
    throw new MvmError("usage", `--watch: at least ${MIN_WATCH_MS} ms`)
  }
  const interrupted = untilInterrupted()
  const json = call.flag("json")
  const screen = isatty(1) && !json ? new Screen() : undefined
  screen?.open()
  try {
    for (let block = 0; ; block += 1) {
      const glance = await look(call, interrupted)
      if (interrupted.aborted) break
      if (screen) screen.show(glanceLines(glance))
      else if (glance instanceof MvmError) note(glance.message)
      else if (json) printGlance(glance.status, glance.channels)
      else print([...(block === 0 ? [] : [""]), ...glanceLines(glance)].join("\n"))
      if (await pause(periodMs, interrupted)) break
    }
  } finally {
    screen?.close()
  }
  return STATUS.interrupted
}

/** A daemon that is down, or restarts, is shown as such. */
async function look(call: Call, cut: AbortSignal): Promise<Glance> {
  try {
    const ask = async (client: RpcClient): Promise<Glance> => ({
      status: await client.call<StatusView>("status"),
      channels: await client.call<ChannelView[]>("channel.list"),
    })
    return await withMvm(call, ask, cut)
  } catch (error) {
    return asMvmError(error)
  }
}

function printGlance(status: StatusView, open: readonly ChannelView[]): void {
  printJson({ ...status, time: new Date().toISOString(), open })
}

function glanceLines(glance: Glance): string[] {
  if (glance instanceof MvmError) return [glance.message, "waiting for it to come back"]
  const { status, channels } = glance
  const { arena, dedicated, policy } = status
  const used = arena.sizeBytes - arena.freeBytes
  const table = (headings: readonly string[], rows: readonly (readonly string[])[]): string[] =>
    rows.length === 0 ? [] : ["", ...tableLines(headings, rows)]
  return [
    `mvm serve, pid ${status.pid}, up ${formatDuration(status.uptimeSeconds * 1000)}, state ${status.state}`,
    `arena ${arena.path}: ${formatSize(used)} of ${formatSize(arena.sizeBytes)} used`,
    dedicatedLine(dedicated),
    `policy ${policy.state === "ok" ? `${policy.file}: ${counted(policy.rules, "rule")}` : policy.reason}`,
    `${counted(status.vms.length, "VM")}, ${counted(channels.length, "channel")}`,
    ...table(
      ["NAME", "STATE", "LINK", "VERDICT", "TRANSPORT", "CHANNELS", "DEPOSITS"],
      status.vms.map(({ name, state, link, verdict, transport, channels: open, deposits }) => {
        return [name, state, link, verdict, transport ?? "-", String(open), String(deposits)]
      }),
    ),
    ...table(CHANNEL_HEADINGS, channels.map(channelRow)),
  ]
}

function dedicatedLine({ limitBytes, usedBytes, used, idle, ignored }: StatusView["dedicated"]): string {
  const stubborn = ignored > 0 ? `, ${ignored} that a guest does not let go of` : ""
  const size = `${formatSize(usedBytes)} of ${formatSize(limitBytes)}`
  return `dedicated memory: ${size} used, ${used} in channels, ${idle} kept${stubborn}`
}

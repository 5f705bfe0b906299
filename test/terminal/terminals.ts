/**
 * @module test/terminal/terminals
 *
 * Terminals in which `mvm` is the program and the MVM of a test host, gone after the test that opened them; and what
 * must be so after any command that was interrupted.
 */

import { expect, onTestFinished } from "bun:test"
import { delimiter } from "node:path"
import type { TestHost } from "../integration/host.ts"
import { Terminal, type TerminalOptions } from "../cli/tmux.ts"

const open: Terminal[] = []

/** One that its test closes. */
export async function terminalOf(host: TestHost, options: TerminalOptions = {}): Promise<Terminal> {
  // Hooks of a module that several test files import run for the first of them alone.
  if (open.length === 0) {
    onTestFinished(async () => {
      for (const terminal of open.splice(0)) await terminal.close()
    })
  }
  const terminal = await openTerminal(host, options)
  open.push(terminal)
  return terminal
}

/** One that is the caller's to close. */
export function openTerminal(host: TestHost, options: TerminalOptions): Promise<Terminal> {
  return Terminal.open({
    ...options,
    cwd: host.folder,
    env: {
      MVM_STATE: host.state,
      MVM_AGENT: undefined,
      PATH: `${host.folder}${delimiter}${process.env["PATH"]}`,
      ...options.env,
    },
  })
}

/** No channel, no region, no offer and no waiting request of these members is left. */
export async function nothingLeft(host: TestHost, ...members: string[]): Promise<void> {
  await host.free()
  for (const name of members) {
    await host.until(`no offer of ${name}`, async () => {
      const { offers, channels } = await host.json<{ offers: string[]; channels: number }>(
        "guest",
        "status",
        "--local",
        name,
      )
      return offers.length === 0 && channels === 0
    })
  }
}

/** Escapes that set colours or attributes. */
export function coloursIn(raw: string): string[] {
  return raw.match(/\u001b\[[0-9;:]*m/g) ?? []
}

/** A terminal that a command left behind is as it was: cursor shown, its own screen, at the start of a line. */
export async function inOrder(terminal: Terminal): Promise<void> {
  const { shown, alternate } = await terminal.cursor()
  expect({ shown, alternate }).toEqual({ shown: true, alternate: false })
}

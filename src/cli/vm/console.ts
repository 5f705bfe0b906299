/**
 * @module cli/vm/console
 *
 * The VM's serial console on this terminal. Ctrl-] leaves it, as in telnet and virsh.
 */

import { openSync } from "node:fs"
import { ReadStream, isatty } from "node:tty"
import { connectUnix } from "../../platform/unix-socket.ts"
import type { CommandSpec } from "../command.ts"
import { STATE_OPTION, ask } from "../connect.ts"
import { note, writeRaw } from "../output.ts"

const LEAVE = 0x1d

export const vmConsole: CommandSpec = {
  usage: "vm console <name>",
  summary: "attach to a VM's serial console (Ctrl-] leaves)",
  options: [STATE_OPTION],
  examples: ["vm console web", "vm console web <script >output"],
  async run(call) {
    const { path } = await ask<{ path: string }>(call, "vm.console", { name: call.arg(0) })
    const { promise, resolve } = Promise.withResolvers<void>()
    const socket = await connectUnix(path, { onData: (chunk) => writeRaw(chunk), onClose: resolve })
    const terminal = isatty(0) ? new ReadStream(openSync("/dev/tty", "r")) : undefined
    terminal?.setRawMode(true)
    if (terminal) note("connected: Enter shows a prompt, Ctrl-] leaves")
    const input = terminal ?? process.stdin
    input.on("data", (chunk: Buffer) => {
      const leave = terminal ? chunk.indexOf(LEAVE) : -1
      socket.write(leave < 0 ? chunk : chunk.subarray(0, leave))
      if (leave >= 0) resolve()
    })
    input.on("end", () => socket.finish())
    try {
      await promise
    } finally {
      terminal?.setRawMode(false)
      terminal?.destroy()
      // The guest's cursor stands anywhere.
      if (terminal) note("left the console", "\r\nmvm: ")
      input.removeAllListeners()
      input.pause()
      socket.close()
    }
  },
}

/**
 * @module cli/vm/console
 *
 * The VM's serial console on this terminal. Ctrl-] leaves it, as in telnet and virsh.
 */

import { isatty } from "node:tty"
import { readerOf, type ByteReader } from "../../guest/streams/descriptor-duplex.ts"
import { MvmError } from "../../lib/errors.ts"
import { makeRaw } from "../../platform/terminal.ts"
import { connectUnix, type ByteSocket } from "../../platform/unix-socket.ts"
import type { CommandSpec } from "../command.ts"
import { STATE_OPTION, ask } from "../connect.ts"
import { note, writeRaw } from "../output.ts"

const STDIN = 0
const LEAVE = 0x1d

export const vmConsole: CommandSpec = {
  usage: "vm console <name>",
  summary: "attach to a VM's serial console (Ctrl-] leaves)",
  options: [STATE_OPTION],
  examples: ["vm console web", "vm console web <script >output"],
  async run(call) {
    const { path } = await ask<{ path: string }>(call, "vm.console", { name: call.arg(0) })
    const over = Promise.withResolvers<void>()
    const socket = await connectUnix(path, {
      onData: (chunk) => {
        try {
          writeRaw(chunk)
        } catch (error) {
          over.reject(error)
        }
      },
      onClose: over.resolve,
    })
    const isTerminal = isatty(STDIN)
    const restore = isTerminal ? makeRaw(STDIN) : () => {}
    // Whatever ends this process, the terminal is as it was.
    process.once("exit", restore)
    if (isTerminal) note("connected: Enter shows a prompt, Ctrl-] leaves", "mvm: ")
    const input = readerOf(STDIN)
    type(input, socket, isTerminal).then(over.resolve, over.reject)
    try {
      await over.promise
    } finally {
      input.stop(new MvmError("interrupted", "the console was left"))
      restore()
      process.removeListener("exit", restore)
      socket.close()
      // The guest's cursor stands anywhere.
      if (isTerminal) note("left the console", "\r\nmvm: ")
    }
  },
}

/** Everything typed, until Ctrl-] at a terminal; what ends otherwise leaves the console when it has been written. */
async function type(input: ByteReader, socket: ByteSocket, isTerminal: boolean): Promise<void> {
  for (;;) {
    const chunk = await input.read()
    if (chunk === null) break
    const leave = isTerminal ? chunk.indexOf(LEAVE) : -1
    socket.write(leave < 0 ? chunk : chunk.subarray(0, leave))
    if (leave >= 0) return
  }
  socket.finish()
  await new Promise<void>(() => {})
}

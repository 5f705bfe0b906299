/**
 * @module guest/environment
 *
 * What differs between an agent inside a VM and the agent of a local endpoint on the host: where the link is,
 * which vTPM, who keeps the measurement log, and where the memory is. Everything above is the same code.
 */

import { readFileSync, statSync } from "node:fs"
import { random } from "../lib/crypto.ts"
import { MvmError, asMvmError } from "../lib/errors.ts"
import { localPaths } from "../platform/local-paths.ts"
import { mapShared } from "../platform/mmap.ts"
import { connectUnix } from "../platform/unix-socket.ts"
import { findIvshmem } from "../platform/ivshmem.ts"
import {
  findVirtioPort,
  openVirtioPort,
  type ByteStream,
  type StreamHandlers,
} from "../platform/virtio-port.ts"
import { openTpmDevice } from "../tpm/device-transport.ts"
import { connectSwtpm } from "../tpm/swtpm-transport.ts"
import type { TpmTransport } from "../tpm/transport.ts"
import { FrameReader, encodeFrame, type Frame } from "../wire/frame.ts"
import { MESSAGES } from "../wire/messages.ts"
import { decodeMessage, encodeMessage } from "../wire/table.ts"
import { agentLog, kernelLog, type MeasurementSource } from "./measurement-source.ts"
import type { GuestVtpm } from "./vtpm.ts"

export const PORT_NAME = "org.mvm.0"
const BOOT_ANSWER_MS = 20_000
const RETRY_MS = 500
const PROBE_BYTES = 4096

export interface MemoryPlace {
  readonly path: string
  readonly lengthBytes: number
  /** For people: how it is mapped. */
  readonly how: string
}

/** Memory that cannot be mapped here: records are relayed then. */
export interface NoMemory {
  /** For people */
  readonly why: string
}

export type Memory = MemoryPlace | NoMemory

export interface Environment {
  readonly kind: "kernel" | "agent"
  readonly bootId: Uint8Array
  readonly socketPath: string
  /** @param life `onLost` is called when the TPM goes away; `stopping` ends the waiting for one */
  openTpm(life: { onLost(error: MvmError): void; stopping: AbortSignal }): Promise<TpmTransport>
  openStream(handlers: StreamHandlers): Promise<ByteStream>
  measurementSource(vtpm: GuestVtpm): Promise<MeasurementSource>
  /** @param told the path the MVM named, for a local endpoint; undefined: it has not spoken yet */
  memory(told: string | undefined): Memory
}

/** Inside a VM. */
export function vmEnvironment(socketPath: string): Environment {
  return {
    kind: "kernel",
    bootId: kernelBootId(),
    socketPath,
    openTpm: () => openTpmDevice(),
    openStream: async (handlers) => {
      const path = findVirtioPort(PORT_NAME)
      if (!path) {
        throw new MvmError("setup", `this machine has no virtio-serial port ${PORT_NAME}`, {
          hint: "load the virtio_console module; start the VM with mvm vm start",
        })
      }
      return openVirtioPort(path, handlers)
    },
    measurementSource: async () => kernelLog(),
    memory: () => deviceMemory(),
  }
}

/** A process group on the host, a member under the name it was created with. */
export function localEnvironment(stateDirectory: string, name: string): Environment {
  const paths = localPaths(stateDirectory, name)
  return {
    kind: "agent",
    bootId: random(16),
    socketPath: paths.agent,
    openTpm: async ({ onLost, stopping }) => {
      await bootVtpm(paths.link, name, stopping)
      return connectSwtpm(paths.tpm, onLost)
    },
    openStream: (handlers) => connectUnix(paths.link, handlers),
    measurementSource: (vtpm) => agentLog(vtpm),
    memory: (told) => {
      if (told === undefined) return { path: "", lengthBytes: 0, how: "the arena file" }
      if (told === "") return { why: "the MVM gives this endpoint none" }
      const lengthBytes = statSync(told, { throwIfNoEntry: false })?.size
      return lengthBytes ? { path: told, lengthBytes, how: "the arena file" } : { why: `no file ${told}` }
    },
  }
}

/** `environment`, but no memory is mapped there. */
export function withoutMemory(environment: Environment): Environment {
  return { ...environment, memory: () => ({ why: "the agent was started with --map none" }) }
}

function deviceMemory(): Memory {
  const device = findIvshmem()[0]
  if (!device) return { why: "this machine has no shared memory device" }
  const { address, path, lengthBytes } = device
  try {
    mapShared(path, { offsetBytes: 0, lengthBytes: PROBE_BYTES }).unmap()
    return { path, lengthBytes, how: `resource2 of ${address}` }
  } catch (error) {
    // Where the kernel is locked down it opens, and does not map.
    return { why: asMvmError(error).message }
  }
}

/**
 * Each agent start is a new TPM boot, made by the MVM, which alone holds the vTPM's control socket. Waits for an
 * MVM as long as it takes.
 */
async function bootVtpm(linkPath: string, name: string, stopping: AbortSignal): Promise<void> {
  for (;;) {
    if (stopping.aborted) throw new MvmError("interrupted", "stopped before an MVM answered")
    try {
      const { promise, resolve, reject } = Promise.withResolvers<void>()
      const frames = new FrameReader()
      const socket = await connectUnix(linkPath, {
        // What an MVM says before a HELLO is POKE: the vTPM is up.
        onData: (chunk) => {
          if (frames.push(chunk).some(isPoke)) resolve()
        },
        onClose: () => reject(new MvmError("no_mvm", `the MVM could not start the vTPM of ${name}`)),
      })
      const timer = setTimeout(() => reject(new MvmError("timeout", "no answer to BOOT")), BOOT_ANSWER_MS)
      try {
        socket.write(encodeFrame(encodeMessage(MESSAGES, "BOOT", 0, {})))
        return await promise
      } finally {
        clearTimeout(timer)
        socket.close()
      }
    } catch (error) {
      if (!(error instanceof MvmError) || error.code !== "unreachable") throw error
      await Bun.sleep(RETRY_MS)
    }
  }
}

/** Trust: any frame. */
function isPoke({ payload, authenticated }: Frame): boolean {
  try {
    return !authenticated && decodeMessage(MESSAGES, payload, "mvm").name === "POKE"
  } catch {
    return false
  }
}

function kernelBootId(): Uint8Array {
  const text = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()
  return Uint8Array.fromHex(text.replaceAll("-", ""))
}

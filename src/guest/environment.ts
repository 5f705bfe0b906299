/**
 * @module guest/environment
 *
 * What differs between an agent inside a VM and the agent of a local endpoint on the host: where the link is,
 * which vTPM, who keeps the measurement log, and where the memory is. Everything above is the same code.
 */

import { readFileSync } from "node:fs"
import { join } from "node:path"
import { random } from "../lib/crypto.ts"
import { MvmError } from "../lib/errors.ts"
import { localPaths } from "../platform/local-paths.ts"
import { connectUnix } from "../platform/unix-socket.ts"
import type { Way } from "../platform/mapping.ts"
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
import { localMemory, noMemory, type GuestMemory } from "./guest-memory.ts"
import { agentLog, kernelLog, type MeasurementSource } from "./measurement-source.ts"
import { VmMemory } from "./vm-memory.ts"
import type { GuestVtpm } from "./vtpm.ts"

export const PORT_NAME = "org.mvm.0"
/** On a disk that outlives the boot, if the VM has one. */
const DELIVERED_PATH = "/var/lib/mvm-agent/delivered"
const BOOT_ANSWER_MS = 20_000
const RETRY_MS = 500

export interface Environment {
  readonly kind: "kernel" | "agent"
  readonly bootId: Uint8Array
  readonly socketPath: string
  /** @param life `onLost` is called when the TPM goes away; `stopping` ends the waiting for one */
  openTpm(life: { onLost(error: MvmError): void; stopping: AbortSignal }): Promise<TpmTransport>
  openStream(handlers: StreamHandlers): Promise<ByteStream>
  /** Where it is remembered which deposits were delivered. @param vmUuid of this member */
  deliveredPath(vmUuid: Uint8Array): string
  measurementSource(vtpm: GuestVtpm): Promise<MeasurementSource>
  readonly memory: GuestMemory
}

/** Inside a VM. @param mapping the one way to map its memory, else the fastest */
export function vmEnvironment(socketPath: string, mapping?: Way): Environment {
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
    deliveredPath: () => DELIVERED_PATH,
    measurementSource: async () => kernelLog(),
    memory: new VmMemory(mapping),
  }
}

/**
 * A process group on the host, a member under the name it was created with.
 *
 * @param socketPath where its commands find the agent, if not among the endpoint's other sockets
 */
export function localEnvironment(stateDirectory: string, name: string, socketPath?: string): Environment {
  const paths = localPaths(stateDirectory, name)
  return {
    kind: "agent",
    bootId: random(16),
    socketPath: socketPath ?? paths.agent,
    openTpm: async ({ onLost, stopping }) => {
      await bootVtpm(paths.link, name, stopping)
      return connectSwtpm(paths.tpm, onLost)
    },
    openStream: (handlers) => connectUnix(paths.link, handlers),
    // Among what the MVM keeps of the endpoint, so that it goes when that does.
    deliveredPath: (vmUuid) => join(stateDirectory, "vms", uuidText(vmUuid), "delivered"),
    measurementSource: (vtpm) => agentLog(vtpm),
    memory: localMemory,
  }
}

/** `environment`, but no memory is mapped there. */
export function withoutMemory(environment: Environment): Environment {
  return { ...environment, memory: noMemory("the agent was started with --map none") }
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

function uuidText(uuid: Uint8Array): string {
  return uuid.toHex().replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5")
}

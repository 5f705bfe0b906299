/**
 * @module platform/virtio-port
 *
 * A virtio-serial port as a byte stream. One process can hold a port; the kernel names it in sysfs.
 */

import { close, constants, createReadStream, openSync, readFileSync, readdirSync, write } from "node:fs"
import { MvmError, errnoOf } from "../lib/errors.ts"

/** A stream of bytes with an owner who is told when it ends. */
export interface ByteStream {
  /** What was given to {@link write} and is still here. */
  readonly backlogBytes: number
  write(bytes: Uint8Array): void
  close(): void
}

export interface StreamHandlers {
  onData(chunk: Uint8Array): void
  onClose(): void
  /** Less is waiting to be written than before. */
  onDrain?(): void
}

const SYSFS_PORTS = "/sys/class/virtio-ports"
const MAX_BACKLOG_BYTES = 4 * 1024 * 1024

/** The device of the port called `name`, or undefined when the machine has none. */
export function findVirtioPort(name: string): string | undefined {
  let ports: string[]
  try {
    ports = readdirSync(SYSFS_PORTS)
  } catch {
    return undefined
  }
  const port = ports.find((entry) => portName(entry) === name)
  return port === undefined ? undefined : `/dev/${port}`
}

/**
 * Open the port at `path`.
 *
 * @throws MvmError `busy` when another process holds it, `io` otherwise.
 */
export function openVirtioPort(path: string, handlers: StreamHandlers): ByteStream {
  let fd: number
  try {
    fd = openSync(path, constants.O_RDWR)
  } catch (error) {
    const errno = errnoOf(error)
    throw new MvmError(errno === "EBUSY" ? "busy" : "io", `cannot open ${path}: ${errno ?? "failed"}`, {
      cause: error,
      hint: errno === "EBUSY" ? "another mvm guest agent holds it" : "run the agent as root",
    })
  }
  return new VirtioPort(fd, handlers)
}

class VirtioPort implements ByteStream {
  readonly #fd: number
  readonly #handlers: StreamHandlers
  readonly #input: ReturnType<typeof createReadStream>
  #queue: Uint8Array[] = []
  #backlogBytes = 0
  #writing = false
  #closed = false

  constructor(fd: number, handlers: StreamHandlers) {
    this.#fd = fd
    this.#handlers = handlers
    this.#input = createReadStream("", { fd, autoClose: false, highWaterMark: 65536 })
    this.#input.on("data", (chunk) => handlers.onData(chunk as Uint8Array))
    this.#input.on("error", () => this.close())
    this.#input.on("end", () => this.close())
  }

  get backlogBytes(): number {
    return this.#backlogBytes
  }

  write(bytes: Uint8Array): void {
    if (this.#closed) return
    this.#backlogBytes += bytes.length
    if (this.#backlogBytes > MAX_BACKLOG_BYTES) return this.close()
    this.#queue.push(bytes)
    if (!this.#writing) this.#writeNext()
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#queue = []
    this.#input.destroy()
    close(this.#fd, () => {})
    this.#handlers.onClose()
  }

  #writeNext(): void {
    const bytes = this.#queue.shift()
    if (bytes === undefined || this.#closed) {
      this.#writing = false
      return
    }
    this.#writing = true
    write(this.#fd, bytes, 0, bytes.length, null, (error, written) => {
      if (error) {
        // No reader at the host's side yet: what was said is lost there too, and HELLO is repeated.
        if (errnoOf(error) === "EAGAIN") setTimeout(() => this.#retry(bytes), 5)
        else this.close()
        return
      }
      this.#backlogBytes -= written
      if (written < bytes.length) this.#queue.unshift(bytes.subarray(written))
      this.#handlers.onDrain?.()
      this.#writeNext()
    })
  }

  #retry(bytes: Uint8Array): void {
    this.#queue.unshift(bytes)
    this.#writeNext()
  }
}

function portName(entry: string): string | undefined {
  try {
    return readFileSync(`${SYSFS_PORTS}/${entry}/name`, "utf8").trim()
  } catch {
    return undefined
  }
}

/**
 * @module platform/virtio-port
 *
 * A virtio-serial port as a byte stream. One process can hold a port; the kernel names it in sysfs.
 */

import { close, constants, openSync, read, readFileSync, readdirSync, write } from "node:fs"
import { MvmError, errnoOf } from "../lib/errors.ts"

/** A stream of bytes with an owner who is told when it ends. */
export interface ByteStream {
  /** What was given to {@link write} and is still here. */
  readonly backlogBytes: number
  write(bytes: Uint8Array): void
  close(): void
}

export interface StreamHandlers {
  /** `chunk` is the stream's again when this returns. */
  onData(chunk: Uint8Array): void
  onClose(): void
  /** Less is waiting to be written than before. */
  onDrain?(): void
}

const SYSFS_PORTS = "/sys/class/virtio-ports"
const MAX_BACKLOG_BYTES = 4 * 1024 * 1024
const READ_BYTES = 64 * 1024
const RETRY_MS = 5

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
  /** Read into again and again: the driver gives 4 KiB at a time, which is not worth an allocation each. */
  readonly #input = new Uint8Array(READ_BYTES)
  #queue: Uint8Array[] = []
  #backlogBytes = 0
  #writing = false
  #closed = false

  constructor(fd: number, handlers: StreamHandlers) {
    this.#fd = fd
    this.#handlers = handlers
    this.#readNext()
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
    close(this.#fd, () => {})
    this.#handlers.onClose()
  }

  #readNext(): void {
    if (this.#closed) return
    read(this.#fd, this.#input, 0, READ_BYTES, null, (error, got) => {
      if (this.#closed) return
      // Nobody at the host's side holds the port: until somebody does there is nothing to read.
      if (error && errnoOf(error) === "EAGAIN") return void setTimeout(() => this.#readNext(), RETRY_MS)
      if (error || got === 0) return this.close()
      this.#handlers.onData(this.#input.subarray(0, got))
      this.#readNext()
    })
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
        if (errnoOf(error) === "EAGAIN") setTimeout(() => this.#retry(bytes), RETRY_MS)
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

/**
 * @module tpm/device-transport
 *
 * The kernel's TPM character device. Writing a command runs it, reading gives the response; both block, so they
 * are done by the runtime's thread pool and the event loop stays free.
 */

import { type FileHandle, open } from "node:fs/promises"
import { concat } from "../lib/bytes.ts"
import { MvmError, errnoOf } from "../lib/errors.ts"
import { MAX_TPM_MESSAGE_BYTES } from "./constants.ts"
import { responseLength, type TpmTransport } from "./transport.ts"

const SIZE_FIELD_END = 6

/**
 * Opens a TPM device. The default goes through the kernel's resource manager, which other processes may use at
 * the same time.
 *
 * @throws MvmError `setup` when it does not exist or may not be opened.
 */
export async function openTpmDevice(path = "/dev/tpmrm0"): Promise<TpmTransport> {
  try {
    return new DeviceTransport(await open(path, "r+"), path)
  } catch (cause) {
    const errno = errnoOf(cause) ?? "failed"
    const hint =
      errno === "EACCES"
        ? "run the agent as root or as a member of the device's group"
        : "the vm needs a tpm 2.0 device and its driver"
    throw new MvmError("setup", `cannot open ${path}: ${errno}`, { hint, cause })
  }
}

class DeviceTransport implements TpmTransport {
  readonly #file: FileHandle
  readonly #path: string
  #isBusy = false
  #isClosed = false

  constructor(file: FileHandle, path: string) {
    this.#file = file
    this.#path = path
  }

  async send(command: Uint8Array): Promise<Uint8Array> {
    if (this.#isClosed) throw new MvmError("tpm", "the tpm connection is closed")
    if (this.#isBusy) throw new MvmError("tpm", "a tpm command is already outstanding")
    this.#isBusy = true
    try {
      // The driver takes a command in one write only.
      const { bytesWritten } = await this.#file.write(command, 0, command.length, null)
      if (bytesWritten !== command.length) {
        throw new MvmError("tpm", `${this.#path}: took ${bytesWritten} of ${command.length} bytes`)
      }
      return await this.#readResponse()
    } catch (cause) {
      if (cause instanceof MvmError) throw cause
      throw new MvmError("tpm", `${this.#path}: ${errnoOf(cause) ?? "failed"}`, { cause })
    } finally {
      this.#isBusy = false
      if (this.#isClosed) await this.#file.close()
    }
  }

  /** A command that is running keeps the file open until its response is there. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    if (!this.#isBusy) void this.#file.close()
  }

  /** Trust: bytes of a TPM; bounded by the buffer and by the header's checked length. */
  async #readResponse(): Promise<Uint8Array> {
    let response: Uint8Array = new Uint8Array(0)
    for (;;) {
      const chunk = new Uint8Array(MAX_TPM_MESSAGE_BYTES)
      const { bytesRead } = await this.#file.read(chunk, 0, chunk.length, null)
      if (bytesRead === 0)
        throw new MvmError("tpm", `${this.#path}: response ended after ${response.length} bytes`)
      response = concat(response, chunk.subarray(0, bytesRead))
      if (response.length < SIZE_FIELD_END) continue
      const lengthBytes = responseLength(response)
      if (response.length === lengthBytes) return response
      if (response.length > lengthBytes) {
        throw new MvmError("tpm", `tpm response: ${response.length - lengthBytes} bytes after its end`)
      }
    }
  }
}

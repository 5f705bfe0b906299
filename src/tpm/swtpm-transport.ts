/**
 * @module tpm/swtpm-transport
 *
 * Raw TPM commands over swtpm's unix data socket. There is no framing but the TPM's own header, so a response is
 * collected until its stated length, and a byte nobody asked for ends the connection.
 */

import { concat } from "../lib/bytes.ts"
import { MvmError, errnoOf } from "../lib/errors.ts"
import { MAX_TPM_MESSAGE_BYTES } from "./constants.ts"
import { responseLength, type TpmTransport } from "./transport.ts"

/** Far above any command's run time here (key generation included), so that a hung process is noticed. */
const RESPONSE_TIMEOUT_MS = 30_000

const SIZE_FIELD_END = 6

interface Pending {
  resolve(response: Uint8Array): void
  reject(error: MvmError): void
  timer: ReturnType<typeof setTimeout>
}

/**
 * Connects to swtpm's data socket. swtpm serves one data connection at a time: a second one waits unanswered.
 *
 * @param onLost called once when the connection is over, whoever noticed first: no command will be answered on it any
 *   more; not after {@link TpmTransport.close}
 * @throws MvmError `swtpm` when nobody listens at `path`.
 */
export async function connectSwtpm(
  path: string,
  onLost: (error: MvmError) => void = () => {},
): Promise<TpmTransport> {
  const transport = new SwtpmTransport(onLost)
  try {
    await Bun.connect({
      unix: path,
      socket: {
        open: (socket) => transport.opened(socket),
        data: (_socket, chunk) => transport.received(chunk),
        drain: () => transport.flush(),
        close: () => transport.fail(new MvmError("swtpm", "swtpm closed its data socket")),
        error: (_socket, cause) =>
          transport.fail(new MvmError("swtpm", "swtpm data socket failed", { cause })),
      },
    })
  } catch (cause) {
    throw new MvmError("swtpm", `cannot connect to swtpm at ${path}: ${errnoOf(cause) ?? "failed"}`, {
      cause,
    })
  }
  return transport
}

class SwtpmTransport implements TpmTransport {
  #socket: { write(bytes: Uint8Array): number; end(): void } | undefined
  #pending: Pending | undefined
  #unsent: Uint8Array = new Uint8Array(0)
  #received: Uint8Array = new Uint8Array(0)
  #failure: MvmError | undefined
  #isClosed = false
  readonly #onLost: (error: MvmError) => void

  constructor(onLost: (error: MvmError) => void) {
    this.#onLost = onLost
  }

  opened(socket: { write(bytes: Uint8Array): number; end(): void }): void {
    this.#socket = socket
  }

  async send(command: Uint8Array): Promise<Uint8Array> {
    if (this.#failure !== undefined) throw this.#failure
    if (this.#pending !== undefined) throw new MvmError("tpm", "a tpm command is already outstanding")
    if (command.length > MAX_TPM_MESSAGE_BYTES) {
      throw new MvmError("too_large", `tpm command of ${command.length} bytes, at most 4096 allowed`)
    }
    return new Promise<Uint8Array>((resolve, reject) => {
      const timer = setTimeout(
        () => this.fail(new MvmError("swtpm", `swtpm did not answer within ${RESPONSE_TIMEOUT_MS / 1000} s`)),
        RESPONSE_TIMEOUT_MS,
      )
      this.#pending = { resolve, reject, timer }
      this.#unsent = command
      this.flush()
    })
  }

  close(): void {
    this.#isClosed = true
    this.fail(new MvmError("tpm", "the tpm connection is closed"))
  }

  flush(): void {
    if (this.#unsent.length === 0 || this.#socket === undefined) return
    const written = this.#socket.write(this.#unsent)
    if (written < 0) return this.fail(new MvmError("swtpm", "swtpm closed its data socket"))
    this.#unsent = this.#unsent.subarray(written)
  }

  /** Trust: bytes of a TPM process; at most one bounded response is collected. */
  received(chunk: Uint8Array): void {
    const pending = this.#pending
    if (pending === undefined) return this.fail(new MvmError("tpm", "swtpm sent bytes without a command"))
    this.#received = concat(this.#received, chunk)
    if (this.#received.length < SIZE_FIELD_END) return
    try {
      const lengthBytes = responseLength(this.#received)
      if (this.#received.length < lengthBytes) return
      if (this.#received.length > lengthBytes) {
        throw new MvmError("tpm", `tpm response: ${this.#received.length - lengthBytes} bytes after its end`)
      }
    } catch (error) {
      return this.fail(error as MvmError)
    }
    const response = this.#received
    this.#received = new Uint8Array(0)
    this.#pending = undefined
    clearTimeout(pending.timer)
    pending.resolve(response)
  }

  /** Ends the connection for good; the outstanding and all later commands get `error`. */
  fail(error: MvmError): void {
    if (this.#failure !== undefined) return
    this.#failure = error
    this.#received = new Uint8Array(0)
    this.#unsent = new Uint8Array(0)
    this.#socket?.end()
    const pending = this.#pending
    this.#pending = undefined
    clearTimeout(pending?.timer)
    pending?.reject(error)
    if (!this.#isClosed) this.#onLost(error)
  }
}

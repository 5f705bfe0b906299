/**
 * @module platform/swtpm-control
 *
 * swtpm's control channel over its unix socket: a 32-bit command number, its payload, and an answer that starts
 * with a 32-bit result. Only the commands the manager needs. swtpm serves one control connection at a time, and
 * QEMU holds it for as long as a VM runs.
 *
 * @spec swtpm_ioctls(3), include/swtpm/tpm_ioctl.h
 */

import { MvmError, errnoOf } from "../lib/errors.ts"
import { ByteReader, concat } from "../lib/bytes.ts"

/** Command number, and the bytes of a successful answer, result included. */
const COMMANDS = {
  CMD_GET_CAPABILITY: { code: 1, answerBytes: 8 },
  CMD_INIT: { code: 2, answerBytes: 4 },
  CMD_SHUTDOWN: { code: 3, answerBytes: 4 },
  CMD_GET_TPMESTABLISHED: { code: 4, answerBytes: 8 },
  CMD_STOP: { code: 14, answerBytes: 4 },
} as const

type CommandName = keyof typeof COMMANDS

const DEFAULT_TIMEOUT_MS = 5_000

/** TPM_FAIL: what TPM initialisation answers when the state cannot be read. */
const TPM_FAIL = 9

/** Whether the control socket at `path` answers. @throws MvmError `swtpm` when it does not. */
export async function probeSwtpm(path: string, timeoutMs = DEFAULT_TIMEOUT_MS): Promise<void> {
  await control(path, "CMD_GET_CAPABILITY", { timeoutMs })
}

/**
 * A TPM power cycle: volatile state is dropped and TPM2_Startup is expected next.
 *
 * @throws MvmError `swtpm`
 */
export async function initTpm(path: string): Promise<void> {
  await control(path, "CMD_INIT", { payload: new Uint8Array(4) })
}

/** Ends the process in order. @throws MvmError `swtpm` when it does not answer in time. */
export async function shutdownSwtpm(path: string, timeoutMs = DEFAULT_TIMEOUT_MS): Promise<void> {
  await control(path, "CMD_SHUTDOWN", { timeoutMs })
}

/** The flag a trusted boot sets. @throws MvmError `swtpm` */
export async function isTpmEstablished(path: string): Promise<boolean> {
  const answer = await control(path, "CMD_GET_TPMESTABLISHED", {})
  return answer[4] !== 0
}

/** One command on a connection of its own. @returns the whole answer */
async function control(
  path: string,
  name: CommandName,
  { payload = new Uint8Array(0), timeoutMs = DEFAULT_TIMEOUT_MS },
): Promise<Uint8Array> {
  const { code, answerBytes } = COMMANDS[name]
  const request = concat(Uint8Array.of(0, 0, 0, code), payload)
  const answer = await exchange(path, request, { answerBytes, timeoutMs, name })
  const reader = new ByteReader(answer, name, "swtpm")
  const result = reader.u32be("result")
  if (result !== 0) {
    const what = result === TPM_FAIL ? "the tpm could not start" : "refused"
    throw new MvmError("swtpm", `${name}: ${what} (result 0x${result.toString(16)})`)
  }
  reader.bytes(answerBytes - 4, "answer")
  reader.end()
  return answer
}

interface Expected {
  answerBytes: number
  timeoutMs: number
  name: CommandName
}

/** Trust: bytes of the swtpm process; no more than the answer's size is kept. */
async function exchange(
  path: string,
  request: Uint8Array,
  { answerBytes, timeoutMs, name }: Expected,
): Promise<Uint8Array> {
  const done = Promise.withResolvers<Uint8Array>()
  // A rejection may come before anybody awaits it (a connection that closes while it opens).
  done.promise.catch(() => {})
  let received: Uint8Array = new Uint8Array(0)
  const fail = (message: string, cause?: unknown) => done.reject(new MvmError("swtpm", message, { cause }))
  const timer = setTimeout(() => fail(`${name}: no answer within ${timeoutMs} ms`), timeoutMs)
  let socket: { end(): void } | undefined
  try {
    socket = await Bun.connect({
      unix: path,
      socket: {
        // A dozen bytes always fit a fresh socket's buffer.
        open: (opened) => void opened.write(request),
        data: (_socket, chunk) => {
          received = concat(received, chunk.subarray(0, answerBytes + 1))
          // A failed command answers with its result alone.
          const failed = received.length === 4 && received.some((byte) => byte !== 0)
          if (failed || received.length >= answerBytes) done.resolve(received)
        },
        close: () => fail(`${name}: swtpm closed its control socket`),
        error: (_socket, cause) => fail(`${name}: control socket failed`, cause),
      },
    })
    return await done.promise
  } catch (cause) {
    if (cause instanceof MvmError) throw cause
    throw new MvmError("swtpm", `cannot connect to swtpm at ${path}: ${errnoOf(cause) ?? "failed"}`, {
      cause,
    })
  } finally {
    clearTimeout(timer)
    socket?.end()
  }
}

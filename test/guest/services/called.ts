/**
 * @module test/guest/services/called
 *
 * A service and its caller at the two ends of one channel in this process: real sessions, real programs, no agent.
 */

import { commandService, type CommandOptions } from "../../../src/guest/services/command-service.ts"
import { RemoteRun } from "../../../src/guest/services/exec.ts"
import { NO_LIMITS, type ServiceLimits } from "../../../src/guest/services/limits.ts"
import { encodeRequest, type TerminalRequest } from "../../../src/guest/services/requests.ts"
import type { CallerFacts, ServiceHandler } from "../../../src/guest/services/service.ts"
import { ServiceSession, type ServiceCalls } from "../../../src/guest/services/service-session.ts"
import { Side } from "../../../src/guest/services/side.ts"
import type { ByteReader, ByteWriter } from "../../../src/guest/streams/descriptor-duplex.ts"
import type { Stream } from "../../../src/guest/streams/stream.ts"
import { concat, fromUtf8 } from "../../../src/lib/bytes.ts"
import type { MvmError } from "../../../src/lib/errors.ts"
import { Log } from "../../../src/lib/log.ts"
import { sessionPair, type SessionPair } from "../streams/session-pair.ts"

const CALLER: CallerFacts = {
  peer: "web",
  uuid: new Uint8Array(16),
  verdict: "trusted",
  measurement: "kernel",
  program: { path: "/usr/bin/mvm", digest: "00".repeat(32) },
  service: "tested",
  rule: "policy.toml:1",
  channel: "0123456789abcdef0123456789abcdef",
}

export class Called {
  readonly pair: SessionPair
  readonly calls: ServiceCalls

  constructor(handler: ServiceHandler, limits: ServiceLimits = NO_LIMITS) {
    this.calls = {
      handler,
      limits,
      log: new Log({ level: "error", format: "text" }),
      active: new Set(),
      own: new Set(),
    }
    const { onStream } = new ServiceSession(this.calls, CALLER)
    this.pair = sessionPair({ ringBytes: 2 ** 22, onStream })
  }

  /** A service of a shell's command. */
  static shell(text: string, options: Partial<CommandOptions> = {}, limits?: ServiceLimits): Called {
    const whole: CommandOptions = {
      command: ["/bin/sh", "-c", text],
      user: undefined,
      directory: undefined,
      environment: { PATH: "/usr/bin:/bin" },
      endOfInput: "close",
      terminal: false,
      ...options,
    }
    return new Called(commandService(whole), limits)
  }

  connect(arg?: string): Stream {
    return this.pair.asker.open(encodeRequest("CONNECT", { arg }))
  }

  /** One run with `input` on its standard input; what it wrote and how it ended. */
  async run(
    input: Uint8Array | ByteReader = new Uint8Array(0),
    { arg, terminal }: { arg?: string; terminal?: TerminalRequest } = {},
  ): Promise<{ status: number; signal: string | undefined; stdout: string; stderr: string }> {
    const [output, errors] = [new Kept(), new Kept()]
    const run = this.start(
      { input: input instanceof Uint8Array ? inputOf(input) : input, output, errors },
      { arg, terminal },
    )
    const { status, signal } = await run.over
    return { status, signal, stdout: output.text, stderr: errors.text }
  }

  start(
    ends: { input: ByteReader; output: ByteWriter; errors: ByteWriter },
    { arg, terminal }: { arg?: string | undefined; terminal?: TerminalRequest | undefined } = {},
  ): RemoteRun {
    const { asker } = this.pair
    const opened = {
      run: () => {
        const stream = asker.open(encodeRequest("RUN", { arg, terminal }))
        const side = asker.open(encodeRequest("SIDE", { of: stream.number }))
        return { stream, side: new Side(side, "asker") }
      },
    }
    return new RemoteRun(opened, { arg, terminal }, ends)
  }

  /** Ends the session as it should end. */
  async end(): Promise<void> {
    this.pair.asker.finish()
    const failures = (await this.pair.over).filter((failure) => failure !== undefined)
    if (failures.length > 0) throw failures[0]
  }
}

/** All of `bytes`, in one piece. */
export function inputOf(bytes: Uint8Array): ByteReader {
  let left: Uint8Array | undefined = bytes.length > 0 ? bytes : undefined
  return {
    async read() {
      const now = left
      left = undefined
      return now ?? null
    },
    stop: () => {},
  }
}

/** An input that brings what it is given, and does not end until it is stopped. */
export class Typed implements ByteReader {
  stopped = false
  readonly #given: Uint8Array[] = []
  #waiting: PromiseWithResolvers<Uint8Array> | undefined

  type(bytes: Uint8Array): void {
    if (this.#waiting) this.#waiting.resolve(bytes)
    else this.#given.push(bytes)
    this.#waiting = undefined
  }

  async read(): Promise<Uint8Array> {
    const bytes = this.#given.shift()
    if (bytes) return bytes
    this.#waiting = Promise.withResolvers()
    return this.#waiting.promise
  }

  stop(error: MvmError): void {
    this.stopped = true
    this.#waiting?.reject(error)
  }
}

/** An output that keeps what it is given. */
export class Kept implements ByteWriter {
  readonly #pieces: Uint8Array[] = []

  async write(bytes: Uint8Array): Promise<void> {
    // A Buffer's own slice would be a view of what is used again.
    this.#pieces.push(new Uint8Array(bytes))
  }

  end(): void {}

  get bytes(): Uint8Array {
    return concat(...this.#pieces)
  }

  get text(): string {
    return fromUtf8(this.bytes)
  }
}

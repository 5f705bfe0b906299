/**
 * @module guest/services/exec
 *
 * One run of a service, as its caller has it: three streams, signals, and a status in the end.
 */

import { MvmError } from "../../lib/errors.ts"
import type { ByteReader, ByteWriter } from "../streams/descriptor-duplex.ts"
import { carry, type JoinableDuplex } from "../streams/join.ts"
import type { ServiceClient } from "./client.ts"
import type { TerminalRequest } from "./requests.ts"
import type { PassedSignal, Side, SideFields } from "./side.ts"

/** The caller's own ends of a run. */
export interface ExecEnds {
  readonly input: ByteReader
  readonly output: ByteWriter
  readonly errors: ByteWriter
}

export class RemoteRun {
  readonly #side: Side
  readonly #over: Promise<SideFields<"EXITED">>
  /** One after the other, in the order they were given. */
  #sent: Promise<void> = Promise.resolve()

  constructor(
    client: Pick<ServiceClient, "run">,
    { arg, terminal }: { arg: string | undefined; terminal: TerminalRequest | undefined },
    ends: ExecEnds,
  ) {
    const { stream, side } = client.run(arg, terminal)
    this.#side = side
    this.#over = this.#carry(stream, ends)
  }

  /**
   * How the run ended, once everything it wrote was handed on.
   *
   * @throws MvmError as the service refused or broke off, or the session ended.
   */
  get over(): Promise<SideFields<"EXITED">> {
    return this.#over
  }

  signal(name: PassedSignal): void {
    this.#send(() => this.#side.send("SIGNAL", { name }))
  }

  resize(columns: number, rows: number): void {
    this.#send(() => this.#side.send("SIZE", { columns, rows }))
  }

  async #carry(stream: JoinableDuplex, ends: ExecEnds): Promise<SideFields<"EXITED">> {
    const own: JoinableDuplex = {
      read: () => ends.input.read(),
      write: (bytes) => ends.output.write(bytes),
      end: async () => ends.output.end(),
      stop: (error) => ends.input.stop(error),
      reset: (error) => {
        ends.input.stop(error)
        ends.output.end()
      },
    }
    const input = carry(own, stream)
    // A failure of the input is one of the run: both streams were reset with it.
    input.catch(() => {})
    const [outcome] = await Promise.all([this.#listen(ends.errors), carry(stream, own)])
    ends.input.stop(new MvmError("sink", "the run has ended"))
    await input
    return outcome
  }

  /** Trust: what the side stream brings is the service's. */
  async #listen(errors: ByteWriter): Promise<SideFields<"EXITED">> {
    let readable = true
    for (;;) {
      const message = await this.#side.receive()
      if (message === null) throw new MvmError("protocol", "the run ended without a status")
      if (message.name === "EXITED") {
        this.#send(() => this.#side.end())
        await this.#sent
        return message.fields
      }
      if (message.name !== "ERRORS") throw new MvmError("protocol", `unexpected ${message.name}`)
      // Nobody reads them any more: the run goes on without.
      if (readable) readable = await took(errors.write(message.fields.bytes))
    }
  }

  #send(work: () => Promise<void>): void {
    this.#sent = this.#sent.then(work).catch(() => {})
  }
}

async function took(writing: Promise<void>): Promise<boolean> {
  try {
    await writing
    return true
  } catch (error) {
    if (error instanceof MvmError && error.code === "sink") return false
    throw error
  }
}

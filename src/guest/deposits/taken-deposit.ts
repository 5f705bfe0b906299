/**
 * @module guest/deposits/taken-deposit
 *
 * A deposit that a command collects: its records on their way here, what is remembered of it, and the receipt.
 */

import { receiptMessage } from "../../channel/transcript.ts"
import type { DepositStatement } from "../../channel/deposit-statement.ts"
import { toHex } from "../../lib/bytes.ts"
import { MvmError } from "../../lib/errors.ts"
import type { DepositSecret } from "../../tcb/deposit-key.ts"
import type { LocalFields } from "../../wire/local-link.ts"
import { STEP_MS, type AgentDepositParts } from "../agent-parts.ts"
import type { DeliveredLog } from "./delivered-log.ts"
import type { Window } from "./window.ts"

export interface TakenParts {
  readonly statement: DepositStatement
  /** The statement's bytes, as the MVM signed them */
  readonly signed: Uint8Array
  readonly secret: DepositSecret
  readonly window: Window
  readonly log: DeliveredLog
  /** Others may have it again. */
  release(): void
}

export class TakenDeposit {
  readonly #agent: AgentDepositParts
  readonly #parts: TakenParts
  readonly #key: string
  #offset = 0
  #isSettled = false

  constructor(agent: AgentDepositParts, parts: TakenParts) {
    this.#agent = agent
    this.#parts = parts
    this.#key = toHex(parts.statement.depositId)
  }

  /** What the command is told. */
  get offer(): LocalFields<"COLLECTED"> {
    const { signed, secret } = this.#parts
    return { statement: signed, key: secret.key, laddress: secret.laddress }
  }

  /** The next records; none at their end. @throws MvmError as the MVM said, `protocol` */
  async next(): Promise<Uint8Array> {
    const { statement, window } = this.#parts
    const lengthBytes = Math.min(window.partBytes, statement.storedBytes - this.#offset)
    if (lengthBytes === 0) return new Uint8Array(0)
    const { depositId } = statement
    const { fields } = await this.#agent.client.link.request(
      "DEPOSIT_DATA",
      { depositId, offset: this.#offset, lengthBytes },
      "DEPOSIT_BYTES",
      { timeoutMs: STEP_MS },
    )
    const part = window.take(fields)
    if (part.length === 0 || part.length > lengthBytes)
      throw new MvmError("protocol", "DEPOSIT_BYTES: not a part")
    this.#offset += part.length
    return part
  }

  /** The first byte is about to be given out. @throws MvmError `io`, `no_space`: then it must not be */
  begun(): void {
    this.#parts.log.set(this.#key, "begun")
  }

  /** The last byte was given out. */
  delivered(): void {
    this.#parts.log.set(this.#key, "delivered")
  }

  /** Tells the MVM, which forgets the deposit; resolves when its audit log has it, also by its next life. */
  async receipt(gone: AbortSignal): Promise<void> {
    const { client, vtpm } = this.#agent
    const { depositId, lengthBytes, records, hash } = this.#parts.statement
    const said = { channelId: depositId, direction: 0, lengthBytes, records, digest: hash }
    const signature = await vtpm.sign(receiptMessage(said))
    for (let isFirst = true; ; isFirst = false) {
      const { membership } = client
      try {
        await client.link.request("RECEIPT", { ...said, signature }, "DONE", { timeoutMs: STEP_MS })
        break
      } catch (error) {
        // What a later life does not know, the last one had already written down.
        if (client.holds(membership) && !isFirst) break
        if (client.holds(membership)) throw error
      }
      await client.linked(Infinity, gone)
    }
    this.#parts.log.set(this.#key, "settled")
    this.#isSettled = true
  }

  close(): void {
    this.#parts.release()
    this.#parts.window.close()
    this.#parts.secret.key.fill(0)
    if (this.#isSettled) return
    try {
      this.#agent.client.link.send("CLOSE", { channelId: this.#parts.statement.depositId })
    } catch {
      // The link is gone, and the region with it.
    }
  }
}

/**
 * @module guest/deposits/filled-deposit
 *
 * A deposit that a command fills: sealed records on their way to the MVM, and the claim at their end.
 */

import { depositMessage } from "../../channel/deposit.ts"
import { MvmError, asMvmError } from "../../lib/errors.ts"
import { requestBinding } from "../../tcb/binding.ts"
import type { Grant } from "../../tcb/grant.ts"
import type { Fields } from "../../wire/link.ts"
import type { LocalFields } from "../../wire/local-link.ts"
import type { Program } from "../../wire/messages.ts"
import type { Membership } from "../link-client.ts"
import { STEP_MS, type AgentDepositParts } from "../agent-parts.ts"
import type { Window } from "./window.ts"

/** How long the answer to a claim is waited for while no MVM is there. */
const RELINK_MS = 60_000

export interface FilledParts {
  readonly me: Membership
  readonly asked: LocalFields<"DEPOSIT">
  readonly program: Program
  readonly offered: Fields<"DEPOSITING">
  readonly grant: Grant
  readonly window: Window
}

export class FilledDeposit {
  readonly #agent: AgentDepositParts
  readonly #parts: FilledParts
  /** Records that are not with the MVM yet. */
  #parked: Uint8Array[] = []
  #parkedBytes = 0
  #sentBytes = 0
  #isKept = false

  constructor(agent: AgentDepositParts, parts: FilledParts) {
    this.#agent = agent
    this.#parts = parts
  }

  /** What the command is told. */
  get offer(): LocalFields<"DEPOSITING"> {
    const { depositId, targetUuid, targetKey, maxBytes } = this.#parts.offered
    return { depositId, targetUuid, targetKey, laddress: this.#parts.grant.laddress, maxBytes }
  }

  /** The next records. @throws MvmError as the MVM said */
  async put(part: Uint8Array): Promise<void> {
    this.#parked.push(part)
    this.#parkedBytes += part.length
    if (this.#parkedBytes >= this.#parts.window.partBytes) await this.#send(false)
  }

  /**
   * Claims what was stored, signed and proven, and resolves once the MVM keeps it. A link that is lost meanwhile
   * leaves no doubt: the next life of the MVM knows whether the last one kept it.
   *
   * @throws MvmError as the MVM said; `aborted` when it did not keep it; `unknown_outcome` when it does not come back
   */
  async finish(size: LocalFields<"DEPOSIT_FINISH">, gone: AbortSignal): Promise<void> {
    await this.#send(true)
    const { client, vtpm, evidence } = this.#agent
    const { me, asked, program, offered, grant } = this.#parts
    const { depositId, nonce, targetUuid, logOffset } = offered
    const { epoch } = me
    const { laddress } = grant
    const { service } = asked
    const message = depositMessage({
      ...size,
      depositId,
      laddress,
      targetUuid,
      service,
      nonce,
      epoch,
      program,
    })
    const signature = await vtpm.sign(message)
    const claim = { purpose: "request", nonce, binding: requestBinding(message), logOffset } as const
    let said: Fields<"DEPOSIT_FINISH"> | undefined
    const say = (fields: Fields<"DEPOSIT_FINISH">): Promise<unknown> => {
      said = fields
      return client.link.request("DEPOSIT_FINISH", fields, "DONE", { timeoutMs: STEP_MS })
    }
    for (;;) {
      const { membership } = client
      try {
        if (said) await say(said).catch(notKept)
        else await evidence.make(me, claim, (quote) => say({ depositId, ...size, signature, quote }))
        this.#isKept = true
        return
      } catch (error) {
        if (client.holds(membership) || !said) throw error
      }
      await client.linked(RELINK_MS, gone).catch((cause: unknown) => {
        throw new MvmError(
          "unknown_outcome",
          "everything was sent, and whether the MVM keeps it is not known",
          {
            cause,
            hint: "operator: mvm deposit list shows what is kept",
          },
        )
      })
    }
  }

  /** The MVM may have its region back, and forget what is not kept. */
  close(): void {
    this.#parts.window.close()
    if (this.#isKept) return
    try {
      this.#agent.client.link.send("CLOSE", { channelId: this.#parts.offered.depositId })
    } catch {
      // The link is gone: so is everything that was not kept.
    }
  }

  /** @param all whatever is parked; else whole windows alone */
  async #send(all: boolean): Promise<void> {
    const { client } = this.#agent
    const { window, offered, me } = this.#parts
    const parked = Buffer.concat(this.#parked)
    let at = 0
    while (parked.length - at >= (all ? 1 : window.partBytes)) {
      if (!client.holds(me)) throw new MvmError("aborted", "the link to the MVM was lost meanwhile")
      const part = parked.subarray(at, at + window.partBytes)
      await client.link.request(
        "DEPOSIT_DATA",
        { depositId: offered.depositId, offset: this.#sentBytes, ...window.put(part) },
        "DONE",
        { timeoutMs: STEP_MS },
      )
      this.#sentBytes += part.length
      at += part.length
    }
    this.#parked = [parked.subarray(at)]
    this.#parkedBytes = parked.length - at
  }
}

/** Of a claim that is made again. @throws MvmError as the link said; `aborted` where the MVM knows nothing of it */
function notKept(error: unknown): never {
  const cause = asMvmError(error)
  if (cause.code !== "protocol") throw cause
  throw new MvmError("aborted", "the MVM restarted before it kept the deposit", {
    cause,
    hint: "send it again",
  })
}

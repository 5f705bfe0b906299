/**
 * @module guest/deposits/deposit-session
 *
 * One command at the agent's socket that leaves or collects a deposit. What it says is done one after the other.
 *
 * Trust: a command is a local process of some user. It can fill what it began and take what it was given, and
 * nothing else.
 */

import { MvmError, asMvmError } from "../../lib/errors.ts"
import { DEPOSIT_PART_BYTES } from "../../wire/fields.ts"
import type { LocalFields, LocalMessage, LocalName } from "../../wire/local-link.ts"
import type { Program } from "../../wire/messages.ts"
import type { AgentDeposits } from "./agent-deposits.ts"
import { FilledDeposit } from "./filled-deposit.ts"
import { TakenDeposit } from "./taken-deposit.ts"

/** Parts a command may send before the first is answered. */
export const PARTS_AHEAD = 8

/** What the session says to its command. */
export interface DepositTeller {
  tell<N extends LocalName>(name: N, fields: LocalFields<N>): void
  fail(error: MvmError): void
  /** The command may collect what is for this service. @throws MvmError `refused` when it is another user's */
  claimService(service: string): void
}

export type DepositRequest = Extract<
  LocalMessage<"client">,
  { readonly name: "DEPOSIT" | "DEPOSIT_DATA" | "DEPOSIT_FINISH" | "COLLECT" | "DELIVERED" }
>

export class DepositSession {
  readonly #deposits: AgentDeposits
  readonly #program: Program
  readonly #teller: DepositTeller
  readonly #gone = new AbortController()
  #deposit: FilledDeposit | TakenDeposit | undefined
  #turn: Promise<void> = Promise.resolve()
  #waiting = 0
  /** Whatever was said after what failed is void. */
  #failed = false
  /** Sent on, of what a collection fetched. */
  #rest: Uint8Array = new Uint8Array(0)

  constructor(deposits: AgentDeposits, program: Program, teller: DepositTeller) {
    this.#deposits = deposits
    this.#program = program
    this.#teller = teller
  }

  /** @throws MvmError `protocol` when the command runs too far ahead */
  handle(message: DepositRequest): void {
    if (this.#failed) return
    this.#waiting += 1
    if (this.#waiting > PARTS_AHEAD) throw new MvmError("protocol", `${message.name}: too many at once`)
    this.#turn = this.#turn
      .then(() => this.#do(message))
      .catch((error: unknown) => {
        this.#failed = true
        this.#teller.fail(asMvmError(error))
      })
      .finally(() => (this.#waiting -= 1))
  }

  /** The command is gone: what it did not finish is forgotten. */
  ended(): void {
    this.#gone.abort()
    void this.#turn.finally(() => this.#deposit?.close())
  }

  async #do(message: DepositRequest): Promise<void> {
    if (this.#gone.signal.aborted || this.#failed) return
    switch (message.name) {
      case "DEPOSIT": {
        this.#mustBeFree()
        const filled = await this.#deposits.begin(message.fields, this.#program)
        this.#deposit = filled
        return this.#teller.tell("DEPOSITING", filled.offer)
      }
      case "COLLECT": {
        this.#mustBeFree()
        this.#teller.claimService(message.fields.service)
        const taken = await this.#deposits.collect(message.fields, this.#program)
        this.#deposit = taken
        return this.#teller.tell("COLLECTED", taken.offer)
      }
      case "DEPOSIT_DATA":
        return this.#data(message.fields.part)
      case "DEPOSIT_FINISH":
        await this.#filled().finish(message.fields, this.#gone.signal)
        return this.#teller.tell("DONE", {})
      case "DELIVERED":
        return this.#delivered(message.fields.step)
    }
  }

  async #data(part: Uint8Array): Promise<void> {
    if (this.#deposit instanceof TakenDeposit) return this.#next(this.#deposit)
    await this.#filled().put(part)
    this.#teller.tell("DONE", {})
  }

  async #next(taken: TakenDeposit): Promise<void> {
    if (this.#rest.length === 0) this.#rest = await taken.next()
    const part = this.#rest.subarray(0, DEPOSIT_PART_BYTES)
    this.#rest = this.#rest.subarray(part.length)
    this.#teller.tell("DEPOSIT_DATA", { part })
  }

  async #delivered(step: LocalFields<"DELIVERED">["step"]): Promise<void> {
    const taken = this.#deposit
    if (!(taken instanceof TakenDeposit)) throw new MvmError("protocol", "DELIVERED: nothing was collected")
    if (step === "begun") {
      taken.begun()
    } else {
      taken.delivered()
      await taken.receipt(this.#gone.signal)
    }
    this.#teller.tell("DONE", {})
  }

  #filled(): FilledDeposit {
    if (this.#deposit instanceof FilledDeposit) return this.#deposit
    throw new MvmError("protocol", "no deposit was begun on this connection")
  }

  #mustBeFree(): void {
    if (this.#deposit) throw new MvmError("protocol", "one deposit at a time")
  }
}

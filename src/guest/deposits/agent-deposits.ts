/**
 * @module guest/deposits/agent-deposits
 *
 * The agent's half of deposits: everything that needs the vTPM or the link. A command seals and opens the records;
 * the agent signs what was stored, proves its machine, opens the key of what is collected, and remembers what was
 * delivered.
 */

import { depositMessage } from "../../channel/deposit.ts"
import { parseStatement, type DepositStatement } from "../../channel/deposit-statement.ts"
import { equalBytes, toHex } from "../../lib/bytes.ts"
import { p256Verify, sha256 } from "../../lib/crypto.ts"
import { MvmError } from "../../lib/errors.ts"
import { openDepositKey } from "../../tcb/deposit-key.ts"
import type { Grant } from "../../tcb/grant.ts"
import type { Fields } from "../../wire/link.ts"
import type { LocalFields } from "../../wire/local-link.ts"
import type { Program } from "../../wire/messages.ts"
import { noMvm, type LinkClient, type Membership } from "../link-client.ts"
import { STEP_MS, type AgentDepositParts } from "../agent-parts.ts"
import { DeliveredLog } from "./delivered-log.ts"
import { FilledDeposit } from "./filled-deposit.ts"
import { TakenDeposit, type TakenParts } from "./taken-deposit.ts"
import { Window } from "./window.ts"

const LIST_MS = 5_000

/** What waits for this machine, as the MVM lists it. */
export type WaitingDeposit = Fields<"DEPOSITS">["waiting"][number]

export class AgentDeposits {
  readonly #parts: AgentDepositParts
  /** hex of the ids of those that a command is being given: nobody else gets them meanwhile. */
  readonly #taking = new Set<string>()
  #delivered: { readonly path: string; readonly log: DeliveredLog } | undefined

  constructor(parts: AgentDepositParts) {
    this.#parts = parts
  }

  /** A deposit to fill. @throws MvmError as the MVM said, `no_mvm` */
  async begin(asked: LocalFields<"DEPOSIT">, program: Program): Promise<FilledDeposit> {
    const me = this.#membership()
    const memory = this.#parts.mapsMemory()
    const { fields } = await this.#client.link.request(
      "DEPOSIT",
      { ...asked, memory, program },
      "DEPOSITING",
      {
        timeoutMs: STEP_MS,
      },
    )
    const { grant, window } = await this.#openWindow(me, fields)
    return new FilledDeposit(this.#parts, { me, asked, program, offered: fields, grant, window })
  }

  /** What waits for this machine. @throws MvmError as the MVM said, `no_mvm` */
  async waiting(
    filter: { readonly service?: string | undefined; readonly source?: string | undefined },
    program: Program,
  ): Promise<Fields<"DEPOSITS">> {
    const me = this.#membership()
    const { memoryId } = this.#log(me)
    const { fields } = await this.#client.link.request(
      "COLLECT",
      { ...filter, memoryId, memory: false, program },
      "DEPOSITS",
      { timeoutMs: LIST_MS },
    )
    return fields
  }

  /** What waits, for people; null where no MVM says. */
  async summary(program: Program): Promise<readonly object[] | null> {
    try {
      const { waiting } = await this.waiting({}, program)
      return waiting.map(({ depositId, source, service, lengthBytes, expiresMs }) => {
        const expires = new Date(expiresMs).toISOString()
        return { id: toHex(depositId), source, service, bytes: lengthBytes, expires }
      })
    } catch {
      return null
    }
  }

  /**
   * The oldest deposit that nobody was given yet.
   *
   * @param wanted `again` is the id of one to take whatever became of it before
   * @throws MvmError `unreachable` when none waits, `unknown_outcome` when all that wait were begun before, `busy`
   *   when the one to take again is being taken; as the MVM said; `signature`, `integrity` or `protocol` when what it said does not verify.
   */
  async collect(wanted: LocalFields<"COLLECT">, program: Program): Promise<TakenDeposit> {
    const me = this.#membership()
    const log = this.#log(me)
    const { again, service, source } = wanted
    const { waiting } = again ? { waiting: [] } : await this.waiting({ service, source }, program)
    for (const { depositId } of waiting) await this.#receiptAgain(depositId, program, log)
    // From here to the reservation nothing waits: what two collectors see is different.
    if (again) {
      if (!this.#taking.has(toHex(again))) return this.#take(again, program, log)
      throw new MvmError("busy", `deposit ${toHex(again)} is being taken by another command`)
    }
    const doubtful: WaitingDeposit[] = []
    for (const deposit of waiting) {
      const key = toHex(deposit.depositId)
      if (this.#taking.has(key)) continue
      const state = log.stateOf(key)
      if (state === undefined && deposit.taken !== "elsewhere") {
        return this.#take(deposit.depositId, program, log)
      }
      if (state === undefined || state === "begun") doubtful.push(deposit)
    }
    throw nothingWaits(wanted, doubtful)
  }

  /** Reserves it before anything is waited for, until it is closed. */
  async #take(depositId: Uint8Array, program: Program, log: DeliveredLog): Promise<TakenDeposit> {
    const key = toHex(depositId)
    const release = (): void => void this.#taking.delete(key)
    this.#taking.add(key)
    try {
      return await this.#open(depositId, program, { log, release })
    } catch (error) {
      release()
      throw error
    }
  }

  async #open(
    depositId: Uint8Array,
    program: Program,
    { log, release }: Pick<TakenParts, "log" | "release">,
  ): Promise<TakenDeposit> {
    const me = this.#membership()
    const { fields } = await this.#client.link.request(
      "COLLECT",
      { depositId, memoryId: log.memoryId, memory: this.#parts.mapsMemory(), program },
      "COLLECTED",
      { timeoutMs: STEP_MS },
    )
    const statement = this.#verifiedStatement(me, depositId, fields)
    const { targetUuid, service } = statement
    const secret = await openDepositKey(
      this.#parts.vtpm.recipient,
      { depositId, targetUuid, service },
      fields.sealedKey,
    )
    verifySource(statement, secret.laddress, fields.sealedKey)
    const { window } = await this.#openWindow(me, fields)
    return new TakenDeposit(this.#parts, {
      statement,
      signed: fields.statement,
      secret,
      window,
      log,
      release,
    })
  }

  /** Where it was given out, and the MVM did not hear of it: it is told before anything else. */
  async #receiptAgain(depositId: Uint8Array, program: Program, log: DeliveredLog): Promise<void> {
    const key = toHex(depositId)
    const state = log.stateOf(key)
    if ((state !== "delivered" && state !== "settled") || this.#taking.has(key)) return
    let taken: TakenDeposit | undefined
    try {
      taken = await this.#take(depositId, program, log)
      await taken.receipt(new AbortController().signal)
    } catch {
      // It is tried again with the next collection; the others need not wait for that.
    } finally {
      taken?.close()
    }
  }

  /** Trust: a statement counts only under the signature of the MVM that the vTPM pins. */
  #verifiedStatement(me: Membership, depositId: Uint8Array, fields: Fields<"COLLECTED">): DepositStatement {
    if (!p256Verify(this.#parts.vtpm.mvmPublicKey, fields.statement, fields.statementSignature)) {
      throw new MvmError("signature", "the statement about the deposit is not signed by the MVM")
    }
    const statement = parseStatement(fields.statement)
    mustBe(equalBytes(fields.depositId, depositId), "COLLECTED.depositId: another deposit")
    mustBe(equalBytes(statement.depositId, depositId), "STATEMENT.depositId: another deposit")
    mustBe(equalBytes(statement.targetUuid, me.vmUuid), "STATEMENT.targetUuid: another VM")
    return statement
  }

  async #openWindow(
    me: Membership,
    { depositId, nonce, sealed }: { depositId: Uint8Array; nonce: Uint8Array; sealed: Uint8Array },
  ): Promise<{ grant: Grant; window: Window }> {
    const about = { channelId: depositId, context: sha256(nonce) }
    const grant = await this.#parts.grants.open(me, about, sealed)
    const window = new Window(grant.lengthBytes > 0 ? await this.#parts.regionOf(grant) : undefined)
    return { grant, window }
  }

  get #client(): LinkClient {
    return this.#parts.client
  }

  #membership(): Membership {
    const { membership } = this.#client
    if (!this.#client.holds(membership)) throw noMvm()
    return membership
  }

  #log({ vmUuid }: Membership): DeliveredLog {
    const path = this.#parts.deliveredPath(vmUuid)
    if (this.#delivered?.path !== path) this.#delivered = { path, log: DeliveredLog.open(path) }
    return this.#delivered.log
  }
}

/** Trust: who left it is shown by its vTPM's signature, over the hash that the MVM found. */
function verifySource(statement: DepositStatement, laddress: Uint8Array, sealedKey: Uint8Array): void {
  const { source, programUid } = statement
  const program = { ...source.program, uid: programUid }
  const message = depositMessage({ ...statement, laddress, sealedKey, program })
  if (!p256Verify(source.identityKey, message, statement.sourceSignature)) {
    throw new MvmError("signature", `the deposit is not signed by ${source.name}`)
  }
}

function nothingWaits(
  { service, source }: LocalFields<"COLLECT">,
  doubtful: readonly WaitingDeposit[],
): MvmError {
  const [first] = doubtful
  if (!first) {
    const from = source === undefined ? "" : ` from ${source}`
    return new MvmError("unreachable", `no deposit${from} waits here, service ${service}`)
  }
  const id = toHex(first.depositId)
  return new MvmError(
    "unknown_outcome",
    `deposit ${id} of ${first.source} was begun before, and nobody knows more`,
    {
      hint: `mvm guest recv --deposited --again ${id} takes it once more`,
    },
  )
}

function mustBe(condition: boolean, problem: string): void {
  if (!condition) throw new MvmError("protocol", problem)
}

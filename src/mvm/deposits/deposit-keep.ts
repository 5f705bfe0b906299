/**
 * @module mvm/deposits/deposit-keep
 *
 * What the MVM keeps of deposits: rows and files together, under quota, until they are collected, expire or are
 * removed. Every change is in the audit log.
 */

import { parseStatement } from "../../channel/deposit-statement.ts"
import { receiptMessage, type EndOfDirection } from "../../channel/transcript.ts"
import { equalBytes, fromHex, toHex } from "../../lib/bytes.ts"
import { p256Verify } from "../../lib/crypto.ts"
import { MvmError, asMvmError } from "../../lib/errors.ts"
import type { Log } from "../../lib/log.ts"
import type { Fields } from "../../wire/link.ts"
import type { Program } from "../../wire/messages.ts"
import type { AuditCommitter } from "../state/audit-committer.ts"
import type { VmRecord } from "../state/registry.ts"
import { DepositFiles } from "./deposit-files.ts"
import { statementOf, type Deposit, type DepositTable } from "./deposit-table.ts"
import { checkQuota, type DepositLimits } from "./quota.ts"

export interface DepositKeepParts {
  readonly directory: string
  readonly table: DepositTable
  readonly audit: AuditCommitter
  readonly limits: DepositLimits
  readonly log: Log
}

export class DepositKeep {
  readonly table: DepositTable
  readonly files: DepositFiles
  readonly limits: DepositLimits
  readonly #audit: AuditCommitter
  readonly #log: Log

  /** Removes what a death left of deposits that were not kept. @throws MvmError `io` */
  constructor({ directory, table, audit, limits, log }: DepositKeepParts) {
    this.table = table
    this.limits = limits
    this.#audit = audit
    this.#log = log
    this.files = new DepositFiles(directory)
    this.files.sweep((key) => table.get(key) !== undefined)
  }

  /**
   * Resolves when the deposit, whose file is on disk, will survive.
   *
   * @param confirm throws what speaks against it by now: the file goes then, as after any failure
   * @throws MvmError `state`, `no_space`
   */
  async keep(row: Omit<Deposit, "state" | "memory">, confirm: () => void): Promise<void> {
    const { source, targetName, service, rule, lengthBytes, hash } = parseStatement(row.statement)
    const subject = {
      deposit: row.key,
      source: source.name,
      target: targetName,
      service,
      rule,
      bytes: lengthBytes,
      digest: toHex(hash),
      expires: new Date(row.expiresMs).toISOString(),
    }
    try {
      confirm()
      await this.#audit.commit("deposit", subject, () => this.table.insert(row))
    } catch (error) {
      if (!this.table.get(row.key)) this.files.remove(row.key)
      throw error
    }
  }

  /** A depositor that did not hear the answer asks again: whether exactly this is kept. */
  isKept({ uuid }: VmRecord, { depositId, hash }: Fields<"DEPOSIT_FINISH">): boolean {
    const deposit = this.table.get(toHex(depositId))
    return deposit?.source === uuid && equalBytes(statementOf(deposit).hash, hash)
  }

  /** It is handed out, once more perhaps. */
  taken(
    { name }: VmRecord,
    deposit: Deposit,
    { memory, program }: { memory: string; program: Program },
  ): Promise<void> {
    const { source, service } = statementOf(deposit)
    const subject = {
      deposit: deposit.key,
      source: source.name,
      target: name,
      service,
      program: program.path,
    }
    return this.#audit.commit("deposit_collect", subject, () => this.table.take(deposit.key, memory))
  }

  /** The target vouches that it wrote the content out. @throws MvmError `signature`, `integrity` */
  async delivered(
    { name, keys }: VmRecord,
    deposit: Deposit,
    receipt: EndOfDirection & { readonly signature: Uint8Array },
  ): Promise<void> {
    const { source, service, lengthBytes, records, hash } = statementOf(deposit)
    if (!p256Verify(keys.identity, receiptMessage(receipt), receipt.signature)) {
      throw new MvmError("signature", `the receipt of ${name} is not signed with its identity key`)
    }
    if (
      receipt.lengthBytes !== lengthBytes ||
      receipt.records !== records ||
      !equalBytes(receipt.digest, hash)
    ) {
      throw new MvmError("integrity", `the receipt of ${name} is about other content`)
    }
    const subject = {
      deposit: deposit.key,
      source: source.name,
      target: name,
      service,
      bytes: lengthBytes,
      digest: toHex(hash),
      signature: toHex(receipt.signature),
    }
    await this.#audit.commit("deposit_receipt", subject, () => this.table.remove(deposit.key))
    this.files.remove(deposit.key)
  }

  /** @throws MvmError `refused` */
  checkQuota(
    { uuid, name }: VmRecord,
    filling: readonly { source: string; bytes: number }[],
    more: number,
  ): void {
    const withFilling = (source?: string): { count: number; bytes: number } => {
      const kept = this.table.kept(source)
      const own = filling.filter((one) => source === undefined || one.source === source)
      return {
        count: kept.count + own.length,
        bytes: kept.bytes + own.reduce((sum, { bytes }) => sum + bytes, 0),
      }
    }
    checkQuota(this.limits, name, { own: withFilling(uuid), all: withFilling() }, more)
  }

  /** @param memory hex: the collector's memory of what it has */
  listFor(
    target: string,
    { memory, ...filter }: { service?: string; source?: string; memory: string; limit: number },
  ): Fields<"DEPOSITS"> {
    const { waiting, count } = this.table.waitingFor(target, { ...filter, nowMs: Date.now() })
    return {
      waiting: waiting.map((deposit) => {
        const { source, service, lengthBytes } = statementOf(deposit)
        const taken = deposit.state === "waiting" ? "never" : deposit.memory === memory ? "here" : "elsewhere"
        const { expiresMs } = deposit
        return {
          depositId: fromHex(deposit.key),
          source: source.name,
          service,
          lengthBytes,
          expiresMs,
          taken,
        }
      }),
      more: count - waiting.length,
    }
  }

  /** @param isUnderWay of a key: what is being collected may be finished */
  expire(isUnderWay: (key: string) => boolean): void {
    for (const deposit of this.table.expired(Date.now())) {
      if (isUnderWay(deposit.key)) continue
      this.remove(deposit, "expired").catch((error: unknown) => {
        this.#log.error("deposit_expiry", { message: asMvmError(error).message })
      })
    }
  }

  /** @param reason for the audit log */
  async remove(deposit: Deposit, reason: string): Promise<void> {
    const { source, targetName, service } = statementOf(deposit)
    const subject = { deposit: deposit.key, source: source.name, target: targetName, service, reason }
    await this.#audit.commit("deposit_remove", subject, () => this.table.remove(deposit.key))
    this.files.remove(deposit.key)
  }

  /** A VM is gone for good, and what waits for it cannot be collected. */
  async removeFor(uuid: string): Promise<void> {
    for (const deposit of this.table.all()) {
      if (deposit.target === uuid) await this.remove(deposit, "its target was removed")
    }
  }
}

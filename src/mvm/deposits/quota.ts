/**
 * @module mvm/deposits/quota
 *
 * How much the MVM keeps: of one depositor, and in all, what is still being filled included. So no VM fills the disk
 * of the host, or takes the room of the others.
 */

import { MvmError } from "../../lib/errors.ts"
import { formatSize } from "../../lib/units.ts"
import type { Kept } from "./deposit-table.ts"

export interface DepositLimits {
  /** Of one depositor */
  readonly vmBytes: number
  readonly totalBytes: number
  /** The longest any is kept */
  readonly maxLifetimeMs: number
}

export const DEFAULT_LIMITS: DepositLimits = {
  vmBytes: 256 * 2 ** 20,
  totalBytes: 2 ** 30,
  maxLifetimeMs: 7 * 86_400_000,
}

/** Of one depositor; each costs a row and a file. */
const MAX_COUNT = 1000

/**
 * @param kept of the depositor and of all, with what is under way
 * @param moreBytes what is about to be added
 * @throws MvmError `refused`
 */
export function checkQuota(
  limits: DepositLimits,
  name: string,
  kept: { readonly own: Kept; readonly all: Kept },
  moreBytes: number,
): void {
  const { own, all } = kept
  const hint = "wait until some are collected; operator: mvm deposit list, mvm deposit rm"
  if (own.count > MAX_COUNT) {
    throw new MvmError("refused", `the host keeps at most ${MAX_COUNT} deposits of ${name}`, { hint })
  }
  if (own.bytes + moreBytes > limits.vmBytes) {
    throw new MvmError(
      "refused",
      `the host keeps at most ${formatSize(limits.vmBytes)} of deposits of ${name}`,
      {
        hint,
      },
    )
  }
  if (all.bytes + moreBytes > limits.totalBytes) {
    throw new MvmError("refused", `the host keeps at most ${formatSize(limits.totalBytes)} of deposits`, {
      hint,
    })
  }
}

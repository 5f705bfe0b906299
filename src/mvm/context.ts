/**
 * @module mvm/context
 *
 * What the parts of the running MVM share.
 */

import type { Log } from "../lib/log.ts"
import type { Arena } from "./arena.ts"
import type { AuditCommitter } from "./audit-committer.ts"
import type { ChannelTable } from "./channels.ts"
import type { Hub } from "./hub.ts"
import type { OfferBoard } from "./offers.ts"
import type { PolicyFile } from "./policy/policy-file.ts"
import type { Registry } from "./registry.ts"
import type { MvmIdentity } from "./state-dir.ts"

export interface MvmContext {
  readonly registry: Registry
  readonly audit: AuditCommitter
  readonly policy: PolicyFile
  readonly arena: Arena
  readonly channels: ChannelTable
  readonly offers: OfferBoard
  readonly hub: Hub
  readonly identity: MvmIdentity
  /** 32 bytes: digest over what the MVM itself runs */
  readonly measurement: Uint8Array
  readonly ringBytes: number
  readonly leaseMs: number
  readonly log: Log
}

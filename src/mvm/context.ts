/**
 * @module mvm/context
 *
 * What the parts of the running MVM share.
 */

import type { Log } from "../lib/log.ts"
import type { Arena } from "./channels/arena.ts"
import type { AuditCommitter } from "./state/audit-committer.ts"
import type { Channel } from "./channels/channel.ts"
import type { ChannelTable } from "./channels/channel-table.ts"
import type { Traffic } from "./channels/traffic.ts"
import type { DepositKeep } from "./deposits/deposit-keep.ts"
import type { EvidenceStore } from "./evidence/store.ts"
import type { Hub } from "./hub.ts"
import type { Dedicated } from "./memory/dedicated.ts"
import type { Member } from "./member.ts"
import type { Meters } from "./metrics/meters.ts"
import type { OfferBoard } from "./channels/offers.ts"
import type { PolicyFile } from "./policy/policy-file.ts"
import type { Registry } from "./state/registry.ts"
import type { VmRecord } from "./state/registry.ts"
import type { MvmIdentity, StateDir } from "./state/state-dir.ts"
import type { Verifier } from "./verifier.ts"
import type { HostEndpoint } from "./vm/host-endpoint.ts"
import type { VmManager } from "./vm/vms.ts"

export interface MvmContext {
  readonly registry: Registry
  readonly audit: AuditCommitter
  readonly evidence: EvidenceStore
  readonly policy: PolicyFile
  readonly arena: Arena
  readonly dedicated: Dedicated
  readonly channels: ChannelTable
  readonly traffic: Traffic
  readonly meters: Meters
  readonly offers: OfferBoard
  readonly deposits: DepositKeep
  readonly hub: Hub
  readonly identity: MvmIdentity
  /** 32 bytes: digest over what the MVM itself runs */
  readonly measurement: Uint8Array
  readonly ringBytes: number
  readonly leaseMs: number
  readonly log: Log
}

/** The parts that control handlers work on. */
export interface Mvm {
  readonly context: MvmContext
  readonly stateDir: StateDir
  readonly vms: VmManager
  /** The host itself as a member. */
  readonly host: HostEndpoint
  /** End a channel at both ends. */
  endChannel(channel: Channel, code: "aborted" | "revoked", reason: string): void
  /** A VM has other settings or tags: what rests on them is judged again. */
  changed(record: VmRecord): void
  /** Measure a member now. @throws MvmError unless it is trusted. */
  measure(member: Member): Promise<void>
  readonly startedMs: number
  verifierOf(record: VmRecord): Verifier
}

/**
 * @module mvm/session
 *
 * One authenticated life of a link, as everything that depends on it sees it.
 */

import type { GrantSealer } from "../tcb/grant.ts"

/** One authenticated life of a member's link. */
export interface Session {
  /** 16 bytes */
  readonly epoch: Uint8Array
  /** 16 bytes, hex */
  readonly bootId: string
  /** Who keeps the measurement log: the VM's kernel, or (a local endpoint) its agent. */
  readonly kind: "kernel" | "agent"
  /** Wiped when this life is over. */
  readonly grants: GrantSealer
  canMap: boolean
  mapping: string
  /** READY came: what the agent can do is known. */
  isReady: boolean
  readonly sinceMs: number
}

/** UUID text to its 16 bytes. */
export function uuidBytes(uuid: string): Uint8Array {
  return Uint8Array.fromHex(uuid.replaceAll("-", ""))
}

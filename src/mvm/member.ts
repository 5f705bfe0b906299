/**
 * @module mvm/member
 *
 * A VM as the running MVM sees it: its record, its link and what came over it. Who a member is follows from the
 * port its bytes arrive on; nothing in a message changes that.
 */

import type { BulkQueue } from "../wire/bulk-queue.ts"
import type { Link } from "../wire/link.ts"
import type { Program, Role } from "../wire/messages.ts"
import type { ByteSocket } from "../platform/unix-socket.ts"
import type { VmRecord } from "./state/registry.ts"
import type { Session } from "./session.ts"
import type { Verifier } from "./verifier.ts"

/** A command in the member that waits for a channel. */
export interface Offer {
  readonly offerId: number
  readonly service: string
  /** Only this VM may be the other end. */
  readonly source: string | undefined
  readonly role: Role
  readonly program: Program
}

export interface Member {
  /** Its settings and tags may change; who it is never does. */
  record: VmRecord
  readonly link: Link
  /** Records that are relayed to it; empty at the beginning of each session. */
  readonly bulk: BulkQueue
  readonly verifier: Verifier
  readonly offers: Map<number, Offer>
  socket: ByteSocket | undefined
  session: Session | undefined
}

/**
 * @module guest/agent-parts
 *
 * What channels and deposits need of their agent.
 */

import type { Grant } from "../tcb/grant.ts"
import type { Region } from "../wire/local-messages.ts"
import type { EvidenceMaker } from "./evidence.ts"
import type { Grants } from "./grants.ts"
import type { LinkClient } from "./link-client.ts"
import type { GuestVtpm } from "./vtpm.ts"

/** More than the MVM's own step limits, so that its reason arrives before ours. */
export const STEP_MS = 30_000

export interface AgentParts {
  readonly client: LinkClient
  readonly vtpm: GuestVtpm
  readonly evidence: EvidenceMaker
  readonly grants: Grants
  /** Where the region of a grant is here */
  regionOf(grant: Grant): Promise<Region>
}

export interface AgentDepositParts extends AgentParts {
  /** Whether shared memory is mapped here */
  mapsMemory(): boolean
  /** Where it is remembered what was delivered. @param vmUuid of this member */
  deliveredPath(vmUuid: Uint8Array): string
}

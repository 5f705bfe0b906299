/**
 * @module wire/standing-messages
 *
 * The part of the link protocol about where a member stands: what the MVM thinks of it, whom it may reach, and how
 * long the MVM's steps took.
 */

import { channelId, peer, program, stages, verdict } from "./fields.ts"
import { bool, list, name, optional, u53 } from "./schema.ts"
import { row } from "./table.ts"

export const STANDING_ROWS = {
  STANDING: row({ id: 200, from: "guest", since: 1, maxBytes: 64, fields: {} }),
  /** What the MVM thinks of the VM that asks, and its clock. */
  OPINION: row({ id: 201, from: "mvm", since: 1, maxBytes: 128, fields: { verdict, timeMs: u53 } }),

  /** Whom may this program of the VM reach? */
  PEERS: row({
    id: 80,
    from: "guest",
    since: 1,
    maxBytes: 2048,
    fields: { after: optional(name(64)), program },
  }),
  PEER_LIST: row({
    id: 81,
    from: "mvm",
    since: 1,
    maxBytes: 49152,
    fields: { peers: list(peer, 16), more: bool },
  }),
  /** How long the opening took at the MVM, before the OPENED of a ping. */
  STAGES: row({ id: 82, from: "mvm", since: 1, maxBytes: 256, fields: { channelId, ...stages } }),
}

/** @module mvm/control/audit */

import { MvmError } from "../../lib/errors.ts"
import type { Handler, Params } from "../../platform/json-rpc.ts"
import { optionalInteger, optionalText } from "./params.ts"
import type { Mvm } from "../context.ts"

export function auditHandlers(mvm: Mvm): Record<string, Handler> {
  const { audit, identity } = mvm.context
  return {
    "audit.list": (params) => {
      audit.flush()
      return audit.log
        .list({
          sinceMs: optionalInteger(params, "sinceMs"),
          untilMs: optionalInteger(params, "untilMs"),
          kind: optionalText(params, "kind"),
          vm: optionalText(params, "vm"),
          channel: channelOf(params),
          after: optionalInteger(params, "after"),
          limit: optionalInteger(params, "limit"),
        })
        .reverse()
        .map((row) => ({
          sequence: row.sequence,
          time: new Date(row.timeMs).toISOString(),
          kind: row.kind,
          ...row.subject,
          hash: row.hash.toHex(),
        }))
    },
    "audit.verify": async () => {
      audit.flush()
      const result = await audit.log.verify()
      return { ...result, head: { sequence: result.head.sequence, hash: result.head.hash.toHex() } }
    },
    "audit.export": async (_params, { progress, gone }) => {
      audit.flush()
      for (const line of audit.log.exportRows()) {
        await progress(line)
        if (gone.aborted) break
      }
      const { sequence, hash } = audit.log.head()
      return { mvmPublicKey: identity.publicKey.toHex(), head: `${sequence}:${hash.toHex()}` }
    },
  }
}

/** Hex alone: it becomes a pattern. */
function channelOf(params: Params): string | undefined {
  const channel = optionalText(params, "channel")?.toLowerCase()
  if (channel === undefined || /^[0-9a-f]{1,32}$/.test(channel)) return channel
  throw new MvmError("usage", `channel: ${channel} is no channel's id`, {
    hint: "mvm channel list shows them",
  })
}

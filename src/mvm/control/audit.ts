/** @module mvm/control/audit */

import type { Handler } from "../../platform/json-rpc.ts"
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
      return { mvmPublicKey: identity.publicKey.toHex() }
    },
  }
}

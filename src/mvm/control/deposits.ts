/** @module mvm/control/deposits */

import { MvmError } from "../../lib/errors.ts"
import type { Handler } from "../../platform/json-rpc.ts"
import type { Mvm } from "../context.ts"
import { statementOf, type Deposit } from "../deposits/deposit-table.ts"
import { text } from "./params.ts"

export function depositHandlers({ context }: Mvm): Record<string, Handler> {
  const { deposits } = context
  return {
    "deposit.list": () => deposits.table.all().map(view),
    "deposit.rm": async (params) => {
      const wanted = text(params, "id")
      const matches = deposits.table.all().filter(({ key }) => key.startsWith(wanted))
      const [deposit] = matches
      if (!deposit || matches.length > 1) {
        throw new MvmError(
          "not_found",
          `${matches.length === 0 ? "no" : "more than one"} deposit ${wanted}`,
          {
            hint: "mvm deposit list shows them",
          },
        )
      }
      await deposits.remove(deposit, "removed by the operator")
    },
  }
}

function view(deposit: Deposit): Record<string, unknown> {
  const { source, targetName, rule, lengthBytes } = statementOf(deposit)
  return {
    id: deposit.key,
    state: deposit.state,
    source: source.name,
    target: targetName,
    service: deposit.service,
    rule,
    bytes: lengthBytes,
    storedBytes: deposit.bytes,
    depositedAt: new Date(deposit.createdMs).toISOString(),
    expiresAt: new Date(deposit.expiresMs).toISOString(),
  }
}

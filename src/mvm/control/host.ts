/**
 * @module mvm/control/host
 *
 * Requests about the host's own endpoint: what names it finds it there, for it is made when it is first used.
 */

import type { Handler, Params } from "../../platform/json-rpc.ts"
import type { Mvm } from "../context.ts"
import { HOST_NAME } from "../vm/vm-name.ts"

/** What works on a member that runs, by the field that names it. */
const USES: Readonly<Record<string, string>> = {
  "measure.learn": "vm",
  "measure.run": "vm",
  "vm.wait": "name",
}

export function hostHandlers(mvm: Mvm): Record<string, Handler> {
  return { "host.use": () => mvm.host.use() }
}

/** The handlers, with the host's endpoint made and started before those that need it. */
export function withHost(mvm: Mvm, handlers: Readonly<Record<string, Handler>>): Record<string, Handler> {
  const isHost = (params: Params, field: string | undefined): boolean =>
    field !== undefined && params[field] === HOST_NAME
  const wrapped = Object.entries(handlers).map(([method, handler]): [string, Handler] => {
    // Its vTPM starts with its agent.
    if (method === "vm.start") {
      return [method, (params, call) => (isHost(params, "name") ? mvm.host.use() : handler(params, call))]
    }
    const used: Handler = async (params, call) => {
      if (isHost(params, USES[method])) await mvm.host.use()
      return handler(params, call)
    }
    return [method, method in USES ? used : handler]
  })
  return Object.fromEntries(wrapped)
}

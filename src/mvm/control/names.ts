/**
 * @module mvm/control/names
 *
 * Names for who is about to type one: the shells' completion asks for them.
 */

import { MvmError } from "../../lib/errors.ts"
import type { Handler } from "../../platform/json-rpc.ts"
import type { Mvm } from "../context.ts"
import { text } from "./params.ts"

export interface KnownName {
  readonly value: string
  readonly description: string
}

export function nameHandlers(mvm: Mvm): Record<string, Handler> {
  const { registry, channels, hub, policy, audit, deposits } = mvm.context
  const kinds: Record<string, () => KnownName[]> = {
    vm: () => registry.listVms().map(({ name, kind }) => ({ value: name, description: vmKind(kind) })),
    endpoint: () =>
      registry
        .listVms()
        .filter(({ kind }) => kind === "local")
        .map(({ name, kind }) => ({ value: name, description: vmKind(kind) })),
    channel: () =>
      channels.all().map(({ key, asker, answerer, service }) => {
        return { value: key.slice(0, 12), description: `${asker.name} to ${answerer.name}, ${service}` }
      }),
    deposit: () =>
      deposits.table.all().map(({ key, service, bytes }) => {
        return { value: key.slice(0, 12), description: `${service}, ${bytes} bytes` }
      }),
    service: () => {
      const offered = hub
        .members()
        .flatMap(({ offers }) => [...offers.values()].map(({ service }) => service))
      const { current } = policy
      const named = "error" in current ? [] : current.rules.flatMap((rule) => rule.service)
      const names = named.filter(({ kind }) => kind === "name").map((pattern) => pattern.text)
      return [...new Set([...offered, ...names])].map((value) => ({ value, description: "" }))
    },
    tag: () => {
      const { current } = policy
      const named = "error" in current ? [] : [...current.tags.keys()]
      const tags = new Set([...registry.listVms().flatMap((record) => record.tags), ...named])
      return [...tags].map((value) => ({ value, description: "" }))
    },
    "audit-kind": () => audit.log.kinds().map((value) => ({ value, description: "" })),
  }
  return {
    names: (params) => {
      const kind = text(params, "kind")
      const list = Object.hasOwn(kinds, kind) ? kinds[kind] : undefined
      if (!list) throw new MvmError("usage", `kind: there are no names of ${kind}`)
      return list().toSorted((a, b) => (a.value < b.value ? -1 : 1))
    },
  }
}

function vmKind(kind: string): string {
  return kind === "local" ? "local endpoint" : `VM (${kind})`
}

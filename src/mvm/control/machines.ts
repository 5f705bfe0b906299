/**
 * @module mvm/control/machines
 *
 * The operator's requests about VMs that others start.
 */

import { MvmError } from "../../lib/errors.ts"
import type { Handler } from "../../platform/json-rpc.ts"
import { memberArgs, memberPortArgs } from "../../platform/qemu-args.ts"
import type { Mvm } from "../context.ts"
import { adoptDomain, elementsOf, releaseDomain, type AdoptionParts } from "../vm/followed/adoption.ts"
import { checkFreeName } from "../vm/vm-name.ts"
import { boolean, configOf, text, texts } from "./params.ts"

export function machineHandlers(mvm: Mvm): Record<string, Handler> {
  const { vms, context, stateDir } = mvm
  const parts: AdoptionParts = {
    ...{ stateDir, registry: context.registry, audit: context.audit, arena: context.arena },
    machines: vms.machines,
    create: (options) => vms.create(options),
    remove: (record) => vms.remove(record),
  }
  return {
    "vm.adopt": async (params) => {
      checkFreeName(text(params, "name"))
      const { record, ...rest } = await adoptDomain(parts, {
        name: text(params, "name"),
        domain: text(params, "domain"),
        uri: text(params, "uri"),
        apply: boolean(params, "apply"),
        config: configOf(params),
        tags: texts(params, "tags"),
      })
      return { name: record.name, uuid: record.uuid, ...rest }
    },
    "vm.rm": async (params) => {
      const record = vms.require(text(params, "name"))
      const changed = boolean(params, "apply") ? await releaseDomain(parts, record) : []
      await vms.remove(record)
      return { changed, domain: record.config.libvirt?.domain ?? null }
    },
    "vm.elements": (params) => {
      const record = vms.require(text(params, "name"))
      if (record.kind === "libvirt" || record.kind === "external") return elementsOf(parts, record)
      throw notFollowed(record.name)
    },
    "vm.qemuArgs": (params) => {
      const record = vms.require(text(params, "name"))
      if (record.kind !== "external") throw notFollowed(record.name)
      const needed = vms.machines.memberParts(record)
      const { machine } = record.config
      return [...memberArgs(needed, machine), ...memberPortArgs(needed, machine)]
    },
  }
}

function notFollowed(name: string): MvmError {
  return new MvmError("usage", `the MVM starts ${name} itself: nothing has to be added by hand`, {
    hint: "mvm vm create NAME --external is for a QEMU of your own, --libvirt DOMAIN for a domain",
  })
}

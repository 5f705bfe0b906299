/**
 * @module mvm/control/control
 *
 * What the operator's commands may ask of the daemon, one handler a method, grouped by what they touch.
 */

import { existsSync } from "node:fs"
import { MvmError } from "../../lib/errors.ts"
import type { Handler, Params } from "../../platform/json-rpc.ts"
import { fileProblem } from "../../platform/vm-files.ts"
import { auditHandlers } from "./audit.ts"
import { channelHandlers } from "./channels.ts"
import { hostHandlers, withHost } from "./host.ts"
import { depositHandlers } from "./deposits.ts"
import { machineHandlers } from "./machines.ts"
import { measureHandlers } from "./measure.ts"
import { nameHandlers } from "./names.ts"
import { policyHandlers } from "./policy.ts"
import { referenceHandlers } from "./reference.ts"
import { boolean, configOf, integer, optionalInteger, text, texts } from "./params.ts"
import type { VmRecord } from "../state/registry.ts"
import type { Mvm } from "../context.ts"
import { kindOf, referenceValues } from "../reference/values.ts"
import { isFollowed } from "../vm/followed/access.ts"
import { checkFreeName } from "../vm/vm-name.ts"
import { readCertificates } from "../vm/vm-certificates.ts"

const POLL_MS = 50

export function controlHandlers(mvm: Mvm): ReadonlyMap<string, Handler> {
  return new Map<string, Handler>([
    ...Object.entries(withHost(mvm, vmHandlers(mvm))),
    ...Object.entries(machineHandlers(mvm)),
    ...Object.entries(withHost(mvm, measureHandlers(mvm))),
    ...Object.entries(withHost(mvm, referenceHandlers(mvm))),
    ...Object.entries(hostHandlers(mvm)),
    ...Object.entries(policyHandlers(mvm)),
    ...Object.entries(channelHandlers(mvm)),
    ...Object.entries(depositHandlers(mvm)),
    ...Object.entries(auditHandlers(mvm)),
    ...Object.entries(nameHandlers(mvm)),
  ])
}

function vmHandlers(mvm: Mvm): Record<string, Handler> {
  const { vms, context } = mvm
  return {
    status: () => ({
      pid: process.pid,
      state: mvm.stateDir.path,
      accelOverride: process.env["MVM_ACCEL"] || null,
      uptimeSeconds: Math.round((Date.now() - mvm.startedMs) / 1000),
      measurement: context.measurement.toHex(),
      publicKey: context.identity.publicKey.toHex(),
      arena: {
        path: context.arena.path,
        sizeBytes: context.arena.sizeBytes,
        freeBytes: context.arena.freeBytes,
      },
      dedicated: context.dedicated.view,
      ringBytes: context.ringBytes,
      policy: context.policy.describe(),
      vms: context.registry.listVms().map((record) => summarise(mvm, record)),
      channels: context.channels.size,
    }),
    "vm.create": async (params) => {
      checkFreeName(text(params, "name"))
      const record = await vms.create({
        name: text(params, "name"),
        kind: vmKind(params),
        tags: texts(params, "tags"),
        config: configOf(params),
        certificate: boolean(params, "certificate") || undefined,
      })
      return { name: record.name, uuid: record.uuid }
    },
    "vm.set": async (params) => {
      const before = vms.require(text(params, "name"))
      const [added, removed] = [texts(params, "addTags"), texts(params, "removeTags")]
      const tags = [...new Set([...before.tags, ...added])].filter((tag) => !removed.includes(tag))
      const change = configOf(params)
      await vms.configure(before, change, added.length + removed.length > 0 ? tags : undefined)
      mvm.changed(vms.require(before.name))
    },
    "vm.start": (params) => vms.start(vms.require(text(params, "name"))),
    "vm.stop": (params) => {
      const record = vms.require(text(params, "name"))
      const member = context.hub.byUuid(record.uuid)
      // A local endpoint's agent would start its vTPM again.
      if (record.kind === "local" && member?.session && vms.isRunning(record.uuid)) {
        member.link.send("STOP", { reason: "stopped by the operator" })
      }
      return vms.stop(record, {
        force: boolean(params, "force"),
        timeoutMs: optionalInteger(params, "timeoutMs"),
      })
    },
    "vm.reboot": (params) => {
      const timeoutMs = optionalInteger(params, "timeoutMs")
      return vms.reboot(vms.require(text(params, "name")), { timeoutMs })
    },
    "vm.list": () => context.registry.listVms().map((record) => summarise(mvm, record)),
    "vm.show": (params) => show(mvm, vms.require(text(params, "name"))),
    "vm.certificate": (params) => {
      const record = vms.require(text(params, "name"))
      return readCertificates(vms.paths(record).certificates, record.name)
    },
    "vm.console": (params) => {
      const record = vms.require(text(params, "name"))
      const path = vms.paths(record).console
      if (vms.isRunning(record.uuid) && existsSync(path)) return { path }
      if (record.kind === "local") {
        throw new MvmError("usage", `${record.name} is a local endpoint, which has no console`)
      }
      if (isFollowed(record)) {
        throw new MvmError("usage", `the console of ${record.name} is with whoever starts it`, {
          hint: record.kind === "libvirt" ? "virsh console DOMAIN" : undefined,
        })
      }
      throw new MvmError("vm_state", `${record.name} has no console: it is not running`, {
        hint: `mvm vm start ${record.name}`,
      })
    },
    "vm.wait": async (params, { gone }) => {
      const record = vms.require(text(params, "name"))
      const deadline = Date.now() + integer(params, "timeoutMs")
      for (;;) {
        const member = context.hub.byUuid(record.uuid)
        // A session counts once READY said what the agent can do.
        if (member?.session?.isReady) return { mapping: member.session.mapping }
        if (record.kind === "qemu" && !vms.isRunning(record.uuid)) {
          throw new MvmError("vm_state", `${record.name} is not running`, {
            hint: `see ${vms.paths(record).consoleLog}`,
          })
        }
        if (Date.now() > deadline || gone.aborted) {
          throw new MvmError("timeout", `the agent of ${record.name} did not link in time`, {
            hint: whyNoAgent(mvm, record),
          })
        }
        await Bun.sleep(POLL_MS)
      }
    },
  }
}

function whyNoAgent({ vms }: Mvm, record: VmRecord): string {
  if (record.kind === "local") return `is it running? mvm guest agent --local ${record.name}`
  if (isFollowed(record)) return vms.refusalOf(record.uuid) ?? "is its QEMU running, and the agent in it?"
  return `see ${vms.paths(record).consoleLog}, or mvm vm console ${record.name}`
}

/** Domains of libvirt are adopted: see control/machines. */
function vmKind(params: Params): VmRecord["kind"] {
  const kind = text(params, "kind")
  return kind === "local" || kind === "external" ? kind : "qemu"
}

function summarise(mvm: Mvm, record: VmRecord): Record<string, unknown> {
  const member = mvm.context.hub.byUuid(record.uuid)
  return {
    name: record.name,
    uuid: record.uuid,
    kind: record.kind,
    state: mvm.vms.isRunning(record.uuid) ? "running" : "stopped",
    link: member?.session ? "up" : "down",
    verdict: mvm.verifierOf(record).opinion.verdict,
    mapping: member?.session?.mapping ?? "",
    transport: member?.session ? (member.session.canMap ? "memory" : "relay") : null,
    channels: mvm.context.channels.of(record.uuid).length,
    deposits: mvm.context.deposits.table.counts().get(record.uuid) ?? 0,
    tags: record.tags,
    autostart: record.config.autostart === true,
  }
}

function show(mvm: Mvm, record: VmRecord): Record<string, unknown> {
  const member = mvm.context.hub.byUuid(record.uuid)
  const opinion = mvm.verifierOf(record).opinion
  const state = mvm.vms.runState(record.uuid)
  return {
    ...summarise(mvm, record),
    created: new Date(record.createdMs).toISOString(),
    bootId: member?.session?.bootId ?? null,
    epoch: member?.session?.epoch.toHex() ?? null,
    measurement: member?.session?.kind ?? null,
    reason: opinion.message ?? null,
    hasReference: referenceValues(mvm.context.registry.reference, record, kindOf(record)).table !== undefined,
    logEntries: opinion.entries,
    hotplug: mvm.context.dedicated.holdings.places(record.uuid),
    refused: mvm.vms.refusalOf(record.uuid) ?? null,
    qemuPid: state?.qemu?.pid ?? null,
    vtpmPid: state?.vtpm.pid ?? null,
    startedAt: state ? new Date(state.startedMs).toISOString() : null,
    consoleLog: record.kind === "qemu" ? mvm.vms.paths(record).consoleLog : null,
    keys: {
      identity: record.keys.identity.toHex(),
      attestation: record.keys.attestation.toHex(),
      sealing: record.keys.sealing.toHex(),
    },
    config: record.config,
    files: filesOf(record),
  }
}

/** What QEMU opens of a VM that this MVM starts, with what keeps it from it: this process's limits are QEMU's. */
function filesOf({ kind, config }: VmRecord): Record<string, unknown>[] {
  if (kind !== "qemu") return []
  return (["kernel", "initrd", "disk"] as const).flatMap((field) => {
    const path = config[field]
    if (path === undefined) return []
    const { why = null, remedy = null } = fileProblem(field, path) ?? {}
    return [{ field, path, problem: why, remedy }]
  })
}

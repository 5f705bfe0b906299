/**
 * @module mvm/serve
 *
 * The host daemon, put together: state, arena, members, broker, watch, control socket. Stopping it stops none of
 * its VMs and none of their channels: the next start finds both.
 */

import { existsSync, rmSync } from "node:fs"
import { join } from "node:path"
import { sha256 } from "../lib/crypto.ts"
import { encodeFields } from "../lib/encoding.ts"
import { MvmError, asMvmError, isErrorCode } from "../lib/errors.ts"
import type { Log } from "../lib/log.ts"
import { SCRATCH_BYTES } from "../platform/ivshmem.ts"
import { hashFile } from "../platform/launch-digest.ts"
import { serveRpc } from "../platform/json-rpc.ts"
import { greatestRingBytes, isRingBytes, regionBytes } from "../ring/layout.ts"
import { isUnseenReset } from "../tcb/measurement/clock.ts"
import { Arena, arenaPathOf } from "./channels/arena.ts"
import { AuditCommitter } from "./state/audit-committer.ts"
import { openAudit } from "./state/audit.ts"
import { ChannelStore } from "./state/channel-store.ts"
import { Broker } from "./broker.ts"
import { ChannelTable } from "./channels/channel-table.ts"
import { Traffic } from "./channels/traffic.ts"
import type { Mvm, MvmContext } from "./context.ts"
import { controlHandlers } from "./control/control.ts"
import { DepositKeep } from "./deposits/deposit-keep.ts"
import { DepositTable } from "./deposits/deposit-table.ts"
import type { DepositLimits } from "./deposits/quota.ts"
import { EvidenceStore } from "./evidence/store.ts"
import { Hub } from "./hub.ts"
import { HostEndpoint } from "./vm/host-endpoint.ts"
import { isFollowed } from "./vm/followed/access.ts"
import { lastLaunch } from "./vm/launch.ts"
import { Meters } from "./metrics/meters.ts"
import { ArenaMemory } from "./memory/channel-memory.ts"
import { Dedicated, type DedicatedOptions } from "./memory/dedicated.ts"
import { QmpPlugger, type PluggableVm } from "./memory/qmp-plugger.ts"
import { OfferBoard } from "./channels/offers.ts"
import { PolicyFile } from "./policy/policy-file.ts"
import { referenceValues } from "./reference/values.ts"
import type { Trust } from "./state/registry-trust.ts"
import { openRegistry, type Registry, type VmRecord } from "./state/registry.ts"
import { openStateDir } from "./state/state-dir.ts"
import { Verifier } from "./verifier.ts"
import { VmMonitors } from "./vm/vm-monitors.ts"
import { VmManager } from "./vm/vms.ts"
import { Watch } from "./watch.ts"

export interface ServeOptions {
  readonly state: string
  readonly stateKeyFile?: string | undefined
  readonly policyFile?: string | undefined
  readonly arenaBytes: number
  readonly arenaPath?: string | undefined
  /** The most of memory that channels have for themselves */
  readonly dedicatedBytes: number
  readonly pool: DedicatedOptions["pool"]
  readonly ringBytes: number
  readonly leaseMs: number
  readonly deposits: DepositLimits
  /** New vTPMs get endorsement certificates. */
  readonly certificates?: boolean
  readonly log: Log
}

export interface RunningMvm {
  readonly controlSocket: string
  readonly mvm: Mvm
  stop(): Promise<void>
}

export function controlSocketOf(state: string): string {
  return join(state, "control.sock")
}

/** @throws MvmError `already_running`, `state`, `state_key`, `config`, `io`: nothing runs then. */
export async function serve(options: ServeOptions): Promise<RunningMvm> {
  const { log } = options
  checkRing(options)
  const stateDir = await openStateDir(options.state, { stateKeyFile: options.stateKeyFile })
  const undo: (() => void)[] = [() => stateDir.close()]
  try {
    const registry = openRegistry(stateDir)
    undo.push(() => registry.close())
    const audit = new AuditCommitter(openAudit(stateDir, registry), log)
    const policy = new PolicyFile(options.policyFile ?? join(options.state, "policy.toml"))
    undo.push(() => policy.close())
    const arena = Arena.open(options.arenaPath ?? arenaPathOf(stateDir.path), options.arenaBytes)
    undo.push(() => arena.close())
    const monitors = new VmMonitors(log, {
      onMonitor: (uuid) => {
        const member = hub.byUuid(uuid)
        dedicated.holdings.reconcile(uuid).then(
          () => member && dedicated.trials.begin(member),
          (error: unknown) => log.warn("memory_reconcile", { message: asMvmError(error).message }),
        )
      },
      onUnplugged: (uuid, deviceId) => dedicated.holdings.unplugged(uuid, deviceId),
    })
    const dedicated: Dedicated = new Dedicated(
      {
        directory: join(stateDir.path, "memory"),
        prefix: `${arena.path}-`,
        limitBytes: options.dedicatedBytes,
        ringBytes: options.ringBytes,
        pool: options.pool,
      },
      {
        plugger: new QmpPlugger(
          (uuid) => monitors.of(uuid),
          (uuid) => pluggable(registry.getVm(uuid)),
        ),
        audit,
        log,
        onLost: (memory, reason) => {
          const channel = channels.all().find((one) => one.memory === memory)
          if (channel) broker.end(channel, "aborted", reason)
        },
      },
    )
    const channels = new ChannelTable(new ChannelStore(registry.database), log)
    dedicated.holdings.restore()
    const kept = channels.restore((stored) => {
      if (stored.kind !== "arena") return dedicated.reclaim(stored)
      return ArenaMemory.reserve(arena, stored.offset, stored.ringBytes)
    })
    const traffic = new Traffic(channels, log)
    undo.push(() => traffic.stop())
    const measurement = await ownMeasurement()
    const meters = new Meters()
    const verifiers = new Map<string, Verifier>()
    const evidence = new EvidenceStore(join(stateDir.path, "evidence"), log)
    const hub: Hub = new Hub(stateDir.identity, measurement, log, {
      onEpoch: (member) => broker.onEpoch(member),
      onMessage: (member, message) => broker.onMessage(member, message),
      onDisconnect: (member) => broker.onDisconnect(member),
      onAbsent: ({ record }) => {
        const reason = `the agent of ${record.name} went away`
        // What runs in a VM may still map the region: its next epoch, or its end, lets go of that.
        if (record.kind === "local") broker.releaseAll(record, reason)
        else for (const channel of channels.of(record.uuid)) broker.end(channel, "aborted", reason)
      },
      onQemu: (record, pid) => vms.linkOpened(record, pid),
      onBoot: async (member) => {
        broker.releaseAll(member.record, `the agent of ${member.record.name} started anew`)
        verifierOf(member.record).expectBoot(await vms.bootLocal(member.record))
        forgetDistrust(registry, member.record.uuid)
      },
    })
    undo.push(() => hub.close())
    const context: MvmContext = {
      registry,
      audit,
      evidence,
      policy,
      arena,
      dedicated,
      channels,
      traffic,
      meters,
      offers: new OfferBoard(),
      deposits: new DepositKeep({
        directory: join(stateDir.path, "deposits"),
        table: new DepositTable(registry.database),
        audit,
        limits: options.deposits,
        log,
      }),
      hub,
      identity: stateDir.identity,
      measurement,
      ringBytes: options.ringBytes,
      leaseMs: options.leaseMs,
      log,
    }
    const broker = new Broker(context)
    undo.push(() => broker.stop())
    const watch = new Watch(context, broker)
    undo.push(() => watch.stop())
    const verifierOf = (record: VmRecord): Verifier => {
      let verifier = verifiers.get(record.uuid)
      if (!verifier) {
        verifier = new Verifier(record, {
          reference: (kind) => {
            return referenceValues(registry.reference, registry.getVm(record.uuid) ?? record, kind)
          },
          store: evidence,
          onUntrusted: (error) => {
            registry.trust.setTrust(record.uuid, untrusted(error, hub.byUuid(record.uuid)?.session?.bootId))
            const member = hub.byUuid(record.uuid)
            if (member) watch.distrusted(member, error)
          },
          onUnseenReset: (error) => vms.halt(record, error.message),
          onClock: (clock) => registry.trust.setClock(record.uuid, clock),
          onApproved: () => forgetDistrust(registry, record.uuid),
          onAppraised: (milliseconds, isTrusted) => meters.appraised(milliseconds, isTrusted),
        })
        verifiers.set(record.uuid, verifier)
      }
      return verifier
    }
    const attach = (record: VmRecord): void => {
      hub.attach(record, vms.paths(record).link, verifierOf(record))
    }
    const vms: VmManager = new VmManager({
      stateDir,
      registry,
      audit,
      arena,
      monitors,
      log,
      certificates: options.certificates ?? false,
      handlers: {
        onCreated: (record) => {
          if (record.kind !== "qemu") attach(record)
        },
        onStarted: (record, resetCount, adopted) => {
          const verifier = verifierOf(record)
          const clock = adopted ? registry.trust.getClock(record.uuid) : undefined
          verifier.expectBoot(resetCount, {
            clock: clock?.resetCount === resetCount ? clock : undefined,
            launch: record.kind === "local" ? undefined : lastLaunch(registry.trust, record.uuid),
          })
          const before = registry.trust.getTrust(record.uuid)
          if (!adopted) forgetDistrust(registry, record.uuid)
          else if (before?.verdict === "untrusted") verifier.restoreDistrust(distrust(before), before.sinceMs)
          attach(record)
          if (adopted && isUnseenReset(verifier.opinion.code ?? "")) vms.halt(record, before?.reason ?? "")
        },
        onStopped: (record, reason) => {
          broker.releaseAll(record, `${record.name} ended: ${reason}`)
          dedicated.stopped(record.uuid)
          // The MVM listens at the link of the others, for the next agent or QEMU.
          if (record.kind === "qemu") hub.detach(record.uuid)
        },
        onPort: (record, isOpen) => {
          if (!isOpen) hub.portClosed(record.uuid)
        },
        onHalt: (record, reason) => {
          verifierOf(record).refuseBoot(new MvmError("evidence_reset", reason))
          hub.cut(record.uuid)
        },
        onRemoved: (record) => {
          hub.detach(record.uuid)
          context.deposits.removeFor(record.uuid).catch((error: unknown) => {
            log.error("deposits_of_removed", { vm: record.name, message: asMvmError(error).message })
          })
          verifiers.delete(record.uuid)
        },
      },
    })
    undo.push(() => vms.close())
    vms.adopt()
    broker.releaseAbsent((uuid) => vms.isThere(uuid))
    dedicated.settle((uuid) => vms.isThere(uuid))
    // Held against the policy as it is now; the ends hear of it when they link.
    watch.policyChanged()
    policy.watch(() => {
      const { current } = policy
      log.info("policy", { broken: "error" in current ? String(current.error.message) : false })
      watch.policyChanged()
    })
    const host = new HostEndpoint({ state: stateDir.path, vms, hub, registry, log })
    const mvm: Mvm = {
      context,
      stateDir,
      vms,
      host,
      startedMs: Date.now(),
      verifierOf,
      endChannel: (channel, code, reason) => broker.end(channel, code, reason),
      measure: (member) => watch.measure(member),
      changed: (record) => {
        hub.update(record)
        watch.reschedule(record)
        verifierOf(record).reconsider()
        watch.policyChanged()
      },
    }
    const controlSocket = controlSocketOf(stateDir.path)
    const control = serveRpc(controlSocket, controlHandlers(mvm))
    undo.push(() => control.close())
    await audit.commit("mvm_start", { measurement: measurement.toHex(), pid: process.pid, channels: kept })
    host.resume()
    log.info("serving", {
      state: stateDir.path,
      arena: arena.path,
      vms: registry.listVms().length,
      channels: kept,
    })
    return {
      controlSocket,
      mvm,
      stop: async () => {
        await host.stop()
        for (const verifier of verifiers.values()) verifier.keepClock()
        await evidence.flush()
        broker.flush()
        await audit.commit("mvm_stop", { pid: process.pid })
        const isMapped = registry.listVms().some((record) => isFollowed(record) || vms.isRunning(record.uuid))
        runAll(undo)
        dedicated.close(!isMapped)
        // A file the operator named is the operator's to remove.
        if (!isMapped && options.arenaPath === undefined) rmSync(arena.path, { force: true })
      },
    }
  } catch (error) {
    runAll(undo)
    throw error
  }
}

function pluggable(record: VmRecord | undefined): PluggableVm | undefined {
  if (!record) return undefined
  const { machine, qemuUid } = record.config
  return { machine, qemuUid, isFollowed: isFollowed(record) }
}

function untrusted(error: MvmError, bootId = ""): Trust {
  return {
    verdict: "untrusted",
    bootId,
    reason: error.message,
    details: { code: error.code },
    sinceMs: Date.now(),
  }
}

/** What {@link untrusted} kept, as the error it was. */
function distrust({ reason, details }: Trust): MvmError {
  const code = String((details as { code?: unknown } | null)?.code)
  return new MvmError(isErrorCode(code) ? code : "untrusted", reason)
}

/** A new boot, or an approval: a restart of the MVM must not bring the old verdict back. */
function forgetDistrust(registry: Registry, uuid: string): void {
  if (registry.trust.getTrust(uuid)?.verdict !== "untrusted") return
  registry.trust.setTrust(uuid, {
    verdict: "unknown",
    bootId: "",
    reason: "",
    details: null,
    sinceMs: Date.now(),
  })
}

function runAll(undo: (() => void)[]): void {
  for (const step of undo.splice(0).reverse()) step()
}

function checkRing(options: ServeOptions): void {
  const availableBytes = options.arenaBytes - SCRATCH_BYTES
  if (isRingBytes(options.ringBytes) && regionBytes(options.ringBytes) <= availableBytes) return
  throw new MvmError(
    "usage",
    `ring size ${options.ringBytes} does not fit an arena of ${options.arenaBytes}`,
    {
      hint: `a power of two; the greatest that fits is ${greatestRingBytes(availableBytes)}`,
    },
  )
}

/** SHA-256 over the digests of the programs the MVM itself runs: its own executable, QEMU and swtpm. */
async function ownMeasurement(): Promise<Uint8Array> {
  const names = ["qemu-system-x86_64", "qemu-system-aarch64", "swtpm"]
  const found = names.map((name) => Bun.which(name)).filter((path) => path !== null)
  const paths = [process.execPath, ...found].filter((path) => existsSync(path))
  const digests = await Promise.all(paths.map(async (path) => `${path} ${await hashFile(path)}`))
  return sha256(encodeFields("mvm measurement v1", digests))
}

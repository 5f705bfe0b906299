/**
 * @module test/mvm/scripted
 *
 * A daemon's hub, broker and watch over a real state directory, arena and unix sockets, for members whose
 * every word the test chooses.
 */

import { join } from "node:path"
import { p256Generate } from "../../src/lib/crypto.ts"
import { Log } from "../../src/lib/log.ts"
import { Arena } from "../../src/mvm/channels/arena.ts"
import { AuditCommitter } from "../../src/mvm/state/audit-committer.ts"
import { openAudit } from "../../src/mvm/state/audit.ts"
import { Broker } from "../../src/mvm/broker.ts"
import { ChannelStore } from "../../src/mvm/state/channel-store.ts"
import { ChannelTable } from "../../src/mvm/channels/channel-table.ts"
import type { MvmContext } from "../../src/mvm/context.ts"
import { DepositKeep } from "../../src/mvm/deposits/deposit-keep.ts"
import { DepositTable } from "../../src/mvm/deposits/deposit-table.ts"
import { DEFAULT_LIMITS, type DepositLimits } from "../../src/mvm/deposits/quota.ts"
import { EvidenceStore } from "../../src/mvm/evidence/store.ts"
import { Dedicated } from "../../src/mvm/memory/dedicated.ts"
import type { Plugger } from "../../src/mvm/memory/plugger.ts"
import { Hub } from "../../src/mvm/hub.ts"
import { Meters } from "../../src/mvm/metrics/meters.ts"
import { OfferBoard } from "../../src/mvm/channels/offers.ts"
import { PolicyFile } from "../../src/mvm/policy/policy-file.ts"
import { referenceValues } from "../../src/mvm/reference/values.ts"
import { openRegistry } from "../../src/mvm/state/registry.ts"
import { Traffic } from "../../src/mvm/channels/traffic.ts"
import { Verifier } from "../../src/mvm/verifier.ts"
import { Watch } from "../../src/mvm/watch.ts"
import { closeLater, sampleVm, scratchFolder, scratchState } from "./scratch-state.ts"
import { RESET_COUNT, ScriptedMember } from "./scripted-member.ts"

const ALLOW_ALL = `[[rule]]\nservice = "@any"\nfrom = "@any"\nto = "@any"\naction = "allow"\nmeasurement = "agent"\nisolation = "arena"\n`

export interface Setting {
  /** policy.toml; default: everything is allowed */
  readonly policy?: string
  readonly arenaBytes?: number
  readonly leaseMs?: number
  readonly plugger?: Plugger
  readonly deposits?: DepositLimits
}

/** For members that are no VMs. */
const NO_PLUGGER: Plugger = {
  buses: () => [],
  maxBytes: () => 0,
  plug: () => Promise.reject(new Error("no VM")),
  askBack: () => Promise.resolve(false),
  forget: () => Promise.resolve(),
  plugged: () => Promise.resolve(new Set()),
}

/** The daemon's middle: all but VMs and control socket. */
export class ScriptedMvm {
  readonly context: MvmContext
  readonly broker: Broker
  readonly watch: Watch
  readonly folder: string

  private constructor(context: MvmContext, broker: Broker, watch: Watch, folder: string) {
    this.context = context
    this.broker = broker
    this.watch = watch
    this.folder = folder
  }

  static async start(setting: Setting = {}): Promise<ScriptedMvm> {
    const folder = scratchFolder()
    const stateDir = await scratchState(join(folder, "state"))
    const registry = openRegistry(stateDir)
    closeLater(() => registry.close())
    const log = new Log({ level: (process.env["MVM_TEST_LOG"] as "debug") ?? "error", format: "text" })
    const audit = new AuditCommitter(openAudit(stateDir, registry), log)
    closeLater(() => audit.flush())
    const policyPath = join(folder, "policy.toml")
    await Bun.write(policyPath, setting.policy ?? ALLOW_ALL)
    const policy = new PolicyFile(policyPath)
    closeLater(() => policy.close())
    const arena = Arena.open(join(folder, "arena"), setting.arenaBytes ?? 1 << 20)
    closeLater(() => arena.close())
    const hub: Hub = new Hub(stateDir.identity, new Uint8Array(32), log, {
      onEpoch: (member) => broker.onEpoch(member),
      onMessage: (member, message) => broker.onMessage(member, message),
      onDisconnect: (member) => broker.onDisconnect(member),
      onAbsent: () => {},
      onBoot: async () => {},
      onQemu: async () => true,
    })
    closeLater(() => hub.close())
    const channels = new ChannelTable(new ChannelStore(registry.database), log)
    const traffic = new Traffic(channels, log)
    closeLater(() => traffic.stop())
    const context: MvmContext = {
      registry,
      audit,
      evidence: new EvidenceStore(join(folder, "evidence"), log),
      policy,
      arena,
      dedicated: new Dedicated(
        {
          directory: join(folder, "memory"),
          prefix: join(folder, "memory-file-"),
          limitBytes: setting.arenaBytes ?? 1 << 20,
          ringBytes: 8192,
          pool: { size: 1, idleMs: 60_000 },
        },
        { plugger: setting.plugger ?? NO_PLUGGER, audit, log, onLost: () => {} },
      ),
      channels,
      traffic,
      meters: new Meters(),
      offers: new OfferBoard(),
      deposits: new DepositKeep({
        directory: join(folder, "deposits"),
        table: new DepositTable(registry.database),
        audit,
        limits: setting.deposits ?? DEFAULT_LIMITS,
        log,
      }),
      hub,
      identity: stateDir.identity,
      measurement: new Uint8Array(32),
      ringBytes: 8192,
      leaseMs: setting.leaseMs ?? 90_000,
      log,
    }
    const broker = new Broker(context)
    closeLater(() => broker.stop())
    const watch = new Watch(context, broker)
    closeLater(() => watch.stop())
    return new ScriptedMvm(context, broker, watch, folder)
  }

  /** A member with an agent that is linked: a local endpoint, or a VM that others started and whose log is a kernel's. */
  async member(name: string, kind: "local" | "external" = "local"): Promise<ScriptedMember> {
    const { registry, hub } = this.context
    const keys = { identity: p256Generate(), attestation: p256Generate(), sealing: p256Generate() }
    const sample = sampleVm(name, { kind })
    const record = {
      ...sample,
      config: { ...sample.config, remeasureSeconds: 3600 },
      keys: {
        identity: keys.identity.publicKey,
        attestation: keys.attestation.publicKey,
        sealing: keys.sealing.publicKey,
      },
    }
    registry.insertVm(record)
    const verifier: Verifier = new Verifier(record, {
      reference: (kind) => referenceValues(registry.reference, record, kind),
      onUntrusted: (error) => {
        const member = hub.byUuid(record.uuid)
        if (member) this.watch.distrusted(member, error)
      },
      onUnseenReset: () => {},
      onClock: () => {},
      onApproved: () => {},
      store: this.context.evidence,
    })
    verifier.expectBoot(RESET_COUNT)
    const socketPath = join(this.folder, `${name}.sock`)
    const member = hub.attach(record, socketPath, verifier)
    const scripted = new ScriptedMember(this, member, keys, socketPath)
    registry.reference.addReference(record.uuid, [
      {
        path: "boot_aggregate",
        digest: scripted.aggregate,
        source: "learn",
        reason: "test",
        required: true,
        addedMs: Date.now(),
      },
    ])
    await scripted.link()
    return scripted
  }

  audited(kind: string): Record<string, unknown>[] {
    this.context.audit.flush()
    return this.context.audit.log.list({ kind, limit: 100_000 }).map((row) => ({ ...row.subject }))
  }
}

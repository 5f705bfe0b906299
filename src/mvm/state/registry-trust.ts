/**
 * @module mvm/state/registry-trust
 *
 * What was seen of each VM: its vTPM's counters, the verdict on its software, the digests of what it was started
 * with. All of it outlives the MVM's process, so that a restart neither forgives an untrusted VM nor forgets how
 * far a vTPM's clock had come.
 */

import { MvmError } from "../../lib/errors.ts"
import { type StateDatabase, storedJson } from "./database.ts"

/** TPMS_CLOCK_INFO without `safe`. @spec TPM 2.0 Part 2 §10.11.1 */
export interface VtpmClock {
  readonly resetCount: number
  readonly restartCount: number
  /** Milliseconds, unsigned 64-bit. */
  readonly clock: bigint
}

export interface Trust {
  readonly verdict: "trusted" | "untrusted" | "unknown"
  /** 16 bytes, hex: the boot the verdict is about. */
  readonly bootId: string
  /** One line for the operator; empty for a good verdict. */
  readonly reason: string
  /** Anything JSON holds. */
  readonly details: unknown
  readonly sinceMs: number
}

export interface Launch {
  /** As {@link TrustTable.recordLaunch} was given it. */
  readonly digests: Readonly<Record<string, unknown>>
  readonly timeMs: number
}

export interface TrustTable {
  getClock(uuid: string): VtpmClock | undefined
  /** @throws MvmError `not_found` for an unknown VM. */
  setClock(uuid: string, clock: VtpmClock): void
  getTrust(uuid: string): Trust | undefined
  /** @throws MvmError `not_found` for an unknown VM. */
  setTrust(uuid: string, trust: Trust): void
  /** @throws MvmError `not_found` for an unknown VM. */
  recordLaunch(uuid: string, digests: object, timeMs: number): void
  lastLaunch(uuid: string): Launch | undefined
}

interface ClockRow {
  reset_count: bigint
  restart_count: bigint
  clock: bigint
}

interface TrustRow {
  verdict: Trust["verdict"]
  boot_id: string
  reason: string
  details: string
  since_ms: bigint
}

/** How many launches of a VM are kept. */
const KEPT_LAUNCHES = 16

export function trustTable(database: StateDatabase): TrustTable {
  const known = database.prepare<{ uuid: string }>("SELECT uuid FROM vm WHERE uuid = ?")
  const readClock = database.prepare<ClockRow>("SELECT * FROM clock WHERE uuid = ?")
  const writeClock = database.prepare("INSERT OR REPLACE INTO clock VALUES (?, ?, ?, ?)")
  const readTrust = database.prepare<TrustRow>("SELECT * FROM trust WHERE uuid = ?")
  const writeTrust = database.prepare("INSERT OR REPLACE INTO trust VALUES (?, ?, ?, ?, ?, ?)")
  const readLaunch = database.prepare<{ digests: string; time_ms: bigint }>(
    "SELECT digests, time_ms FROM launch WHERE uuid = ? ORDER BY id DESC LIMIT 1",
  )
  const writeLaunch = database.prepare("INSERT INTO launch (uuid, digests, time_ms) VALUES (?, ?, ?)")
  const dropLaunches = database.prepare(
    `DELETE FROM launch WHERE uuid = ?1 AND id NOT IN
      (SELECT id FROM launch WHERE uuid = ?1 ORDER BY id DESC LIMIT ${KEPT_LAUNCHES})`,
  )
  const changed = (uuid: string, work: () => void): void =>
    database.transaction(() => {
      if (!known.get(uuid)) throw new MvmError("not_found", `there is no VM ${uuid}`)
      work()
    })
  return {
    getClock(uuid) {
      const row = readClock.get(uuid)
      if (!row) return undefined
      return {
        resetCount: Number(row.reset_count),
        restartCount: Number(row.restart_count),
        clock: BigInt.asUintN(64, row.clock),
      }
    },
    setClock(uuid, { resetCount, restartCount, clock }) {
      // sqlite integers are signed: the upper half of the range is stored as negative numbers.
      changed(uuid, () => writeClock.run(uuid, resetCount, restartCount, BigInt.asIntN(64, clock)))
    },
    getTrust(uuid) {
      const row = readTrust.get(uuid)
      if (!row) return undefined
      const { verdict, reason } = row
      const details = storedJson(row.details, "trust.details")
      return { verdict, bootId: row.boot_id, reason, details, sinceMs: Number(row.since_ms) }
    },
    setTrust(uuid, { verdict, bootId, reason, details, sinceMs }) {
      const json = JSON.stringify(details ?? null)
      changed(uuid, () => writeTrust.run(uuid, verdict, bootId, reason, json, sinceMs))
    },
    recordLaunch(uuid, digests, timeMs) {
      changed(uuid, () => {
        writeLaunch.run(uuid, JSON.stringify(digests), timeMs)
        dropLaunches.run(uuid)
      })
    },
    lastLaunch(uuid) {
      const row = readLaunch.get(uuid)
      if (!row) return undefined
      return {
        digests: storedJson(row.digests, "launch.digests") as Launch["digests"],
        timeMs: Number(row.time_ms),
      }
    },
  }
}

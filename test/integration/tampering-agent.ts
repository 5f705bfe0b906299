/**
 * @module test/integration/tampering-agent
 *
 * Loaded before an agent whose machine's root has changed what it does with relayed records: MVM_TEST_TAMPER says how.
 * Its link, keys and quotes are real.
 */

import { costOf } from "../../src/channel/record-queue.ts"
import { RelayCarrier } from "../../src/guest/carriers/relay-carrier.ts"
import { BulkQueue } from "../../src/wire/bulk-queue.ts"

/** Which record of a direction it lays hands on. */
const VICTIM = 5

const { fromCommand } = RelayCarrier.prototype
const counts = new WeakMap<RelayCarrier, number>()
const before = new WeakMap<RelayCarrier, Uint8Array>()
const held = new WeakMap<RelayCarrier, Uint8Array>()

const TAMPER: Record<string, (carrier: RelayCarrier, record: Uint8Array) => void> = {
  drop: () => {},
  replay: (carrier) => fromCommand.call(carrier, before.get(carrier)!),
  swap: (carrier, record) => void held.set(carrier, record),
  flip: (carrier, record) => {
    const changed = record.slice()
    const at = changed.length >> 1
    changed[at] = changed[at]! ^ 1
    fromCommand.call(carrier, changed)
  },
  forge: (carrier, record) => {
    const made = crypto.getRandomValues(record.slice())
    made.set(record.subarray(0, 8))
    fromCommand.call(carrier, made)
  },
}

RelayCarrier.prototype.fromCommand = function (record) {
  const count = (counts.get(this) ?? 0) + 1
  counts.set(this, count)
  const tamper = TAMPER[process.env["MVM_TEST_TAMPER"] ?? ""]
  if (tamper && count === VICTIM) return tamper(this, record)
  before.set(this, record)
  fromCommand.call(this, record)
  const late = held.get(this)
  if (late) {
    held.delete(this)
    fromCommand.call(this, late)
  }
}

/** A receiver that claims to have taken more than ever was sent; a sender that knows no window. */
const { mark, record } = BulkQueue.prototype
const flooded = new WeakSet<BulkQueue>()

BulkQueue.prototype.mark = function (line, name, fields) {
  const overtakes = process.env["MVM_TEST_TAMPER"] === "overtake" && name === "CREDIT"
  const { channelId } = fields as { channelId: Uint8Array }
  if (overtakes) mark.call(this, line, "CREDIT", { channelId, taken: 2 ** 40 })
  else mark.call(this, line, name, fields as never)
}

BulkQueue.prototype.record = function (line, fields) {
  record.call(this, line, fields)
  if (process.env["MVM_TEST_TAMPER"] !== "flood" || flooded.has(this)) return
  flooded.add(this)
  let offset = fields.offset
  for (let count = 0; count < 200; count++) {
    offset += costOf(fields.record.length)
    record.call(this, line, { ...fields, offset })
  }
}

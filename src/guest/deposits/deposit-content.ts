/**
 * @module guest/deposits/deposit-content
 *
 * The content of a deposit inside the command that leaves or collects it: sealed under a random key that lives here
 * alone, until it is encrypted to the target; opened only once all records came and are the ones that were claimed.
 */

import { depositHandshake, type DepositPlace } from "../../channel/deposit.ts"
import { parseStatement, type DepositStatement } from "../../channel/deposit-statement.ts"
import { Opener } from "../../channel/opener.ts"
import { KIND } from "../../channel/record.ts"
import { KEPT_PAYLOAD_BYTES, RecordReader, RecordWriter } from "../../channel/record-bytes.ts"
import { Sealer } from "../../channel/sealer.ts"
import { equalBytes } from "../../lib/bytes.ts"
import { AES256_KEY_BYTES, Sha256, discardOutput, random } from "../../lib/crypto.ts"
import { MvmError } from "../../lib/errors.ts"
import { formatSize } from "../../lib/units.ts"
import { sealDepositKey } from "../../tcb/deposit-key.ts"
import { DEPOSIT_PART_BYTES } from "../../wire/fields.ts"
import type { LocalFields } from "../../wire/local-link.ts"
import { POLLIN, PollSet } from "../../platform/posix.ts"
import { turn } from "../channel-end.ts"
import { readSome } from "../input.ts"
import { Spool } from "../spool.ts"
import type { DepositClient } from "./deposit-client.ts"

/** The longest time without a look at the agent's socket. */
const IDLE_POLL_MS = 200

export interface DepositedContent {
  readonly depositId: Uint8Array
  readonly lengthBytes: number
}

/**
 * Leaves everything that `fd` gives, and resolves once the MVM keeps it.
 *
 * @throws MvmError as the agent or the MVM said, `denied` past the policy's length, `io`
 */
export async function depositAll(
  client: DepositClient,
  asked: LocalFields<"DEPOSIT">,
  fd: number,
  onProgress: (bytes: number) => void,
): Promise<DepositedContent> {
  const { depositId, targetUuid, targetKey, laddress, maxBytes } = await client.begin(asked)
  const { service } = asked
  const place: DepositPlace = { depositId, laddress, targetUuid, service }
  const key = random(AES256_KEY_BYTES)
  const writer = new RecordWriter()
  const sealer = new Sealer(key, writer)
  const hash = new Sha256()
  let storedBytes = 0
  const send = async (): Promise<void> => {
    const bytes = writer.take()
    hash.update(bytes)
    storedBytes += bytes.length
    for (let at = 0; at < bytes.length; at += DEPOSIT_PART_BYTES) {
      await client.put(bytes.subarray(at, at + DEPOSIT_PART_BYTES))
    }
  }
  sealer.trySeal(KIND.HANDSHAKE, depositHandshake(place))
  const input = new Input(fd, client.agent)
  const buffer = new Uint8Array(KEPT_PAYLOAD_BYTES)
  for (;;) {
    const got = await input.read(buffer)
    if (got === 0) break
    if (maxBytes !== undefined && sealer.plaintextBytes + got > maxBytes) {
      throw new MvmError("denied", `the policy of this host allows ${formatSize(maxBytes)} at a time`, {
        hint: "operator: max_bytes of the rule",
      })
    }
    sealer.trySeal(KIND.DATA, buffer.subarray(0, got))
    await send()
    onProgress(sealer.plaintextBytes)
  }
  sealer.trySeal(KIND.EOF, new Uint8Array(0))
  await send()
  const sealedKey = await sealDepositKey(targetKey, place, { key, laddress })
  key.fill(0)
  const lengthBytes = sealer.plaintextBytes
  await client.finish({
    lengthBytes,
    storedBytes,
    records: sealer.chain.records,
    hash: hash.digest(),
    sealedKey,
  })
  return { depositId, lengthBytes }
}

/** All records of one deposit, here and checked, and nothing of them given out yet. */
export class CollectedContent {
  readonly statement: DepositStatement
  readonly #spool: Spool
  readonly #key: Uint8Array
  readonly #place: DepositPlace

  private constructor(statement: DepositStatement, spool: Spool, key: Uint8Array, place: DepositPlace) {
    this.statement = statement
    this.#spool = spool
    this.#key = key
    this.#place = place
  }

  /**
   * Fetches the records, still sealed, into a nameless file, and compares their hash: the last step of the method.
   *
   * @throws MvmError as the agent or the MVM said, `digest_mismatch`, `no_space`
   */
  static async fetch(
    client: DepositClient,
    { statement: signed, key, laddress }: LocalFields<"COLLECTED">,
    onProgress: (bytes: number) => void,
  ): Promise<CollectedContent> {
    const statement = parseStatement(signed)
    const { depositId, targetUuid, service } = statement
    const spool = Spool.create()
    try {
      const hash = new Sha256()
      let storedBytes = 0
      for (;;) {
        const part = await client.next()
        if (part.length === 0) break
        hash.update(part)
        storedBytes += part.length
        spool.write(part)
        onProgress(Math.min(storedBytes, statement.lengthBytes))
      }
      if (storedBytes !== statement.storedBytes || !equalBytes(hash.digest(), statement.hash)) {
        throw new MvmError("digest_mismatch", "what came is not what the MVM stored")
      }
      return new CollectedContent(statement, spool, key, { depositId, laddress, targetUuid, service })
    } catch (error) {
      spool.close()
      throw error
    }
  }

  /**
   * Opens the records one after the other.
   *
   * @throws MvmError `record`, `truncated`, `integrity` when they are not what the depositor claimed; what `write` does
   */
  async release(write: (bytes: Uint8Array) => Promise<void>): Promise<void> {
    const reader = new RecordReader()
    const expected = depositHandshake(this.#place)
    const opener = new Opener({
      key: this.#key,
      source: reader,
      verifyHandshake: (binding) => equalBytes(binding, expected.subarray(0, binding.length)),
    })
    await this.#spool.release(async (bytes) => {
      reader.push(bytes)
      for (let record = opener.tryOpen(); record; record = opener.tryOpen()) {
        if (record.kind !== KIND.DATA) continue
        await write(record.plaintext)
        discardOutput(record.plaintext)
      }
    })
    if (!opener.ended || reader.restBytes > 0)
      throw new MvmError("truncated", "the deposit ends before its end")
    const { lengthBytes, records } = this.statement
    if (opener.plaintextBytes !== lengthBytes || opener.chain.records !== records) {
      throw new MvmError("integrity", "the deposit is not as long as its depositor claimed")
    }
  }

  close(): void {
    this.#key.fill(0)
    this.#spool.close()
  }
}

/** An input that may have nothing for a while, watched together with the agent. */
class Input {
  readonly #fd: number
  readonly #agent: DepositClient["agent"]
  readonly #set: PollSet

  constructor(fd: number, agent: DepositClient["agent"]) {
    this.#fd = fd
    this.#agent = agent
    this.#set = new PollSet([
      { fd, events: POLLIN },
      { fd: agent.fd, events: POLLIN },
    ])
  }

  /** @returns bytes read, 0 at the end @throws MvmError `io`, and what the agent says meanwhile */
  async read(buffer: Uint8Array): Promise<number> {
    for (;;) {
      this.#set.wait(IDLE_POLL_MS)
      const isReady = this.#set.revents(0) !== 0
      if (!isReady || this.#set.revents(1) !== 0) await turn()
      this.#agent.check()
      const got = isReady ? readSome(this.#fd, buffer) : -1
      if (got >= 0) return got
    }
  }
}

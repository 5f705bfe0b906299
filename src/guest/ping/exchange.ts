/**
 * @module guest/ping/exchange
 *
 * What travels in a ping, once each way: the sender's handshake and one short record.
 */

import { KIND, type Kind } from "../../channel/record.ts"
import { MvmError } from "../../lib/errors.ts"
import type { ChannelEnd } from "../channel-end.ts"

/** More is no ping. */
const MAX_BYTES = 64

/** Shows who this end is, and `bytes` behind it. */
export async function sendPing(end: ChannelEnd, bytes: Uint8Array): Promise<void> {
  await seal(end, KIND.HANDSHAKE, end.handshake)
  await seal(end, KIND.DATA, bytes)
  end.flush()
}

/**
 * The other end's record.
 *
 * Trust: its content is the peer's, authenticated and short.
 *
 * @throws MvmError `protocol` for anything that is no ping, and when the channel may not go on.
 */
export async function receivePing(end: ChannelEnd): Promise<Uint8Array> {
  for (;;) {
    const record = end.opener.tryOpen()
    if (record === null) {
      end.acknowledge()
      await end.awaitData()
      continue
    }
    end.check()
    if (record.kind !== KIND.DATA) {
      if (end.opener.ended) throw new MvmError("protocol", "the other end closed without an answer")
      continue
    }
    if (record.plaintext.length > MAX_BYTES) throw new MvmError("protocol", "a record too long for a ping")
    const bytes = record.plaintext.slice()
    end.acknowledge()
    return bytes
  }
}

async function seal(end: ChannelEnd, kind: Kind, bytes: Uint8Array): Promise<void> {
  while (!end.sealer.trySeal(kind, bytes)) await end.awaitRoom(bytes.length)
}

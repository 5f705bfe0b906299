/**
 * @module test/channel/secrets-peer
 *
 * A process that derives what a channel, a link and a sealed message are protected with, from two secrets it is told on
 * standard input: its X25519 share, and what its vTPM would answer. It says "held" when it was told them, and "wiped"
 * when it has done all that and let go of it, and waits for a line each time.
 *
 *   bun secrets-peer.ts PEER_SHARE_HEX RECIPIENT_HEX SEALED_HEX
 */

import { readSync } from "node:fs"
import { channelKeys } from "../../src/channel/keys.ts"
import { x25519Shared } from "../../src/lib/crypto.ts"
import { linkKeys } from "../../src/tcb/link-handshake.ts"
import { hpkeOpen, hpkeSeal } from "../../src/tcb/hpke.ts"
import { INFO, TRANSCRIPT, linkTranscript } from "./secrets.ts"

const line = new Uint8Array(1)
const [peerShare, recipient, sealed] = process.argv.slice(2).map((hex) => Uint8Array.fromHex(hex))

/** 32 bytes, each less one: the secret itself is made here and was never read from anywhere. */
function told(): Uint8Array {
  const secret = new Uint8Array(32)
  for (let at = 0; at < secret.length; at++) {
    readSync(0, line)
    secret[at] = line[0]! + 1
  }
  return secret
}

async function derive(share: Uint8Array, dh: Uint8Array): Promise<void> {
  const channel = channelKeys(share, peerShare!, TRANSCRIPT)
  const link = linkKeys(x25519Shared(share, peerShare!), linkTranscript(peerShare!))
  for (const key of [...Object.values(channel), ...Object.values(link), share]) key.fill(0)
  await hpkeOpen({ zgen: async () => dh, recipientPublic65: recipient! }, INFO, sealed!)
  await hpkeSeal(recipient!, INFO, new Uint8Array(100))
}

let [share, dh]: (Uint8Array | undefined)[] = [told(), told()]
process.stdout.write("held\n")
readSync(0, line)
await derive(share!, dh!)
share = dh = undefined
for (let round = 0; round < 5; round++) {
  Bun.gc(true)
  await Bun.sleep(20)
}
process.stdout.write("wiped\n")
readSync(0, line)

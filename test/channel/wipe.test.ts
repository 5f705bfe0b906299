import { expect, test } from "bun:test"
import { join } from "node:path"
import { channelKeys } from "../../src/channel/keys.ts"
import { toHex } from "../../src/lib/bytes.ts"
import {
  hkdfExtract,
  p256Ecdh,
  p256Generate,
  random,
  x25519Generate,
  x25519Shared,
} from "../../src/lib/crypto.ts"
import { AES_256_GCM, hpkeSeal, keySchedule, kemSharedSecret } from "../../src/tcb/hpke.ts"
import { linkKeys } from "../../src/tcb/link-handshake.ts"
import { secretsInMemory } from "../integration/memory-image.ts"
import { INFO, TRANSCRIPT, linkTranscript } from "./secrets.ts"

/** Which of `secrets` are in the memory of `program` when it was told `told`, and when it says that it let go. */
async function held(
  program: readonly string[],
  told: readonly Uint8Array[],
  secrets: ReadonlyMap<string, Uint8Array>,
): Promise<[before: string[], after: string[]]> {
  const [file = "", ...words] = program
  const child = Bun.spawn([process.execPath, join(import.meta.dir, file), ...words], {
    stdin: "pipe",
    stdout: "pipe",
  })
  try {
    for (const secret of told) child.stdin.write(secret.map((byte) => byte - 1))
    await child.stdin.flush()
    const said = child.stdout.getReader()
    const next = async (): Promise<string> => new TextDecoder().decode((await said.read()).value).trim()
    expect(await next()).toBe("held")
    const before = secretsInMemory(child.pid, secrets)
    child.stdin.write("\n")
    await child.stdin.flush()
    expect(await next()).toBe("wiped")
    return [before, secretsInMemory(child.pid, secrets)]
  } finally {
    child.kill("SIGKILL")
    await child.exited
  }
}

/** No byte is 0, which one less would not be. */
function speakable(make: () => Uint8Array): Uint8Array {
  for (;;) {
    const made = make()
    if (!made.includes(0)) return made
  }
}

test("the key of a direction that is over is in its process's memory no more", async () => {
  const key = speakable(() => random(32))
  const [before, after] = await held(["wipe-peer.ts"], [key], new Map([["key", key]]))
  expect(before).toEqual(["key"])
  expect(after).toEqual([])
}, 60_000)

test("nothing that keys were derived from, nor those of a link or a sealed grant, stays in memory", async () => {
  const share = speakable(() => x25519Generate().privateKey)
  const peer = x25519Generate().publicKey
  const recipient = p256Generate()
  let sealed = new Uint8Array(0)
  const dh = await (async () => {
    for (;;) {
      sealed = Uint8Array.from(await hpkeSeal(recipient.publicKey, INFO, new Uint8Array(100)))
      const made = p256Ecdh(recipient.privateKey, sealed.subarray(0, 65))
      if (!made.includes(0)) return made
    }
  })()
  const shared = x25519Shared(share, peer)
  const kem = kemSharedSecret(dh, sealed.subarray(0, 65), recipient.publicKey)
  const secrets = new Map([
    ["share", share],
    ["shared secret", shared],
    ["channel prk", hkdfExtract(TRANSCRIPT, shared)],
    ["channel key", channelKeys(share, peer, TRANSCRIPT).askerToAnswerer],
    ["link key to the guest", linkKeys(shared.slice(), linkTranscript(peer)).toGuest],
    ["link key to the mvm", linkKeys(shared.slice(), linkTranscript(peer)).toMvm],
    ["dh", dh],
    ["kem secret", kem],
    ["hpke key", keySchedule(kem, INFO, AES_256_GCM).key],
  ])
  const words = [peer, recipient.publicKey, sealed].map(toHex)
  const [before, after] = await held(["secrets-peer.ts", ...words], [share, dh], secrets)
  expect(before).toEqual(["dh", "share"])
  expect(after).toEqual([])
}, 60_000)

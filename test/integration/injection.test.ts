/**
 * @module test/integration/injection
 *
 * Frames that are not the other end's, in the middle of a link's bytes: what a peer could hope for that chose bytes
 * which travel there, where the stream is torn and its reader looks for the next beginning.
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { concat, fromHex } from "../../src/lib/bytes.ts"
import { random } from "../../src/lib/crypto.ts"
import { encodeFrame } from "../../src/wire/frame.ts"
import { MESSAGES } from "../../src/wire/messages.ts"
import { encodeMessage } from "../../src/wire/table.ts"
import { LinkProxy, type Passing } from "./link-proxy.ts"
import { TestHost } from "./host.ts"

const CONTENT = new Uint8Array(400_000).map((_, at) => at * 17)
/** A header that says 60,000 bytes follow: what comes next is taken for its payload, and found again after its CRC. */
const TORN = concat(fromHex("4d564d3101000000" + "0000ea60"), random(4))

let host: TestHost
const proxy = new LinkProxy(() => host.state)

beforeAll(async () => {
  host = await TestHost.start({ guestState: proxy.guestState, onMember: proxy.add })
  await host.member("a")
  await host.member("b")
}, 60_000)
afterAll(async () => {
  await host?.end()
  proxy.close()
}, 60_000)

/** What an attacker would have the reader believe: messages that end, revoke or fake a channel and a link. */
function forged(channelId: Uint8Array): Uint8Array[] {
  const end = {
    channelId,
    direction: 0,
    lengthBytes: 1,
    records: 1,
    digest: random(32),
    signature: random(64),
  }
  return [
    encodeMessage(MESSAGES, "CLOSE", 0, { channelId }),
    encodeMessage(MESSAGES, "ABORT", 0, { channelId, code: "revoked", message: "forged" }),
    encodeMessage(MESSAGES, "REVOKE", 0, { channelId, message: "forged" }),
    encodeMessage(MESSAGES, "FIN", 0, end),
    encodeMessage(MESSAGES, "RECEIPT", 7, end),
    encodeMessage(MESSAGES, "STOP", 0, { reason: "forged" }),
    encodeMessage(MESSAGES, "DONE", 1, {}),
  ]
}

/** A transfer with `inject` called for each frame until it said false. */
async function transfer(
  inject: (passing: Passing) => boolean,
): Promise<{ statuses: number[]; isRight: boolean; whole: boolean }> {
  let isOn = true
  proxy.watcher = (passing) => {
    if (isOn) isOn = inject(passing)
    return true
  }
  const out = join(host.folder, "injected")
  const receiver = host.spawn(["guest", "recv", "--local", "b"], { stdout: out })
  await receiver.says("waiting for")
  const sender = host.send("a", "b", CONTENT, "--wait", "10s")
  const sent = await sender.over()
  if (sent !== 0 && receiver.process.exitCode === null) {
    await Promise.race([receiver.process.exited, Bun.sleep(2000)])
    receiver.kill("SIGINT")
  }
  const statuses = [sent, await receiver.over()]
  proxy.watcher = () => true
  const delivered = new Uint8Array(readFileSync(out))
  const isRight = Buffer.compare(delivered, CONTENT.subarray(0, delivered.length)) === 0
  return { statuses, isRight, whole: delivered.length === CONTENT.length }
}

/** The channel that a message is about, where it is about one. */
function channelOf({ message }: Passing): Uint8Array {
  const key = Buffer.from("channelId\xc4\x10", "latin1")
  const at = Buffer.from(message).indexOf(key)
  return at < 0 ? random(16) : message.slice(at + key.length, at + key.length + 16)
}

test("frames without a seal, of every kind that ends something, change nothing", async () => {
  let injected = 0
  const outcome = await transfer((passing) => {
    for (const message of forged(channelOf(passing))) {
      passing.inject(encodeFrame(message))
      injected += 1
    }
    return injected < 400
  })
  expect(outcome).toEqual({ statuses: [0, 0], isRight: true, whole: true })
  expect(injected).toBeGreaterThan(100)
})

test("frames with a forged seal, and torn ones around them, may cost the link an epoch, and nothing is believed", async () => {
  let injected = 0
  const outcome = await transfer((passing) => {
    injected += 1
    if (injected % 5 !== 0) return true
    const inner = forged(channelOf(passing)).map((message) =>
      encodeFrame(concat(random(40), message), { auth: true }),
    )
    passing.inject(concat(injected % 10 === 0 ? TORN : new Uint8Array(0), ...inner))
    return injected < 60
  })
  expect(outcome.isRight).toBe(true)
  for (const status of outcome.statuses) expect([0, 3, 5, 130]).toContain(status)
  if (outcome.statuses[0] === 0) expect(outcome.whole).toBe(true)
  // Nobody was stopped, nothing is held, and the next transfer works once both links found together again.
  await host.until("a transfer that works", async () => {
    await host.linked("a")
    await host.linked("b")
    // A link may begin one more epoch just then.
    const next = await transfer(() => false).catch(() => undefined)
    return next?.whole === true && next.statuses.join() === "0,0"
  })
  await host.free()
  expect(await host.ask("audit.verify")).toMatchObject({ ok: true })
}, 90_000)

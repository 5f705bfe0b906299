import { expect, test } from "bun:test"
import { closeSync, openSync, readSync, unlinkSync, writeSync } from "node:fs"
import { join } from "node:path"
import { tmpdir } from "node:os"
import { MvmError } from "../../src/lib/errors.ts"
import { peerCredentials, POLLHUP, POLLIN, POLLNVAL, PollSet, setPipeSize } from "../../src/platform/posix.ts"

/** Both ends of a named pipe. */
function pipe(): { readFd: number; writeFd: number } {
  const path = join(tmpdir(), `mvm-posix-${process.pid}-${Math.random().toString(36).slice(2)}`)
  Bun.spawnSync(["mkfifo", path])
  // Opening one end of a fifo waits for the other; opened both ways it does not.
  const both = openSync(path, "r+")
  const readFd = openSync(path, "r")
  const writeFd = openSync(path, "w")
  closeSync(both)
  unlinkSync(path)
  return { readFd, writeFd }
}

test("poll tells which descriptor is readable, and times out when none is", () => {
  const a = pipe()
  const b = pipe()
  const set = new PollSet([
    { fd: a.readFd, events: POLLIN },
    { fd: b.readFd, events: POLLIN },
  ])
  expect(set.wait(0)).toBe(0)
  writeSync(b.writeFd, "x")
  expect(set.wait(-1)).toBe(1)
  expect(set.revents(0)).toBe(0)
  expect(set.revents(1) & POLLIN).toBe(POLLIN)
  set.setEvents(1, 0)
  expect(set.wait(0)).toBe(0)
  closeSync(a.writeFd)
  expect(set.wait(-1)).toBe(1)
  expect(set.revents(0) & POLLHUP).toBe(POLLHUP)
  set.setDescriptor(0, -1)
  expect(set.wait(0)).toBe(0)
  for (const fd of [a.readFd, b.readFd, b.writeFd]) closeSync(fd)
})

test("poll reports a closed descriptor instead of failing", () => {
  const set = new PollSet([{ fd: 9999, events: POLLIN }])
  expect(set.wait(0)).toBe(1)
  expect(set.revents(0)).toBe(POLLNVAL)
})

test("a pipe is enlarged to 1 MiB and then takes that much without a reader", () => {
  const { readFd, writeFd } = pipe()
  expect(setPipeSize(writeFd, 1 << 20)).toBe(1 << 20)
  expect(writeSync(writeFd, new Uint8Array(1 << 20))).toBe(1 << 20)
  expect(readSync(readFd, new Uint8Array(1 << 20))).toBeGreaterThan(0)
  closeSync(readFd)
  closeSync(writeFd)
})

test("enlarging what is not a pipe changes nothing and does not fail", () => {
  const fd = openSync("/dev/null", "r")
  expect(setPipeSize(fd, 1 << 20)).toBe(0)
  closeSync(fd)
})

test("names the process at the other end of a unix socket", async () => {
  const path = join(tmpdir(), `mvm-cred-${process.pid}.sock`)
  const accepted = Promise.withResolvers<number>()
  const server = Bun.listen({
    unix: path,
    socket: { open: (socket) => accepted.resolve((socket as unknown as { fd: number }).fd), data() {} },
  })
  const client = await Bun.connect({ unix: path, socket: { data() {} } })
  const peer = peerCredentials(await accepted.promise)
  expect(peer).toEqual({ pid: process.pid, uid: process.getuid!(), gid: process.getgid!() })
  client.end()
  server.stop(true)
})

test("refuses credentials of a descriptor that is no unix socket", () => {
  const fd = openSync("/dev/null", "r")
  expect(() => peerCredentials(fd)).toThrow(MvmError)
  closeSync(fd)
})

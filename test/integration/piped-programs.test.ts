/** OpenSSH, git, rsync and tar over `mvm guest connect`. */

import { beforeAll, expect, test } from "bun:test"
import { randomBytes } from "node:crypto"
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { hostForFile } from "./host.ts"
import { LONG } from "./host-options.ts"
import { must, run, sshKeys } from "./real-programs.ts"

const TAR_BLOCK_BYTES = 512
const SMALL_WRITES = LONG ? 1_000_000 : 50_000

const host = hostForFile({ members: ["a", "b"] })
let ssh: string[]

function at(...path: string[]): string {
  return join(host().folder, ...path)
}

/** As a shell runs it, with `mvm` for the program and member a as its own. */
function shell(text: string): Promise<string> {
  return must(["bash", "-euo", "pipefail", "-c", text], { cwd: host().folder, env: environment() })
}

function environment(): Record<string, string> {
  return { MVM_STATE: host().state, HOME: host().folder, GIT_CONFIG_NOSYSTEM: "1", LC_ALL: "C.UTF-8" }
}

beforeAll(async () => {
  const keys = await sshKeys(host().folder)
  ssh = keys.client(`${host().mvm} guest connect b:ssh --local a`)
  // Not a shell and no port: the server is a program that speaks on its standard input and output.
  await host().serves("b", "ssh", "--", "/usr/sbin/sshd", "-i", "-f", keys.config)
  mkdirSync(at("tree", "deep", "er"), { recursive: true })
  for (let index = 0; index < 200; index++) {
    writeFileSync(at("tree", index % 2 ? "deep" : "deep/er", `file ${index}`), randomBytes(index * 97))
  }
  symlinkSync("deep/er/file 0", at("tree", "link"))
}, 60_000)

test("OpenSSH runs commands through ProxyCommand: output, status, large input", async () => {
  const words = [...ssh, "b"]
  expect(await run([...words, "echo out; echo error >&2; exit 42"], { env: environment() })).toEqual({
    status: 42,
    stdout: "out\n",
    stderr: "error\n",
  })
  writeFileSync(at("large"), randomBytes(20 * 2 ** 20))
  const quoted = words.map((word) => `'${word}'`).join(" ")
  expect(await shell(`${quoted} 'cat; cat' <large | cmp - large && echo same`)).toBe("same\n")
}, 60_000)

test("rsync copies a tree with -e, and finds nothing left to do the second time", async () => {
  const words = ssh.map((word) => (word.includes(" ") ? `'${word}'` : word)).join(" ")
  const rsync = `rsync -a --delete --itemize-changes -e "${words}" ${host().folder}/tree/ b:${host().folder}/copied/`
  expect((await shell(rsync)).split("\n").length).toBeGreaterThan(200)
  expect(await shell("diff -r --no-dereference tree copied && echo same")).toBe("same\n")
  expect(await shell(rsync)).toBe("")
}, 60_000)

test("git clones and pushes, over ssh and over a service of its own", async () => {
  await shell(`
    git init -q -b main work && cd work && git config user.email t@example.org && git config user.name t
    cp -r ../tree . && git add . && git commit -qm first
    git clone -q --bare . ../bare.git
  `)
  await host().serves("b", "repository", "--", "/usr/bin/git", "upload-pack", at("bare.git"))
  const words = ssh.map((word) => (word.includes(" ") ? `'${word}'` : word)).join(" ")
  const log = await shell(`
    export GIT_SSH_COMMAND="${words}"
    git clone -q b:${at("bare.git")} over-ssh && cd over-ssh
    git config user.email t@example.org && git config user.name t
    echo second >second && git add second && git commit -qm second && git push -q
    cd .. && git -c protocol.ext.allow=always clone -q "ext::${host().mvm} guest connect b:repository --local a" over-mvm
    git -C over-mvm log --format=%s && git -C over-mvm fsck --strict 2>/dev/null
  `)
  expect(log).toBe("second\nfirst\n")
  expect(readFileSync(at("over-mvm", "tree", "link"), "utf8").length).toBe(0)
}, 60_000)

test("tar unpacks on the other side what was packed on this one", async () => {
  mkdirSync(at("unpacked"))
  await host().serves("b", "untar", "--", "/bin/tar", "-xf", "-", "-C", at("unpacked"))
  await shell(`tar -cf - tree | ${host().mvm} guest connect b:untar --local a`)
  expect(await shell("diff -r --no-dereference tree unpacked/tree && echo same")).toBe("same\n")
}, 60_000)

test(`tar packs ${SMALL_WRITES} small writes into a pipe, and the other side unpacks them`, async () => {
  mkdirSync(at("blocks"))
  await host().serves("b", "untar-blocks", "--", "/bin/tar", "-xf", "-", "-C", at("blocks"))
  await shell(`head -c ${SMALL_WRITES * TAR_BLOCK_BYTES} /dev/urandom >packed`)
  // Each of its blocks is a write of its own.
  await shell(`tar -b 1 -cf - packed | ${host().mvm} guest connect b:untar-blocks --local a`)
  expect(await shell("cmp packed blocks/packed && echo same")).toBe("same\n")
}, 600_000)

test(`${SMALL_WRITES} small writes arrive whole and in order`, async () => {
  await host().serves("b", "sum", "--", "/usr/bin/sha256sum")
  // Unbuffered: each line is a write of its own.
  const lines = `perl -e '$| = 1; print "line $_\\n" for 1..${SMALL_WRITES}'`
  const [here, there] = (
    await shell(`${lines} | sha256sum; ${lines} | ${host().mvm} guest exec b sum --local a`)
  ).split("\n")
  expect(there).toBe(here!)
}, 600_000)

import { afterEach, describe, expect, test } from "bun:test"
import { chmodSync, copyFileSync, mkdtempSync, readFileSync, realpathSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { sha256 } from "../../src/lib/crypto.ts"
import { MvmError } from "../../src/lib/errors.ts"
import { ProgramIdentifier } from "../../src/guest/programs.ts"
import { identifyImage } from "../../src/platform/process.ts"

const started: Bun.Subprocess[] = []
const folders: string[] = []

afterEach(async () => {
  for (const child of started.splice(0)) {
    child.kill("SIGKILL")
    await child.exited
  }
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true })
})

function start(...command: string[]): Bun.Subprocess<"pipe", "pipe", "ignore"> {
  const child = Bun.spawn(command, { stdin: "pipe", stdout: "pipe", stderr: "ignore" })
  started.push(child)
  return child
}

/** A copy of `cat`, so that the file is nobody else's. */
function ownProgram(): string {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), "mvm-programs-")))
  folders.push(folder)
  const path = join(folder, "program")
  copyFileSync("/bin/cat", path)
  chmodSync(path, 0o755)
  return path
}

/** `execve` is over: the link names the program a moment before the rest of the image is its. */
async function running(child: Bun.Subprocess, path: string): Promise<void> {
  const isAsleep = (): boolean => /\) S /.test(readFileSync(`/proc/${child.pid}/stat`, "utf8"))
  while (realpathSync(`/proc/${child.pid}/exe`) !== path || !isAsleep()) await Bun.sleep(1)
}

async function codeOf(work: Promise<unknown>): Promise<string | undefined> {
  return work.then(
    () => undefined,
    (error: unknown) => (error instanceof MvmError ? error.code : String(error)),
  )
}

describe("the program of a process", () => {
  test("is its path and the digest of its content", async () => {
    const path = ownProgram()
    const child = start(path)
    await running(child, path)
    const program = await new ProgramIdentifier().identify(child.pid, 7)
    expect(program).toEqual({ path, digest: sha256(await Bun.file(path).bytes()), uid: 7 })
  })

  test("is the file it runs even when that was removed", async () => {
    const path = ownProgram()
    const digest = sha256(await Bun.file(path).bytes())
    const child = start(path)
    await running(child, path)
    rmSync(path)
    expect(await new ProgramIdentifier().identify(child.pid, 0)).toEqual({ path, digest, uid: 0 })
  })

  test("is refused for a process that is gone", async () => {
    const child = start("/bin/true")
    await child.exited
    expect(await codeOf(new ProgramIdentifier().identify(child.pid, 0))).toBe("refused")
  })

  test("is refused when the process ends while its program is read", async () => {
    const child = start(process.execPath, "-e", "await Bun.sleep(60000)")
    await running(child, realpathSync(process.execPath))
    // Reading 100 MB takes long enough for the end to come first.
    const identified = new ProgramIdentifier().identify(child.pid, 0)
    child.kill("SIGKILL")
    await child.exited
    expect(await codeOf(identified)).toBe("refused")
  })

  test("is refused when the process runs another program by the time the first is read", async () => {
    const script = `await Bun.stdin.stream().getReader().read(); const { dlopen, FFIType: T, ptr } = await import("bun:ffi")
      const { symbols } = dlopen("libc.so.6", { execv: { args: [T.ptr, T.ptr], returns: T.i32 } })
      const name = Buffer.from("/bin/cat\\0"); const argv = new BigUint64Array([BigInt(ptr(name)), 0n])
      symbols.execv(ptr(name), ptr(argv))`
    const child = start(process.execPath, "-e", script)
    await running(child, realpathSync(process.execPath))
    child.stdin.write("go\n")
    void child.stdin.flush()
    const outcomes: (string | undefined)[] = []
    const before = identifyImage(child.pid)!
    // Each identifier reads the whole file anew, until one is overtaken by the exec.
    for (let image = before; image.layout === before.layout; image = identifyImage(child.pid)!) {
      outcomes.push(await codeOf(new ProgramIdentifier().identify(child.pid, 0)))
    }
    expect(outcomes.at(-1)).toBe("refused")
    expect(identifyImage(child.pid)).toMatchObject({ startTicks: before.startTicks })
  })
})

import { afterAll, expect, test } from "bun:test"
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileProblem, type FileProblem } from "../../src/platform/vm-files.ts"

const folder = mkdtempSync(join(tmpdir(), "mvm-vm-files-"))
afterAll(() => rmSync(folder, { recursive: true }))
chmodSync(folder, 0o755)
const image = join(folder, "web.img")
writeFileSync(image, "x", { mode: 0o600 })

const MODULE = join(import.meta.dir, "../../src/platform/vm-files.ts")

/** As a process in other surroundings sees it. @param words what starts it there */
function seenBy(words: readonly string[], file: string): FileProblem | null {
  const code = `import { fileProblem } from ${JSON.stringify(MODULE)}
    console.log(JSON.stringify(fileProblem(${JSON.stringify(file)}, ${JSON.stringify(image)}) ?? null))`
  const child = Bun.spawnSync([...words, process.execPath, "-e", code], { cwd: "/" })
  expect(child.stderr.toString()).toBe("")
  return JSON.parse(child.stdout.toString()) as FileProblem | null
}

test("a file that can be opened is no problem; one that is not there, or a folder, is", () => {
  expect(fileProblem("disk", image)).toBeUndefined()
  expect(fileProblem("kernel", join(folder, "none"))).toEqual({ why: "no such file" })
  mkdirSync(join(folder, "sub"))
  expect(fileProblem("initrd", join(folder, "sub"))).toEqual({ why: "is a directory" })
})

test("a disk where nothing can be written is one, with the line for the service; a kernel there is none", () => {
  const readOnly = ["unshare", "--mount", "sh", "-ec"]
  const mount = `mount --bind ${folder} ${folder}; mount -o remount,bind,ro ${folder}; exec "$0" "$@"`
  expect(seenBy([...readOnly, mount], "disk")).toEqual({
    why: "read-only for the daemon",
    remedy: expect.stringContaining(`ReadWritePaths=${folder}`) as string,
  })
  expect(seenBy([...readOnly, mount], "kernel")).toBeNull()
})

test("a disk of another user is one, with the user to let in", () => {
  const asNobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
  expect(seenBy(asNobody, "disk")).toEqual({
    why: "permission denied",
    remedy: expect.stringContaining(`setfacl -m u:nobody:rw ${image}`) as string,
  })
})

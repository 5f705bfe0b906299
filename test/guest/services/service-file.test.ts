import { afterEach, describe, expect, test } from "bun:test"
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseService, readServices } from "../../../src/guest/services/service-file.ts"
import { MvmError } from "../../../src/lib/errors.ts"

let folder = ""

afterEach(() => {
  if (folder !== "") rmSync(folder, { recursive: true })
  folder = ""
})

function folderOf(files: Record<string, string>): string {
  folder = mkdtempSync(join(tmpdir(), "mvs-"))
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text, { mode: 0o644 })
  return folder
}

describe("a service file", () => {
  test("says all that the command line can", () => {
    const text = `
      command = ["/usr/bin/backup", "--all"]
      source = "web"
      user = "backup"
      directory = "/srv"
      environment = { LANG = "C", WORDS = "a b" }
      pty = true
      eof = "end"
      max_runs = 2
      max_time = "1.5m"
      max_bytes = "10M"
    `
    expect(parseService(text, "backup", "backup.toml")).toEqual({
      name: "backup",
      action: { kind: "command", command: ["/usr/bin/backup", "--all"] },
      source: "web",
      user: "backup",
      directory: "/srv",
      environment: { LANG: "C", WORDS: "a b" },
      endOfInput: "end",
      terminal: true,
      limits: { maxRuns: 2, maxMs: 90_000, maxBytes: 10 * 2 ** 20 },
    })
  })

  test.each([
    ['tcp = "127.0.0.1:5432"', { kind: "tcp", host: "127.0.0.1", port: 5432 }],
    ['tcp = "[::1]:80"', { kind: "tcp", host: "::1", port: 80 }],
    ['unix = "/run/db.sock"', { kind: "unix", path: "/run/db.sock" }],
  ] as const)("may be a socket: %s", (text, address) => {
    expect(parseService(text, "db", "db.toml").action).toEqual({ kind: "socket", address })
  })

  test("may be a folder to copy to and from, whose limit on bytes is of content", () => {
    const text = 'copy = "/srv/in"\nwrite_only = true\nmax_bytes = "1K"\nmax_files = 5\nlinks = "all"'
    const { action, limits } = parseService(text, "cp", "cp.toml")
    expect(action).toEqual({
      kind: "copy",
      copy: {
        folder: "/srv/in",
        mayRead: false,
        mayWrite: true,
        limits: { maxBytes: 1024, maxFiles: 5, minFreeBytes: 0 },
        links: "all",
      },
    })
    expect(limits.maxBytes).toBeUndefined()
  })

  test.each([
    ['command = ["x"]\ncomand = 1', '2:1: unknown key "comand"'],
    ['\n\ntcp = "nowhere"', "3:1: tcp: expected HOST:PORT, as in 127.0.0.1:5432"],
    ['tcp = "1.2.3.4:99999"', "1:1: tcp: expected HOST:PORT, as in 127.0.0.1:5432"],
    ['unix = ""', "1:1: unix: expected the path of a socket, at most 107 bytes"],
    ['command = ["x"]\ntcp = "localhost:1"', "2:1: expected one of command, tcp, unix, copy"],
    ["max_runs = 1", "1:1: expected one of command, tcp, unix, copy"],
    ['tcp = "localhost:1"\nuser = "web"', "2:1: user: goes with command"],
    ['tcp = "localhost:1"\nlinks = "all"', "2:1: links: goes with copy"],
    ['copy = "/srv"\npty = true', "2:1: pty: goes with command"],
    [
      'copy = "/srv"\nread_only = true\nwrite_only = true',
      "3:1: read_only and write_only exclude each other",
    ],
    ['copy = "srv"', "1:1: copy: expected an absolute path"],
    ["command = []", "1:1: command: expected a program"],
    ['command = "rm -rf /"', "1:1: command: expected a list of words, the program first"],
    ['command = ["a\\u001bb"]', "1:12: command: expected text without control characters"],
    ['command = ["x"]\neof = "maybe"', "2:1: eof: expected one of close, end, ignore"],
    ['command = ["x"]\nmax_runs = 0', "2:1: max_runs: expected a whole number from 1 to 1000000"],
    ['command = ["x"]\nmax_time = "soon"', '2:1: max_time: expected a time, as in "30s" or "5m"'],
    ['command = ["x"]\nmax_time = "60d"', '2:1: max_time: expected a time, as in "30s" or "5m"'],
    ['command = ["x"]\nmax_bytes = "many"', '2:1: max_bytes: expected a size, as in "512K" or "1G"'],
    [
      'command = ["x"]\nsource = "-x"',
      "2:1: source: expected a name out of A-Z a-z 0-9 . _ -, at most 64 characters",
    ],
    ['command = ["x"]\ndirectory = "here"', "2:1: directory: expected an absolute path"],
    [
      'command = ["x"]\nenvironment = { MVM_PEER = "me" }',
      "2:17: MVM_PEER: expected the name of a variable, letters, digits and _, not MVM_...",
    ],
    ['command = ["x"\n', "2:1: expected comma or end of structure"],
  ])("%j is refused with its place", (text, message) => {
    let said = ""
    try {
      parseService(text, "db", "db.toml")
    } catch (error) {
      said = error instanceof MvmError && error.code === "config" ? error.message : String(error)
    }
    expect(said).toBe(`db.toml:${message}`)
  })
})

describe("a folder of service files", () => {
  test("gives the services of the good ones, and says of each other what is wrong with it", () => {
    const at = folderOf({
      "a.toml": 'tcp = "127.0.0.1:1"',
      "b.toml": "oops = 1",
      "c.toml": 'command = ["/bin/cat"]',
      "d e.toml": 'command = ["/bin/cat"]',
      "notes.txt": "not a service",
      ".hidden.toml": "nor this",
    })
    const { definitions, failures } = readServices(at)
    expect([...definitions.keys()]).toEqual(["a", "c"])
    expect(failures.map(({ message }) => message.replace(at, ""))).toEqual([
      '/b.toml:1:1: unknown key "oops"',
      "/d e.toml: d e cannot name a service",
    ])
  })

  test("is not believed where others could have written it", () => {
    const at = folderOf({ "a.toml": 'command = ["/bin/cat"]' })
    chmodSync(join(at, "a.toml"), 0o666)
    const { definitions, failures } = readServices(at)
    expect([definitions.size, failures[0]?.code]).toEqual([0, "refused"])
  })

  test("that is not there is an error", () => {
    expect(() => readServices("/nowhere/at/all")).toThrow("cannot read /nowhere/at/all: ENOENT")
  })
})

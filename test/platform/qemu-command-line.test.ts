import { describe, expect, test } from "bun:test"
import { identifyProcess, type ProcessId } from "../../src/platform/process.ts"
import { memberArgs, type MemberParts } from "../../src/platform/qemu-args.ts"
import { launchFilesOfCommandLine, requireArguments } from "../../src/platform/qemu-command-line.ts"

const PARTS: MemberParts = {
  arena: { path: "/dev/shm/mvm-1", sizeBytes: 2 ** 26 },
  vtpmControlSocket: "/run/a/tpm.ctrl",
  linkSocket: "/run/a/link.sock",
  qmpSocket: "/run/a/qmp.sock",
}
const self = identifyProcess(process.pid) as ProcessId
const needed = memberArgs(PARTS, "pc")
const whole = ["qemu-system-x86_64", "-machine", "pc", "-kernel", "/k", ...needed, "-m", "512"]

describe("the arguments that the MVM gave", () => {
  test("are all there, in whatever order", () => {
    requireArguments(whole, needed)
    requireArguments(["qemu-system-x86_64", ...needed, "-nographic"], needed)
  })

  test.each(needed.map((word, index) => [word, index] as const).filter(([word]) => word.startsWith("-")))(
    "are refused without one of them: %s",
    (_option, index) => {
      const without = [...needed.slice(0, index), ...needed.slice(index + 2)]
      expect(() => requireArguments(["qemu", ...without], needed)).toThrow("it was started without")
    },
  )

  test("are refused where suspend is switched on again behind them", () => {
    const undone = [...whole, "-global", "PIIX4_PM.disable_s3=0"]
    expect(() => requireArguments(undone, needed)).toThrow("disable_s3=0")
  })
})

describe("what a command line starts", () => {
  test("is its kernel, initrd, words and firmware", () => {
    const words = [...whole, "-initrd", "/i", "-append", "a b"]
    expect(launchFilesOfCommandLine(self, words, "pc")).toMatchObject({
      kernel: "/k",
      initrd: "/i",
      append: "a b",
      firmware: expect.stringContaining("seabios") as string,
    })
  })

  test.each([
    [["-incoming", "tcp:0:4444"]],
    [["-loadvm", "x"]],
    [["-readconfig", "/f"]],
    [["-machine", "pc,kernel=/other"]],
    [["-bios", "/tmp/evil.bin"]],
    [["-drive", "if=pflash,unit=0,file=/tmp/evil.fd"]],
    [["-pflash", "/usr/share/OVMF/../../tmp/evil.fd"]],
  ])("is refused where it cannot be told or vouched for: %p", (more) => {
    expect(() => launchFilesOfCommandLine(self, [...whole, ...more], "pc")).toThrow()
  })
})

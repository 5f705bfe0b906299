import { describe, expect, test } from "bun:test"
import { identifyProcess, type ProcessId } from "../../src/platform/process.ts"
import { memberArgs, type MemberParts } from "../../src/platform/qemu-args.ts"
import {
  judgeLibvirtCommandLine,
  launchFilesOfCommandLine,
  requireArguments,
} from "../../src/platform/qemu-command-line.ts"

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
    const inWords = [...whole, "-global", "driver=PIIX4_PM,property=disable_s4,value=0"]
    expect(() => requireArguments(inWords, needed)).toThrow("property=disable_s4")
  })

  test("are refused where a reset is let happen again behind them", () => {
    const undone = [...whole, "-action", "panic=pause,reboot=reset"]
    expect(() => requireArguments(undone, needed)).toThrow("reboot=reset")
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
    [["-L", "/tmp/roms"]],
    [["-machine", "pc,kernel=/other"]],
    [["-bios", "/tmp/evil.bin"]],
    [["-drive", "if=pflash,unit=0,file=/tmp/evil.fd"]],
    [["-pflash", "/usr/share/OVMF/../../tmp/evil.fd"]],
  ])("is refused where it cannot be told or vouched for: %p", (more) => {
    expect(() => launchFilesOfCommandLine(self, [...whole, ...more], "pc")).toThrow()
  })
})

describe("the command line of a libvirt domain", () => {
  const files = {
    qemu: "/usr/bin/qemu-system-x86_64",
    firmware: "/usr/share/seabios/bios-256k.bin",
    kernel: "/boot/vmlinuz",
    initrd: "/boot/initrd.img",
    append: "console=ttyS0 quiet",
    machine: "pc" as const,
  }
  /** As libvirt 9.0 writes them, without most devices. */
  const begin = ["/usr/bin/qemu-system-x86_64", "-name", "guest=web,debug-threads=on", "-S"]
  const end = [
    ...["-accel", "tcg", "-cpu", "max", "-m", "768", "-overcommit", "mem-lock=off"],
    ...["-uuid", "780faa4f-24bd-4439-8e99-bbb197f85cf6", "-no-user-config", "-nodefaults"],
    ...["-rtc", "base=utc", "-no-shutdown", "-boot", "strict=on", "-kernel", "/boot/vmlinuz"],
    ...["-initrd", "/boot/initrd.img", "-append", "console=ttyS0 quiet", "-msg", "timestamp=on"],
  ]
  const off = (chipset: string) => [
    "-global",
    `${chipset}.disable_s3=1`,
    "-global",
    `${chipset}.disable_s4=1`,
  ]
  const usual = "usb=off,dump-guest-core=off,memory-backend=pc.ram"
  const pc = [...begin, "-machine", `pc-i440fx-7.2,${usual}`, ...off("PIIX4_PM"), ...end]
  const flash = (filename: string) => {
    const storage = { driver: "file", filename, "node-name": "libvirt-pflash0-storage", discard: "unmap" }
    return ["-blockdev", JSON.stringify(storage)]
  }
  const machine = `pc-q35-7.2,${usual},pflash0=libvirt-pflash0-format,pflash1=libvirt-pflash1-format`
  const q35 = (code: string) => [...begin, ...flash(code), "-machine", machine, ...off("ICH9-LPC"), ...end]

  test("is accepted as libvirt makes it", () => {
    judgeLibvirtCommandLine(pc, files)
    judgeLibvirtCommandLine(q35("/usr/share/OVMF/OVMF_CODE_4M.fd"), { ...files, machine: "q35" })
  })

  test.each([
    [["-incoming", "defer"], "-incoming"],
    [["-loadvm", "before"], "-loadvm"],
    [["-readconfig", "/tmp/more"], "-readconfig"],
    [["-L", "/tmp/roms"], "-L"],
    [["-global", "PIIX4_PM.disable_s3=0"], "disable_s3=0"],
    [["-global", "driver=PIIX4_PM,property=disable_s3,value=off"], "property=disable_s3"],
    [["-action", "reboot=reset"], "reboot=reset"],
    [["-bios", "/tmp/evil.bin"], "/tmp/evil.bin"],
    [["-drive", "if=pflash,unit=0,file=/tmp/evil.fd"], "/tmp/evil.fd"],
    [["-machine", "pflash0=other"], "pflash0=other"],
    [["-machine", "pflash0=libvirt-pflash1-format"], "pflash0=libvirt-pflash1-format"],
    [["-machine", "kernel=/tmp/evil"], "kernel=/tmp/evil"],
    [["-kernel", "/tmp/evil"], "-kernel /tmp/evil"],
    [["-initrd", "/tmp/evil"], "-initrd /tmp/evil"],
    [["-append", "init=/bin/sh"], "-append init=/bin/sh"],
  ])("is refused with words of the domain's own that a guest could gain by: %p", (more, named) => {
    expect(() => judgeLibvirtCommandLine([...pc, ...more], files)).toThrow(named)
  })

  test("is refused without the switches of its chipset, and with other firmware", () => {
    const awake = pc.filter((word) => word !== "PIIX4_PM.disable_s3=1")
    expect(() => judgeLibvirtCommandLine(awake, files)).toThrow("PIIX4_PM.disable_s3=1")
    expect(() => judgeLibvirtCommandLine(pc, { ...files, machine: "q35" })).toThrow("ICH9-LPC")
    const evil = q35("/tmp/evil.fd")
    expect(() => judgeLibvirtCommandLine(evil, { ...files, machine: "q35" })).toThrow("/tmp/evil.fd")
  })
})

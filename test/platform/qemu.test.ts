/** @module test/platform/qemu */

import { afterAll, describe, expect, test } from "bun:test"
import { chmodSync, existsSync, mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { MvmError } from "../../src/lib/errors.ts"
import { hashFile, hashLaunch, launchFilesOf } from "../../src/platform/launch-digest.ts"
import {
  isKnownFirmware,
  kernelAppend,
  qemuArgs,
  qemuProgram,
  usualFirmware,
  usualMachine,
} from "../../src/platform/qemu-args.ts"
import { launchQemu } from "../../src/platform/qemu.ts"
import { startSwtpm } from "../../src/platform/swtpm.ts"
import { qemuFixture } from "./qemu-fixture.ts"

const fixture = qemuFixture()
const { folder, options } = fixture
afterAll(fixture.remove)

async function failure(run: () => unknown): Promise<MvmError> {
  try {
    await run()
  } catch (error) {
    if (error instanceof MvmError) return error
    throw error
  }
  throw new Error("nothing failed")
}

/** The value after `flag` that starts with `start`. */
function argument(args: string[], flag: string, start = ""): string | undefined {
  return args.find((arg, at) => args[at - 1] === flag && arg.startsWith(start))
}

describe("qemuArgs", () => {
  test("gives a VM no network card, no display and no defaults", () => {
    const args = qemuArgs(options)
    expect(argument(args, "-nic")).toBe("none")
    expect(args).toContain("-nodefaults")
    expect(args).toContain("-no-user-config")
    expect(argument(args, "-display")).toBe("none")
  })

  test("switches suspend to memory and disk off on each x86 chipset", () => {
    expect(qemuArgs(options)).toContain("PIIX4_PM.disable_s3=1")
    expect(qemuArgs(options)).toContain("PIIX4_PM.disable_s4=1")
    const q35 = qemuArgs({ ...options, machine: "q35" })
    expect(q35).toContain("ICH9-LPC.disable_s3=1")
    expect(q35).toContain("ICH9-LPC.disable_s4=1")
  })

  test("ends at a guest's reset, so that the manager starts the next boot", () => {
    expect(argument(qemuArgs(options), "-action")).toBe("reboot=shutdown,panic=shutdown")
  })

  test("attaches the vtpm without a physical presence interface", () => {
    expect(argument(qemuArgs(options), "-device", "tpm-crb")).toBe("tpm-crb,tpmdev=tpm0,ppi=off")
  })

  test("makes an arm64 VM of the virt machine, with its own TPM, console and ports for hot-plug", () => {
    const virt = {
      ...options,
      machine: "virt" as const,
      firmware: "ovmf" as const,
      firmwareVars: join(folder, "vars"),
      append: kernelAppend("virt"),
    }
    const args = qemuArgs(virt)
    expect(qemuProgram("virt")).toBe("qemu-system-aarch64")
    expect(argument(args, "-machine")).toStartWith("virt,")
    expect(argument(args, "-device", "tpm-")).toBe("tpm-tis-device,tpmdev=tpm0")
    expect(argument(args, "-append")).toStartWith("console=ttyAMA0 ")
    expect(argument(args, "-drive", "if=pflash")).toContain("AAVMF_CODE.fd")
    expect(args.filter((arg) => arg.startsWith("pcie-root-port,"))).toHaveLength(8)
    expect(args.join(" ")).not.toMatch(/PIIX4|ICH9|vmport|ttyS0/)
  })

  test("refuses SeaBIOS on arm64, which has none", async () => {
    const wrong = { ...options, machine: "virt" as const }
    expect((await failure(() => qemuArgs(wrong))).message).toContain("ovmf only")
  })

  test.each([
    ["x64", "pc", "seabios"],
    ["arm64", "virt", "ovmf"],
  ] as const)("on a host of %s a VM that nobody chose for is %s with %s", (arch, machine, firmware) => {
    expect(usualMachine(arch)).toBe(machine)
    expect(usualFirmware(machine)).toBe(firmware)
  })

  test("names the link port", () => {
    expect(argument(qemuArgs(options), "-device", "virtserialport")).toContain(",name=org.mvm.0")
  })

  test("doubles the commas of a path", () => {
    const args = qemuArgs({ ...options, linkSocket: "/tmp/a,server=off" })
    expect(argument(args, "-chardev", "socket,id=link")).toContain("path=/tmp/a,,server=off,server=on")
  })

  test("shares the arena's file, and takes only a power of two", async () => {
    const args = qemuArgs({ ...options, arena: { path: "/dev/shm/a", sizeBytes: 1 << 20 } })
    expect(argument(args, "-object")).toBe(
      "memory-backend-file,id=arena,mem-path=/dev/shm/a,size=1048576,share=on",
    )
    expect(argument(args, "-device", "ivshmem-plain")).toBe("ivshmem-plain,id=arena0,memdev=arena")
    const wrong = { ...options, arena: { path: "/dev/shm/a", sizeBytes: 3 << 20 } }
    expect((await failure(() => qemuArgs(wrong))).message).toContain("arena")
  })

  test("gives ovmf this VM's own variable store, read-only code, and asks for it", async () => {
    const args = qemuArgs({ ...options, firmware: "ovmf", firmwareVars: "/vars" })
    expect(argument(args, "-drive", "if=pflash,format=raw,unit=0")).toEndWith(",readonly=on")
    expect(argument(args, "-drive", "if=pflash,format=raw,unit=1")).toEndWith("file=/vars")
    expect((await failure(() => qemuArgs({ ...options, firmware: "ovmf" }))).code).toBe("config")
  })

  test("never lets a disk's contents choose its format", () => {
    expect(argument(qemuArgs({ ...options, disk: "/d.img" }), "-drive")).toContain("format=raw")
    expect(argument(qemuArgs({ ...options, disk: "/d.qcow2" }), "-drive")).toContain("format=qcow2")
  })

  test.each([
    ["name", { name: "a,b" }],
    ["memoryMiB", { memoryMiB: 1 }],
    ["cpus", { cpus: 0 }],
    ["append", { append: "a\nb" }],
    ["kernel", { kernel: "relative" }],
    ["qmpSocket", { qmpSocket: `/${"x".repeat(120)}` }],
  ])("refuses a wrong %s by its name", async (field, change) => {
    const error = await failure(() => qemuArgs({ ...options, ...change }))
    expect(error.code).toBe("config")
    expect(error.message).toStartWith(`${field}:`)
  })
})

describe("launchQemu", () => {
  const log = join(folder, "qemu.log")

  test("names a kernel that is not there", async () => {
    const error = await failure(() => launchQemu({ ...options, kernel: "/nonexistent/vmlinuz" }, log))
    expect(error.code).toBe("not_found")
    expect(error.message).toBe("kernel: /nonexistent/vmlinuz: no such file")
  })

  test("names an initrd that is a folder", async () => {
    const error = await failure(() => launchQemu({ ...options, initrd: folder }, log))
    expect(error.message).toBe(`initrd: ${folder}: is a directory`)
  })

  test("says what to install when there is no qemu", async () => {
    const path = process.env["PATH"]
    process.env["PATH"] = folder
    const error = await failure(() => launchQemu(options, log)).finally(() => (process.env["PATH"] = path))
    expect(error.code).toBe("setup")
    expect(error.hint).toContain("qemu-system-x86")
  })

  test("reports a kernel that qemu cannot load", async () => {
    const kernel = join(folder, "empty")
    writeFileSync(kernel, "")
    const stateDir = join(folder, "tpm")
    mkdirSync(stateDir)
    const vtpm = await startSwtpm({
      stateDir,
      stateKey: crypto.getRandomValues(new Uint8Array(32)),
      controlSocket: options.vtpmControlSocket,
      logFile: join(folder, "swtpm.log"),
    })
    try {
      const error = await failure(() => launchQemu({ ...options, kernel }, log))
      expect(error.code).toBe("qemu")
      expect(error.message).toContain("kernel")
    } finally {
      await vtpm.stop()
    }
  })

  test("reports in qemu's own words why it ended at its start, and leaves no socket", async () => {
    const error = await failure(() => launchQemu(options, log))
    expect(error.code).toBe("qemu")
    expect(error.message).toContain(options.vtpmControlSocket)
    expect(error.message).not.toContain("\n")
    for (const path of [options.qmpSocket, options.linkSocket, options.consoleSocket]) {
      expect(existsSync(path)).toBe(false)
    }
  })
})

describe("hashLaunch", () => {
  test("digests everything that starts a VM", async () => {
    const digests = await hashLaunch(launchFilesOf({ ...options, append: "abc" }))
    const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    expect(digests.kernel).toBe(await hashFile(options.kernel))
    expect(digests.initrd).toBe(empty)
    expect(digests.append).toBe("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    expect(digests.qemu).toMatch(/^[0-9a-f]{64}$/)
    expect(digests.firmware).toMatch(/^[0-9a-f]{64}$/)
  })

  test("sees a file that was replaced by one of the same size", async () => {
    const path = join(folder, "changing")
    writeFileSync(path, "one")
    const first = await hashFile(path)
    expect(await hashFile(path)).toBe(first)
    writeFileSync(path, "two")
    expect(await hashFile(path)).not.toBe(first)
  })

  test("names a file it cannot read", async () => {
    const missing = await failure(() => hashFile("/nonexistent"))
    expect(missing.code).toBe("not_found")
    const place = join(folder, "a-folder")
    mkdirSync(place)
    chmodSync(place, 0o700)
    expect((await failure(() => hashFile(place))).code).toBe("io")
  })
})

test.each([
  ["/usr/share/seabios/bios-256k.bin", true],
  ["/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", true],
  ["/usr/share/qemu/OVMF.fd", true],
  ["/usr/share/qemu/edk2-x86_64-code.fd", true],
  ["/usr/share/AAVMF/AAVMF_CODE.fd", true],
  ["/usr/share/qemu/qboot.rom", false],
  ["/usr/share/qemu/bios-microvm.bin", false],
  ["/usr/share/OVMF/../qemu/qboot.rom", false],
  ["/usr/share/seabios/sub/bios.bin", false],
  ["/srv/OVMF/OVMF_CODE.fd", false],
] as const)("%s is firmware that can be vouched for: %p", (path, isKnown) => {
  expect(isKnownFirmware(path)).toBe(isKnown)
})

import { describe, expect, test } from "bun:test"
import { fromHex } from "../../../src/lib/bytes.ts"
import { authenticodeSha256 } from "../../../src/tcb/measurement/authenticode.ts"
import { parseEventLog } from "../../../src/tcb/measurement/event-log.ts"
import { pcr4Of, predictOvmfPcr9, predictOvmfPcrs } from "../../../src/tcb/measurement/predict.ts"
import { qemuKernelImage } from "../../../src/tcb/measurement/qemu-kernel.ts"
import authenticode from "../../vectors/authenticode.json"
import { MvmError } from "../../../src/lib/errors.ts"
import { OVMF_BOOT, SEABIOS_BOOT, codeOf } from "./measured-boots.ts"

/** EV_EFI_BOOT_SERVICES_APPLICATION */
const APPLICATION = 0x80000003

const images = authenticode.cases.map(({ name, image, digest }) => ({
  name,
  image: Bun.gunzipSync(Uint8Array.fromBase64(image)),
  digest: fromHex(digest),
}))

describe("the digest of an efi application", () => {
  test.each(images)("is the one that pesign computes: $name", ({ image, digest }) => {
    expect(authenticodeSha256(image)).toEqual(digest)
  })

  test("does not change with the checksum, and does with any byte that is loaded", () => {
    const { image, digest } = images[0]!
    expect(authenticodeSha256(image.with(0x58 + 64, 0x99))).toEqual(digest)
    expect(authenticodeSha256(image.with(0x300, 0x99))).not.toEqual(digest)
  })

  test("of an image cut anywhere, or with any byte of its headers changed, is a digest or an error of its own", () => {
    const { image } = images.at(-1)!
    const survive = (bytes: Uint8Array): void => {
      try {
        authenticodeSha256(bytes)
      } catch (error) {
        expect((error as MvmError).code).toBe("config")
      }
    }
    for (let cut = 0; cut < image.length; cut += 1) survive(image.subarray(0, cut))
    for (let at = 0; at < 0x200; at += 1) survive(image.with(at, image[at]! ^ 0xff))
    expect(codeOf(() => authenticodeSha256(new Uint8Array(1000)))).toBe("config")
  })
})

describe("what ovmf measures of a kernel it is given", () => {
  test("pcr 4 of a real boot follows from the digest of the image", () => {
    const application = parseEventLog(OVMF_BOOT.eventLog).find((event) => event.eventType === APPLICATION)
    expect(pcr4Of(application!.digest)).toEqual(OVMF_BOOT.pcrs[4]!)
  })

  test("pcr 9 of a real boot follows from command line and initrd", () => {
    expect(predictOvmfPcr9(OVMF_BOOT.commandLine, OVMF_BOOT.initrdSha256)).toEqual(OVMF_BOOT.pcrs[9]!)
  })

  test("pcr 9 changes with the command line", () => {
    const other = predictOvmfPcr9(`${OVMF_BOOT.commandLine} init=/bin/sh`, OVMF_BOOT.initrdSha256)
    expect(other).not.toEqual(OVMF_BOOT.pcrs[9]!)
  })

  test("seabios measures none of the three", () => {
    expect(SEABIOS_BOOT.pcrs[9]).toEqual(new Uint8Array(32))
  })

  test("an image without a linux header is predicted as it is", () => {
    const { image, digest } = images[0]!
    const pcrs = predictOvmfPcrs({
      kernel: image,
      initrd: undefined,
      commandLine: "a",
      machine: "pc",
      memoryBytes: 1,
    })
    expect(pcrs.get(4)).toEqual([pcr4Of(digest)])
    expect(pcrs.get(9)).toEqual([predictOvmfPcr9("a", undefined)])
  })
})

describe("the setup header that qemu fills in", () => {
  /** A boot protocol 2.15 header, loaded high, loadable above 4 GiB. */
  function kernel(): Uint8Array {
    const image = new Uint8Array(0x1000)
    const view = new DataView(image.buffer)
    view.setUint32(0x202, 0x53726448, true)
    view.setUint16(0x206, 0x20f, true)
    view.setUint8(0x211, 1)
    view.setUint16(0x236, 0x7f, true)
    return image
  }

  /** Fields that differ, as [offset, value] of 32-bit words. */
  function patched(machine: "pc" | "q35", memoryBytes: number, initrdBytes: number): Record<string, number> {
    const view = new DataView(qemuKernelImage(kernel(), { machine, memoryBytes, initrdBytes })!.buffer)
    return {
      loader: view.getUint16(0x210, true),
      initrd: view.getUint32(0x218, true),
      initrdSize: view.getUint32(0x21c, true),
      heapEnd: view.getUint16(0x224, true),
      commandLine: view.getUint32(0x228, true),
    }
  }

  test("has loader, heap, command line and initrd", () => {
    expect(patched("pc", 512 << 20, 2_000_000)).toEqual({
      loader: 0x81b0,
      initrd: 0x1fdef000,
      initrdSize: 2_000_000,
      heapEnd: 0xfe00,
      commandLine: 0x20000,
    })
  })

  test("puts the initrd below the pci hole of the machine", () => {
    const gib = 1024 ** 3
    expect(patched("pc", 4 * gib, 4096).initrd).toBe(0xbffd6000)
    expect(patched("q35", 4 * gib, 4096).initrd).toBe(0x7ffd6000)
    expect(patched("q35", 2 * gib, 4096).initrd).toBe(0x7ffd6000)
  })

  test("is left alone without an initrd, and is not made up for what is no kernel", () => {
    expect(patched("pc", 512 << 20, 0)).toMatchObject({ initrd: 0, initrdSize: 0 })
    expect(
      qemuKernelImage(new Uint8Array(0x1000), { machine: "pc", memoryBytes: 1, initrdBytes: 0 }),
    ).toBeUndefined()
    expect(
      qemuKernelImage(new Uint8Array(10), { machine: "pc", memoryBytes: 1, initrdBytes: 0 }),
    ).toBeUndefined()
  })
})

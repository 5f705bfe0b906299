/**
 * @module tcb/measurement/predict
 *
 * What PCRs 4 and 9 will hold when OVMF starts a kernel given with `-kernel`, `-initrd` and `-append`, from the
 * files the manager starts. SeaBIOS measures none of the three; there the manager's own digests are all there is.
 *
 * @spec EDK2 OvmfPkg QemuBootOrder/TryRunningQemuKernel, DxeTpm2MeasureBootLib, Tcg2Dxe;
 *   Linux drivers/firmware/efi/libstub/efi-stub-helper.c (command line and initrd into PCR 9)
 */

import { utf8 } from "../../lib/bytes.ts"
import { sha256 } from "../../lib/crypto.ts"
import { authenticodeSha256 } from "./authenticode.ts"
import { qemuKernelImage, type QemuLoad } from "./qemu-kernel.ts"

/** TCG event strings and values. @spec PC Client Firmware Profile §10.4 */
const CALLING_EFI_APPLICATION = "Calling EFI Application from Boot Option"
const SEPARATOR = new Uint8Array(4)

/** What OVMF puts behind the command line when there is an initrd. */
const INITRD_ARGUMENT = " initrd=initrd"

export interface BootFiles extends Omit<QemuLoad, "initrdBytes"> {
  /** A PE image: a bzImage with EFI stub. */
  readonly kernel: Uint8Array
  /** The 32-byte digest and size are enough. None: PCR 9 has the command line alone. */
  readonly initrd: { readonly sha256: Uint8Array; readonly lengthBytes: number } | undefined
  readonly commandLine: string
}

/**
 * Predicted sha256 PCRs by index, 32 bytes each. PCR 4 has two values, since QEMU may hand out the kernel with its
 * setup header filled in (first) or as it is; PCR 9 has one.
 *
 * @throws MvmError `config` when the kernel is no PE image.
 */
export function predictOvmfPcrs(boot: BootFiles): Map<number, Uint8Array[]> {
  const { kernel, commandLine, initrd } = predictOvmfEvents(boot)
  return new Map([
    [4, kernel.map(pcr4Of)],
    [9, [pcr9Of(commandLine, initrd)]],
  ])
}

/** 32-byte digests of the events that OVMF and the kernel's EFI stub will log. */
export interface OvmfEvents {
  /** PCR 4, one of these. */
  readonly kernel: readonly Uint8Array[]
  /** PCR 9 */
  readonly commandLine: Uint8Array
  /** PCR 9, next */
  readonly initrd: Uint8Array | undefined
}

/** @throws MvmError `config` when the kernel is no PE image. */
export function predictOvmfEvents(boot: BootFiles): OvmfEvents {
  const { kernel, initrd, commandLine } = boot
  const patched = qemuKernelImage(kernel, { ...boot, initrdBytes: initrd?.lengthBytes ?? 0 })
  const images = patched === undefined ? [kernel] : [patched, kernel]
  return {
    kernel: images.map(authenticodeSha256),
    commandLine: loadOptionsDigest(commandLine, initrd !== undefined),
    initrd: initrd?.sha256,
  }
}

/** PCR 4 from the Authenticode digest of the image that firmware sees. */
export function pcr4Of(imageDigest: Uint8Array): Uint8Array {
  return extendAll([imageDigest, sha256(utf8(CALLING_EFI_APPLICATION)), sha256(SEPARATOR)])
}

/** PCR 9 from the digests of its two events; the second is there when there is an initrd. */
export function pcr9Of(loadOptions: Uint8Array, initrdSha256: Uint8Array | undefined): Uint8Array {
  return extendAll(initrdSha256 === undefined ? [loadOptions] : [loadOptions, initrdSha256])
}

/** PCR 9 from the command line and the 32-byte digest of the initrd, if there is one. */
export function predictOvmfPcr9(commandLine: string, initrdSha256: Uint8Array | undefined): Uint8Array {
  return pcr9Of(loadOptionsDigest(commandLine, initrdSha256 !== undefined), initrdSha256)
}

function loadOptionsDigest(commandLine: string, hasInitrd: boolean): Uint8Array {
  return sha256(utf16le(`${commandLine}${hasInitrd ? INITRD_ARGUMENT : ""}\0`))
}

function extendAll(digests: readonly Uint8Array[]): Uint8Array {
  return digests.reduce<Uint8Array>((pcr, digest) => sha256(pcr, digest), new Uint8Array(32))
}

function utf16le(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, "utf16le"))
}

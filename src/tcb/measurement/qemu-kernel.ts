/**
 * @module tcb/measurement/qemu-kernel
 *
 * The kernel image as firmware reads it from QEMU: `-kernel` fills in the boot loader's fields of the Linux setup
 * header (loader type, heap, command line and initrd addresses), and OVMF measures that. The rest is the file as
 * it is. QEMU leaves the file alone for encrypted VMs and where a newer version hands the original out.
 *
 * @spec QEMU hw/i386/x86.c (x86_load_linux), Linux Documentation/arch/x86/boot.rst
 */

// Specification: offsets in the setup header.
const HEADER_MAGIC_AT = 0x202
const HEADER_MAGIC = 0x53726448
const PROTOCOL_AT = 0x206
const LOADER_TYPE_AT = 0x210
const LOAD_FLAGS_AT = 0x211
const RAMDISK_IMAGE_AT = 0x218
const RAMDISK_SIZE_AT = 0x21c
const HEAP_END_AT = 0x224
const COMMAND_LINE_AT = 0x228
const INITRD_MAX_AT = 0x22c
const XLOAD_FLAGS_AT = 0x236
const LOADED_HIGH = 0x01
const CAN_USE_HEAP = 0x80
const CAN_BE_LOADED_ABOVE_4G = 0x02

// QEMU's choices.
const LOADER_QEMU = 0xb0
const REAL_MODE_ADDRESS = 0x10000
const COMMAND_LINE_ADDRESS = 0x20000
const ACPI_DATA_BYTES = 0x20000 + 0x8000

export interface QemuLoad {
  readonly machine: "pc" | "q35"
  /** RAM of the VM, bytes */
  readonly memoryBytes: number
  /** 0 when there is no initrd */
  readonly initrdBytes: number
}

/**
 * The image after QEMU's changes, or undefined when it is no bzImage of boot protocol 2.06 or newer loaded high
 * (QEMU then places things otherwise, and no kernel with an EFI stub is such).
 */
export function qemuKernelImage(kernel: Uint8Array, load: QemuLoad): Uint8Array | undefined {
  if (kernel.length < 0x264) return undefined
  const image = kernel.slice()
  const view = new DataView(image.buffer)
  const protocol = view.getUint16(PROTOCOL_AT, true)
  const flags = view.getUint8(LOAD_FLAGS_AT)
  if (view.getUint32(HEADER_MAGIC_AT, true) !== HEADER_MAGIC || protocol < 0x206 || !(flags & LOADED_HIGH)) {
    return undefined
  }
  view.setUint32(COMMAND_LINE_AT, COMMAND_LINE_ADDRESS, true)
  view.setUint8(LOADER_TYPE_AT, LOADER_QEMU)
  view.setUint8(LOAD_FLAGS_AT, flags | CAN_USE_HEAP)
  view.setUint16(HEAP_END_AT, COMMAND_LINE_ADDRESS - REAL_MODE_ADDRESS - 0x200, true)
  if (load.initrdBytes > 0) {
    const above4g = protocol >= 0x20c && (view.getUint16(XLOAD_FLAGS_AT, true) & CAN_BE_LOADED_ABOVE_4G) !== 0
    const wanted = above4g ? 0xffffffff : view.getUint32(INITRD_MAX_AT, true)
    const below = below4g(load) - ACPI_DATA_BYTES
    const initrdMax = wanted >= below ? below - 1 : wanted
    const address = Math.floor((initrdMax - load.initrdBytes) / 4096) * 4096
    if (address < 0) return undefined
    view.setUint32(RAMDISK_IMAGE_AT, address, true)
    view.setUint32(RAMDISK_SIZE_AT, load.initrdBytes, true)
  }
  return image
}

/** RAM below the PCI hole. @spec QEMU hw/i386/pc_piix.c, pc_q35.c */
function below4g({ machine, memoryBytes }: QemuLoad): number {
  if (machine === "pc") return memoryBytes >= 0xe0000000 ? 0xc0000000 : memoryBytes
  return memoryBytes >= 0xb0000000 ? 0x80000000 : memoryBytes
}

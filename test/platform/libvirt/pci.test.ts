import { describe, expect, test } from "bun:test"
import { Domain } from "../../../src/platform/libvirt/domain.ts"
import { refuseConflicts } from "../../../src/platform/libvirt/elements.ts"
import { emptyPorts, freeSlots } from "../../../src/platform/libvirt/pci.ts"

const PARTS = { arena: { name: "mvm-a", sizeBytes: 2 ** 20 }, vtpmSocket: "/t", linkSocket: "/l" }

/** @param slots taken on the root bus */
function domain(machine: string, slots: readonly number[], more = ""): Domain {
  const devices = slots.map((slot) => {
    return `<rng><address type='pci' domain='0x0000' bus='0x00' slot='0x${slot.toString(16)}' function='0x0'/></rng>`
  })
  return Domain.parse(`<domain type='kvm'><name>web</name><uuid>b843666c-17da-4cb2-9cce-6764896b0267</uuid>
    <os><type arch='x86_64' machine='${machine}'>hvm</type></os><on_reboot>destroy</on_reboot>
    <devices>${devices.join("")}${more}</devices></domain>`)
}

/** All but those of the chipset. */
const FULL = Array.from({ length: 30 }, (_, index) => index + 2)

describe("places on the buses of a domain", () => {
  test("are made by libvirt while the root bus has one left, and on machines with ports", () => {
    expect(freeSlots(domain("pc-i440fx-7.2", FULL.slice(1)))).toBe(Infinity)
    expect(freeSlots(domain("pc-q35-7.2", FULL))).toBe(Infinity)
  })

  test("are those of its bridges once the root bus is full", () => {
    expect(freeSlots(domain("pc-i440fx-7.2", FULL))).toBe(0)
    const bridge = "<controller type='pci' index='1' model='pci-bridge'/>"
    const there = "<rng><address type='pci' bus='0x01' slot='0x01' function='0x0'/></rng>"
    expect(freeSlots(domain("pc-i440fx-7.2", FULL, bridge + there))).toBe(30)
  })

  test("are ports without a device, on machines that have ports", () => {
    const port = (index: number) => `<controller type='pci' index='${index}' model='pcie-root-port'/>`
    const there = "<rng><address type='pci' bus='0x02' slot='0x00' function='0x0'/></rng>"
    expect(emptyPorts(domain("pc-q35-7.2", [1], port(1) + port(2) + port(3) + there))).toEqual([1, 3])
  })
})

describe("a domain without a place for the MVM's devices", () => {
  test("is refused, with the elements that find none and the command that edits it", () => {
    expect(() => refuseConflicts(domain("pc-i440fx-7.2", FULL), PARTS, "virsh edit web")).toThrow(
      "the domain web has no free PCI slot for <shmem> and <channel>",
    )
  })

  test("is not, where its channels have a controller and the arena is plugged already", () => {
    const serial = "<controller type='virtio-serial' index='0'/>"
    const arena = "<shmem name='mvm-a'><model type='ivshmem-plain'/><size unit='M'>1</size></shmem>"
    refuseConflicts(domain("pc-i440fx-7.2", FULL, serial + arena), PARTS, "virsh edit web")
  })
})

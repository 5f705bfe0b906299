import { describe, expect, test } from "bun:test"
import { MvmError } from "../../../src/lib/errors.ts"
import { Domain } from "../../../src/platform/libvirt/domain.ts"
import { applyElements, removeElements, type Replaced } from "../../../src/platform/libvirt/edits.ts"
import {
  missingElements,
  mvmElements,
  refuseConflicts,
  type MvmParts,
} from "../../../src/platform/libvirt/elements.ts"

const PARTS: MvmParts = {
  arena: { name: "mvm-arena&1", sizeBytes: 64 * 2 ** 20 },
  vtpmSocket: "/run/it's/tpm.ctrl",
  linkSocket: "/run/<link>.sock",
}

const ALL = ["<on_reboot>", "<pm>", "<shmem>", "<tpm>", "<channel>"]

function domain({ machine = "pc-i440fx-7.2", devices = "", more = "" } = {}): Domain {
  return Domain.parse(`<domain type='kvm'>
  <name>web</name>
  <uuid>b843666c-17da-4cb2-9cce-6764896b0267</uuid>
  <!-- a note of the operator's -->
  <memory unit='KiB'>524288</memory>
  <os><type arch='x86_64' machine='${machine}'>hvm</type></os>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>${more}
  <devices>${devices}<disk type='file' unknown='kept'/></devices>
</domain>`)
}

function refusal(work: () => void): MvmError {
  try {
    work()
  } catch (error) {
    if (error instanceof MvmError) return error
  }
  throw new Error("it was not refused")
}

describe("a domain as libvirt has it", () => {
  test("lacks all elements, and none once they were applied", () => {
    const web = domain()
    expect(missingElements(web, PARTS)).toEqual(ALL)
    applyElements(web, PARTS)
    expect(missingElements(web, PARTS)).toEqual([])
    expect(missingElements(Domain.parse(String(web)), PARTS)).toEqual([])
  })

  test("keeps what it had, comments and unknown elements too", () => {
    const web = domain()
    applyElements(web, PARTS)
    expect(String(web)).toContain("<!-- a note of the operator's -->")
    expect(String(web)).toContain(`<disk type="file" unknown="kept"/>`)
  })

  test("is as before when its elements are removed again", () => {
    const web = domain({ more: "<pm><suspend-to-mem enabled='yes'/></pm>" })
    const before = String(web)
    const replaced = applyElements(web, PARTS)
    expect(removeElements(web, PARTS, replaced)).toEqual([
      "<shmem>",
      "<tpm>",
      "<channel>",
      "<on_reboot>",
      "<suspend-to-mem>",
      "<suspend-to-disk>",
    ])
    expect(missingElements(web, PARTS)).toEqual(ALL)
    const plain = (text: string): string[] => text.match(/<[^>]+>/g)?.sort() ?? []
    expect(plain(String(web))).toEqual(plain(before))
  })

  test("has libvirt's defaults where nobody knows what stood there, and that is said", () => {
    const unknown: Replaced = { lifecycle: {}, pm: {} }
    const typed = domain()
    applyElements(typed, PARTS)
    const said = removeElements(typed, PARTS, unknown)
    expect(said.slice(3)).toEqual([
      "<on_reboot> (restart, libvirt's default)",
      "<pm> (none, libvirt's default)",
    ])
    expect([typed.text("on_reboot"), typed.element("pm")]).toEqual(["restart", undefined])

    const again = domain()
    applyElements(again, { ...PARTS, linkSocket: "/run/earlier.sock" })
    const before = applyElements(again, PARTS)
    expect(removeElements(again, PARTS, before).slice(3)).toEqual(said.slice(3))
    expect([again.text("on_reboot"), again.element("pm")]).toEqual(["restart", undefined])
  })

  test("keeps what its owner gave it where that is the same as ours", () => {
    const web = domain({ more: "<pm><suspend-to-mem enabled='no'/><suspend-to-disk enabled='no'/></pm>" })
    web.remove(web.element("on_reboot")!)
    web.append("", "<on_reboot>destroy</on_reboot>")
    const before = String(web)
    expect(removeElements(web, PARTS, { lifecycle: {}, pm: {} })).toEqual([])
    expect(String(web)).toBe(before)
    expect(removeElements(web, PARTS, applyElements(web, PARTS))).toEqual(["<shmem>", "<tpm>", "<channel>"])
    expect(String(web)).toBe(before)
  })

  test("applied twice has them once", () => {
    const web = domain()
    applyElements(web, PARTS)
    const once = String(web)
    applyElements(web, PARTS)
    expect(String(web)).toBe(once)
  })

  test("gets no shared memory where its records are relayed", () => {
    const web = domain()
    const parts = { ...PARTS, arena: undefined }
    expect(missingElements(web, parts)).toEqual(ALL.filter((element) => element !== "<shmem>"))
    applyElements(web, parts)
    expect(web.elements("devices/shmem")).toEqual([])
    expect(missingElements(web, parts)).toEqual([])
  })

  test("gets ports for hot-plug where its machine needs them", () => {
    const web = domain({ machine: "pc-q35-7.2" })
    applyElements(web, PARTS)
    expect(web.elements("devices/controller")).toHaveLength(4)
    const pc = domain()
    applyElements(pc, PARTS)
    expect(pc.elements("devices/controller")).toEqual([])
  })
})

describe("an element that is somebody else's is never changed", () => {
  test.each([
    ["<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>", "<tpm> (backend emulator)"],
    ["<shmem name='other'><model type='ivshmem-plain'/></shmem>", "<shmem> other"],
    [
      "<channel type='unix'><source mode='bind' path='/x'/><target type='virtio' name='org.mvm.0'/></channel>",
      "<channel> org.mvm.0",
    ],
  ])("%s", (devices, named) => {
    const web = domain({ devices })
    const before = String(web)
    const { message, hint } = refusal(() => refuseConflicts(web, PARTS, "virsh edit web"))
    expect(message).toBe(`the domain web already has a ${named}`)
    expect(hint).toStartWith("virsh edit web: ")
    expect(String(web)).toBe(before)
  })

  test("and ours are no conflict, with their alias or without", () => {
    const web = domain()
    applyElements(web, PARTS)
    refuseConflicts(web, PARTS, "")
    const typed = mvmElements(PARTS, "x86_64").filter(({ parent }) => parent === "devices")
    const byHand = domain({ devices: typed.map(({ xml }) => xml.replace(/<alias[^>]*>/, "")).join("") })
    refuseConflicts(byHand, PARTS, "")
    expect(missingElements(byHand, PARTS)).toEqual(["<on_reboot>", "<pm>"])
  })
})

describe("what a domain starts", () => {
  test("is its kernel and the firmware of its machine", () => {
    const web = domain()
    web.append("os", "<kernel>/boot/k</kernel>")
    expect(web.launchFiles()).toMatchObject({
      kernel: "/boot/k",
      append: "",
      machine: "pc",
      memoryBytes: 2 ** 29,
      firmware: expect.stringContaining("seabios") as string,
    })
  })

  test("with a firmware that is not the distributor's is refused, and the element is named", () => {
    const web = domain()
    web.append("os", "<loader>/usr/share/OVMF/../../../tmp/evil.fd</loader>")
    expect(refusal(() => web.launchFiles()).message).toStartWith("<loader>: ")
    expect(refusal(() => domain({ machine: "isapc" }).launchFiles()).message).toContain(
      "<type machine='isapc'>",
    )
  })
})

test.each(["", "<domain>", "<network/>", "<domain><name>x</name></domain>", "<a></b>", "no xml"])(
  "%p is no domain",
  (text) => {
    expect(refusal(() => Domain.parse(text)).code).toBe("libvirt")
  },
)

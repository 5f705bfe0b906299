/**
 * @module platform/libvirt/domain
 *
 * A libvirt domain's XML as a tree: read, changed in place and written again. What is not touched keeps its order,
 * its comments and what this program does not know.
 *
 * @spec libvirt formatdomain
 */

import { DOMParser, XMLSerializer, type Document, type Element } from "@xmldom/xmldom"
import { MvmError } from "../../lib/errors.ts"
import type { LaunchFiles } from "../launch-digest.ts"
import { firmwareFiles, isKnownFirmware, type Machine } from "../qemu-args.ts"

const MAX_BYTES = 4 * 1024 * 1024
const ELEMENT_NODE = 1
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

export class Domain {
  readonly root: Element
  readonly #document: Document

  private constructor(document: Document, root: Element) {
    this.#document = document
    this.root = root
  }

  /** @throws MvmError `libvirt` for text that is no domain's XML. */
  static parse(text: string): Domain {
    if (Buffer.byteLength(text) > MAX_BYTES) throw new MvmError("libvirt", "domain xml: too long")
    let document: Document
    try {
      const parser = new DOMParser({
        onError: (_level, message) => {
          throw new Error(message)
        },
      })
      document = parser.parseFromString(text, "text/xml")
    } catch (cause) {
      throw new MvmError("libvirt", "domain xml: it cannot be read", { cause })
    }
    const root = document.documentElement
    if (root?.tagName !== "domain") throw new MvmError("libvirt", "domain xml: no <domain>")
    const domain = new Domain(document, root)
    if (!UUID.test(domain.uuid)) throw new MvmError("libvirt", "domain xml: no <uuid>")
    return domain
  }

  get name(): string {
    return this.text("name") ?? ""
  }

  get uuid(): string {
    return this.text("uuid")?.toLowerCase() ?? ""
  }

  get arch(): string {
    return this.element("os/type")?.getAttribute("arch") ?? ""
  }

  /** "pc-i440fx-7.2" is `pc`; undefined for machines without SeaBIOS or OVMF. */
  get machine(): Machine | undefined {
    const name = this.element("os/type")?.getAttribute("machine") ?? ""
    if (name.startsWith("pc-q35") || name === "q35") return "q35"
    if (name.startsWith("pc-i440fx") || name === "pc") return "pc"
    return name.startsWith("virt") ? "virt" : undefined
  }

  /** Owner and group that the domain itself asks for its QEMU: "+107:+107", "qemu:kvm". */
  get ownerLabel(): string | undefined {
    const labels = this.elements("seclabel").filter((element) => element.getAttribute("model") === "dac")
    return labels.flatMap((element) => childrenOf(element, "label"))[0]?.textContent?.trim()
  }

  /** The first element at `path` ("os/kernel"). */
  element(path: string): Element | undefined {
    return path.split("/").reduce<Element | undefined>((at, name) => at && childrenOf(at, name)[0], this.root)
  }

  elements(path: string): Element[] {
    const at = path.lastIndexOf("/")
    const parent = at < 0 ? this.root : this.element(path.slice(0, at))
    return parent ? childrenOf(parent, path.slice(at + 1)) : []
  }

  /** The text at `path`, or undefined where there is no such element. */
  text(path: string): string | undefined {
    return this.element(path)?.textContent?.trim()
  }

  /** Puts the one element that `xml` is into the element at `path` ("" for the domain itself), as its last. */
  append(path: string, xml: string): void {
    const parent = path === "" ? this.root : this.element(path)
    if (!parent) throw new MvmError("libvirt", `domain xml: no <${path}>`)
    const made = new DOMParser().parseFromString(xml, "text/xml").documentElement
    if (made) parent.appendChild(this.#document.importNode(made, true))
  }

  remove(element: Element): void {
    element.parentNode?.removeChild(element)
  }

  toString(): string {
    return new XMLSerializer().serializeToString(this.#document)
  }

  /**
   * What QEMU starts of this domain.
   *
   * @throws MvmError `config` for firmware that is neither SeaBIOS nor OVMF, naming the element.
   */
  launchFiles(): LaunchFiles {
    const { machine } = this
    const kernel = this.text("os/kernel")
    return {
      qemu: this.text("devices/emulator") ?? "/usr/bin/qemu-system-x86_64",
      firmware: this.#firmware(machine),
      kernel,
      initrd: this.text("os/initrd"),
      // A kernel that is told nothing has an empty command line; without one there is none.
      append: kernel === undefined ? undefined : (this.text("os/cmdline") ?? ""),
      machine,
      memoryBytes: this.#memoryBytes(),
    }
  }

  #firmware(machine: Machine | undefined): string {
    const loader = this.text("os/loader")
    if (loader !== undefined && loader !== "") {
      if (isKnownFirmware(loader)) return loader
      throw new MvmError("config", `<loader>: ${loader} is neither SeaBIOS nor OVMF of the host's packages`)
    }
    const isEfi = this.element("os")?.getAttribute("firmware") === "efi"
    if (machine === "virt" || isEfi) return firmwareFiles("ovmf", machine ?? "pc").code
    if (machine !== undefined) return firmwareFiles("seabios", machine).code
    const name = this.element("os/type")?.getAttribute("machine") ?? "none"
    throw new MvmError("config", `<type machine='${name}'>: only pc, q35 and virt have SeaBIOS or OVMF`)
  }

  #memoryBytes(): number | undefined {
    const memory = this.element("memory")
    const value = Number(memory?.textContent?.trim())
    // What libvirt writes, whatever was given to it.
    const isKiB = (memory?.getAttribute("unit") ?? "KiB") === "KiB"
    return isKiB && Number.isSafeInteger(value) && !this.element("maxMemory") ? value * 1024 : undefined
  }
}

/** Direct child elements of that name. */
export function childrenOf(parent: Element, name: string): Element[] {
  const found: Element[] = []
  for (let node = parent.firstChild; node; node = node.nextSibling) {
    if (node.nodeType === ELEMENT_NODE && (node as Element).tagName === name) found.push(node as Element)
  }
  return found
}

/** An attribute of the first child of that name. */
export function attributeOf(parent: Element, child: string, name: string): string | undefined {
  return childrenOf(parent, child)[0]?.getAttribute(name) ?? undefined
}

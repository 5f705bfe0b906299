/**
 * @module platform/libvirt/capabilities
 *
 * What a libvirt daemon says of itself.
 *
 * @spec libvirt formatcaps: host/secmodel
 */

import { DOMParser, type Element } from "@xmldom/xmldom"
import { MvmError } from "../../lib/errors.ts"
import type { Account } from "../accounts.ts"
import { childrenOf } from "./domain.ts"

/**
 * The user that QEMU runs as: the base label of libvirt's own model of file owners.
 *
 * @returns undefined where it has none, as for a daemon that belongs to one user
 * @throws MvmError `libvirt` for text that is no capabilities' XML.
 */
export function qemuAccount(capabilities: string): Account | undefined {
  let root: Element | null
  try {
    root = new DOMParser({
      onError: (_level, message) => {
        throw new Error(message)
      },
    }).parseFromString(capabilities, "text/xml").documentElement
  } catch (cause) {
    throw new MvmError("libvirt", "capabilities xml: it cannot be read", { cause })
  }
  const host = root && childrenOf(root, "host")[0]
  for (const model of host ? childrenOf(host, "secmodel") : []) {
    if (childrenOf(model, "model")[0]?.textContent !== "dac") continue
    for (const label of childrenOf(model, "baselabel")) {
      const ids = /^\+(\d+):\+(\d+)$/.exec(label.textContent?.trim() ?? "")
      if (ids) return { uid: Number(ids[1]), gids: [Number(ids[2])] }
    }
  }
  return undefined
}

/**
 * @module cli/guest/copy-places
 *
 * The places that a copy goes between, as they are typed: `TARGET:PATH` of another VM, anything else here. As with
 * scp, a slash before the colon makes it a path of this machine (`./a:b`).
 */

import { MvmError } from "../../lib/errors.ts"
import { isName } from "../../wire/schema.ts"

export interface RemotePlace {
  readonly target: string
  /** Below what the service shows; empty for all of it. */
  readonly path: string
}

/** What one invocation asks for. */
export type CopyPlan =
  | { readonly direction: "push"; readonly sources: readonly string[]; readonly to: RemotePlace }
  | {
      readonly direction: "pull"
      /** One or more paths of each VM, in the order in which it was named first. */
      readonly from: ReadonlyMap<string, readonly string[]>
      readonly folder: string
    }

/** @throws MvmError `usage` */
export function planOf(places: readonly string[]): CopyPlan {
  const last = places.at(-1)
  if (last === undefined || places.length < 2) {
    throw new MvmError(
      "usage",
      "an argument is missing: mvm guest cp SRC... TARGET:DIR, or TARGET:PATH... DIR",
    )
  }
  const sources = places.slice(0, -1)
  const to = remotePlaceOf(last)
  const remote = sources.map(remotePlaceOf)
  if (to) {
    if (remote.some((place) => place !== undefined)) {
      throw new MvmError("usage", "one end of a copy is this machine", {
        hint: "a path of this machine with a colon is written ./a:b",
      })
    }
    return { direction: "push", sources, to }
  }
  const from = new Map<string, string[]>()
  for (const [index, place] of remote.entries()) {
    if (!place) {
      throw new MvmError("usage", `${sources[index]}: no VM is named, here or in ${last}`, {
        hint: "one end of a copy is TARGET:PATH",
      })
    }
    from.set(place.target, [...(from.get(place.target) ?? []), place.path])
  }
  return { direction: "pull", from, folder: last }
}

/** @throws MvmError `usage` where what stands before the colon names no VM */
function remotePlaceOf(text: string): RemotePlace | undefined {
  const colon = text.indexOf(":")
  const slash = text.indexOf("/")
  if (colon < 0 || (slash >= 0 && slash < colon)) return undefined
  const target = text.slice(0, colon)
  if (!isName(target)) {
    throw new MvmError("usage", `${text}: what stands before the colon is not the name of a VM`, {
      hint: "a path of this machine with a colon is written ./a:b",
    })
  }
  return { target, path: text.slice(colon + 1) }
}

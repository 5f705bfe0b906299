/**
 * @module guest/copy/receiver-phase
 *
 * What a sender may say when.
 *
 * ```
 *     DIRECTORY FILE SYMLINK LEAVE          DATA HOLE KEEP
 *     TOTAL OMITTED DROP                    BEGIN (anew)
 *          ┌──┐                                 ┌──┐
 *          ▼  │                                 ▼  │
 *       ┌──────────┐          BEGIN          ┌───────────┐
 *       │ entries  │ ──────────────────────▶ │  content  │
 *       └──────────┘ ◀────────────────────── └───────────┘
 *            │               END, DROP
 *            │ FINISH
 *            ▼
 *       ┌──────────┐
 *       │ finished │
 *       └──────────┘
 * ```
 */

import { MvmError } from "../../lib/errors.ts"
import type { CopyName } from "./messages.ts"

export type Phase = "entries" | "content" | "finished"

const TRANSITIONS: Readonly<Record<Phase, Partial<Record<CopyName<"sender">, Phase>>>> = {
  entries: {
    TOTAL: "entries",
    DIRECTORY: "entries",
    FILE: "entries",
    SYMLINK: "entries",
    LEAVE: "entries",
    OMITTED: "entries",
    DROP: "entries",
    BEGIN: "content",
    FINISH: "finished",
  },
  content: {
    DATA: "content",
    HOLE: "content",
    KEEP: "content",
    BEGIN: "content",
    END: "entries",
    DROP: "entries",
  },
  finished: {},
}

/** @throws MvmError `protocol` for a message that does not belong there */
export function nextPhase(phase: Phase, name: CopyName<"sender">): Phase {
  const next = TRANSITIONS[phase][name]
  if (next === undefined) throw new MvmError("protocol", `${name}: not now`)
  return next
}

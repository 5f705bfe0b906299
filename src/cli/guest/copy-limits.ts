/**
 * @module cli/guest/copy-limits
 *
 * What the receiving end of a copy takes, as its options say.
 */

import { NO_LIMITS, type Limits } from "../../guest/copy/limits.ts"
import type { LinkPolicy } from "../../guest/copy/names.ts"
import type { Call, OptionSpec } from "../command.ts"

/** What a copying service is called, unless its owner says otherwise. */
export const COPY_SERVICE = "cp"

export const COPY_LIMIT_OPTIONS: readonly OptionSpec[] = [
  { flags: "--max-bytes <size>", description: "take at most so much at a time" },
  { flags: "--max-files <n>", description: "take at most so many files, folders and links at a time" },
  { flags: "--min-free <size>", description: "leave so much of the disk free" },
  {
    flags: "--links <which>",
    description: "take links that stay inside the target folder, or all (default: inside)",
    values: ["inside", "all"],
  },
]

/** @throws MvmError `usage` */
export function copyLimits(call: Call): Limits {
  return {
    maxBytes: call.sizeBytes("maxBytes", NO_LIMITS.maxBytes),
    maxFiles: call.integer("maxFiles", Number.MAX_SAFE_INTEGER, { min: 1, max: Number.MAX_SAFE_INTEGER }),
    minFreeBytes: call.sizeBytes("minFree", NO_LIMITS.minFreeBytes),
  }
}

/** @throws MvmError `usage` */
export function linkPolicy(call: Call): LinkPolicy {
  return call.oneOf("links", ["inside", "all"], "inside")
}

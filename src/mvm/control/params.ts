/**
 * @module mvm/control/params
 *
 * Parameters of control requests, checked where they are used.
 */

import { MvmError } from "../../lib/errors.ts"
import type { Params } from "../../platform/json-rpc.ts"
import type { VmConfig } from "../state/registry.ts"

export function text(params: Params, name: string): string {
  const value = params[name]
  if (typeof value !== "string") throw new MvmError("usage", `${name} is missing`)
  return value
}

export function optionalText(params: Params, name: string): string | undefined {
  const value = params[name]
  return typeof value === "string" ? value : undefined
}

export function texts(params: Params, name: string): string[] {
  const value = params[name] ?? []
  if (!Array.isArray(value) || value.some((item) => typeof item !== "string")) {
    throw new MvmError("usage", `${name} is not a list of texts`)
  }
  return value as string[]
}

export function integer(params: Params, name: string): number {
  const value = params[name]
  if (typeof value !== "number" || !Number.isSafeInteger(value))
    throw new MvmError("usage", `${name} is missing`)
  return value
}

export function optionalInteger(params: Params, name: string): number | undefined {
  return params[name] === undefined || params[name] === null ? undefined : integer(params, name)
}

export function boolean(params: Params, name: string): boolean {
  return params[name] === true
}

/** The registry checks every field. */
export function configOf(params: Params): VmConfig {
  const { config } = params
  if (typeof config !== "object" || config === null) throw new MvmError("usage", "config is missing")
  // Absent ones must not be there as undefined.
  return Object.fromEntries(
    Object.entries(config).filter(([, value]) => value !== undefined && value !== null),
  ) as unknown as VmConfig
}

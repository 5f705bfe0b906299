/** @module test/platform/accel */

import { describe, expect, test } from "bun:test"
import { accelArgs, chooseAccel, type AccelHost } from "../../src/platform/accel.ts"

const host = (change: Partial<AccelHost>): AccelHost => ({
  arch: "x64",
  modules: "",
  exists: () => false,
  kvmOpens: true,
  override: undefined,
  ...change,
})

describe("chooseAccel", () => {
  test("translates where /dev/kvm opens without a processor's own module", () => {
    expect(chooseAccel(host({ modules: "kvm_pvm 1 0 - Live\nkvm 1 1 kvm_pvm, Live\n" }))).toBe("tcg")
  })

  test("uses kvm where kvm_intel or kvm_amd is loaded", () => {
    expect(chooseAccel(host({ modules: "loop 1 0 - Live\nkvm_intel 1 0 - Live\n" }))).toBe("kvm")
    expect(chooseAccel(host({ exists: (path) => path === "/sys/module/kvm_amd" }))).toBe("kvm")
  })

  test("translates where the device does not open", () => {
    expect(chooseAccel(host({ modules: "kvm_intel 1 0 - Live\n", kvmOpens: false }))).toBe("tcg")
  })

  test("uses kvm on arm64 where the device opens", () => {
    expect(chooseAccel(host({ arch: "arm64" }))).toBe("kvm")
  })

  test("obeys MVM_ACCEL, and names it when it makes no sense", () => {
    expect(chooseAccel(host({ override: "kvm", kvmOpens: false }))).toBe("kvm")
    expect(chooseAccel(host({ override: "tcg", modules: "kvm_intel 1 0 - Live\n" }))).toBe("tcg")
    expect(() => chooseAccel(host({ override: "xen" }))).toThrow("MVM_ACCEL")
  })

  test("gives each vCPU a thread when translating", () => {
    expect(accelArgs("tcg")).toEqual(["-accel", "tcg,thread=multi", "-cpu", "max"])
  })
})

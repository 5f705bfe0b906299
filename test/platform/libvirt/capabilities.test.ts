import { describe, expect, test } from "bun:test"
import { MvmError } from "../../../src/lib/errors.ts"
import {
  accountOfLabel,
  isConfined,
  qemuAccount,
  securityModels,
} from "../../../src/platform/libvirt/capabilities.ts"
import { Domain } from "../../../src/platform/libvirt/domain.ts"

describe("the user that libvirt runs QEMU as", () => {
  test("is the one its capabilities name among the file owners", () => {
    const capabilities = `<capabilities><host>
      <secmodel><model>apparmor</model><doi>0</doi></secmodel>
      <secmodel><model>dac</model><doi>0</doi>
        <baselabel type='kvm'>+64055:+107</baselabel><baselabel type='qemu'>+64055:+107</baselabel></secmodel>
      </host></capabilities>`
    expect(qemuAccount(capabilities)).toEqual({ uid: 64055, gids: [107] })
    expect(securityModels(capabilities)).toEqual(["apparmor", "dac"])
  })

  test("is nobody's to say for a daemon without such labels", () => {
    expect(qemuAccount("<capabilities><host/></capabilities>")).toBeUndefined()
    const other = "<secmodel><model>none</model><baselabel type='kvm'>+1:+1</baselabel></secmodel>"
    expect(qemuAccount(`<capabilities><host>${other}</host></capabilities>`)).toBeUndefined()
    expect(() => qemuAccount("<capabilities>")).toThrow(MvmError)
  })

  test("is read from labels by number and by name", () => {
    expect(accountOfLabel("+107:+36")).toEqual({ uid: 107, gids: [36] })
    expect(accountOfLabel("+107")).toEqual({ uid: 107, gids: [] })
    expect(accountOfLabel("root:root")).toEqual({ uid: 0, gids: [0] })
    expect(accountOfLabel("")).toBeUndefined()
    expect(() => accountOfLabel("no-such-user:kvm")).toThrow("there is no user no-such-user")
  })
})

describe.each(["apparmor", "selinux"] as const)("a domain's QEMU, where libvirt's model is %s,", (model) => {
  const models = [model, "dac"]
  const domain = (seclabel = "") =>
    Domain.parse(`<domain type='kvm'><name>web</name>
      <uuid>b843666c-17da-4cb2-9cce-6764896b0267</uuid>${seclabel}</domain>`)

  test("is confined, and not where libvirt lacks that model", () => {
    expect(isConfined(models, domain(), model)).toBe(true)
    expect(isConfined(["dac"], domain(), model)).toBe(false)
    expect(isConfined([], domain(), model)).toBe(false)
  })

  test("is not where the domain itself says so of that model", () => {
    const other = model === "apparmor" ? "selinux" : "apparmor"
    expect(isConfined(models, domain(`<seclabel type='none' model='${model}'/>`), model)).toBe(false)
    expect(isConfined(models, domain("<seclabel type='none'/>"), model)).toBe(false)
    expect(isConfined(models, domain("<seclabel type='none' model='dac'/>"), model)).toBe(true)
    expect(isConfined(models, domain(`<seclabel type='none' model='${other}'/>`), model)).toBe(true)
    expect(isConfined(models, domain(`<seclabel type='dynamic' model='${model}'/>`), model)).toBe(true)
  })
})

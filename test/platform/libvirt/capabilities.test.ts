import { describe, expect, test } from "bun:test"
import { MvmError } from "../../../src/lib/errors.ts"
import { accountOfLabel, qemuAccount, securityModels } from "../../../src/platform/libvirt/capabilities.ts"

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

import { describe, expect, test } from "bun:test"
import { CODES, MvmError, asMvmError, type ErrorCode } from "../../../src/lib/errors.ts"
import { reduced } from "../../../src/mvm/channels/told.ts"

describe("what a guest is told", () => {
  test("names no file of the host, whatever failed there", () => {
    const codes: ErrorCode[] = [
      "internal",
      "io",
      "state",
      "no_space",
      "swtpm",
      "qemu",
      "tpm",
      "config",
      "exists",
    ]
    for (const code of codes) {
      const told = reduced(new MvmError(code, "/var/lib/mvm/mvm.db: failed", { hint: "look in /var" }), "a")
      expect(`${told.message}${told.hint ?? ""}`).not.toContain("/")
    }
    expect(reduced(asMvmError(new Error("ENOENT: /etc/shadow")), "a").message).not.toContain("/")
  })

  test("is no path and no trace, whatever the code of the failure and however it came to be", () => {
    const trace = "cannot connect to /var/lib/mvm/run/a/tpm.sock: ENOENT\n    at open (/src/mvm/serve.ts:1:2)"
    for (const code of Object.keys(CODES) as ErrorCode[]) {
      const failure = new MvmError(code, trace, {
        hint: "look at /var/lib/mvm/logs",
        cause: new Error(trace),
      })
      const { message, hint = "" } = reduced(failure, "a")
      expect([code, /[/\n]| at /.test(message + hint)]).toEqual([code, false])
    }
  })

  test("keeps the exit status of every failure but those of the host", () => {
    for (const code of Object.keys(CODES) as ErrorCode[]) {
      const failure = new MvmError(code, "a: something")
      const told = reduced(failure, "a")
      if (told.code !== "internal") expect(told.status).toBe(failure.status)
    }
  })

  test("shows a VM what is wrong with its own software, and nothing of another's", () => {
    const failure = new MvmError("untrusted", "ba: /usr/bin/evil is not in the reference table", {
      hint: "x",
    })
    expect(reduced(failure, "ba").message).toContain("/usr/bin/evil")
    for (const reader of ["a", "b", "bad"]) {
      const told = reduced(failure, reader)
      expect(told.code).toBe("peer_untrusted")
      expect(`${told.message}${told.hint ?? ""}`).not.toContain("evil")
    }
  })
})

import { describe, expect, test } from "bun:test"
import { MvmError } from "../../../src/lib/errors.ts"
import { parseEventLine } from "../../../src/platform/libvirt/events.ts"
import { monitorReply } from "../../../src/platform/libvirt/monitor.ts"
import { Virsh } from "../../../src/platform/libvirt/virsh.ts"

describe("a connection", () => {
  test.each(["qemu:///system", "qemu:///session", "qemu+unix:///system?socket=/run/a/libvirt-sock"])(
    "%s is to QEMU on this host",
    (uri) => {
      expect(new Virsh(uri).uri).toBe(uri)
    },
  )

  test.each([
    "qemu+ssh://root@elsewhere/system",
    "xen:///system",
    "qemu:///system\n-c x",
    "",
    "test:///default",
  ])("%p is none", (uri) => {
    expect(() => new Virsh(uri)).toThrow(MvmError)
  })

  test("is to one user's own daemon by its path alone", () => {
    const uris = [
      "qemu:///session",
      "qemu+unix:///session?socket=/run/a/libvirt-sock",
      "qemu:///system",
      "qemu+unix:///system?socket=/run/session",
    ]
    expect(uris.map((uri) => new Virsh(uri).isSession)).toEqual([true, true, false, false])
  })

  test("is in the commands that people are told to type", () => {
    expect(new Virsh("qemu:///system").command("edit", "a b")).toBe("virsh edit 'a b'")
    expect(new Virsh("qemu:///system").command("edit", "-x;y")).toBe("virsh edit '-x;y'")
    expect(new Virsh("qemu:///session").command("list", "--all")).toBe("virsh -c qemu:///session list --all")
  })
})

test.each([
  [
    "error: failed to connect to the hypervisor\nerror: Failed to connect socket to '/x': No such file",
    "unreachable",
  ],
  ["error: failed to get domain 'x'", "not_found"],
  ["error: Domain not found: no domain with matching name 'x'", "not_found"],
  ["error: XML error: No more available PCI slots", "libvirt"],
])("%p is understood", (said, code) => {
  expect(new Virsh("qemu:///system").failure("start", said).code).toBe(code as "libvirt")
})

describe("an event line", () => {
  test("of a domain we follow is an event of its monitor", () => {
    const line = `event SHUTDOWN at 1795409509.732592 for domain 'web': {"guest":true,"reason":"guest-reset"}`
    expect(parseEventLine(line, ["db", "web"])).toEqual({
      domain: "web",
      event: { name: "SHUTDOWN", data: { guest: true, reason: "guest-reset" } },
    })
    expect(parseEventLine("event RESUME for domain 'web': <null>", ["web"])?.event).toEqual({
      name: "RESUME",
      data: {},
    })
  })

  test.each([
    "event RESET at 1.2 for domain 'other': {}",
    "event RESET at 1.2 for domain 'we",
    "events received: 3",
    "",
    "event reset for domain 'web': {}",
  ])("that is none of ours is nothing: %p", (line) => {
    expect(parseEventLine(line, ["web"])).toBeUndefined()
  })

  test("cannot be made to look like another domain's by a name with punctuation", () => {
    const names = ["a", "a': {}"]
    expect(parseEventLine("event RESET for domain 'a': {}': {}", names)?.domain).toBe("a")
    expect(parseEventLine("event RESET for domain 'b': {}", names)).toBeUndefined()
  })
})

test("QEMU's answer through libvirt is its return value or its error", () => {
  expect(monitorReply("query-status", `{"return":{"running":true},"id":"libvirt-9"}`)).toEqual({
    running: true,
  })
  const error = `{"id":"x","error":{"class":"GenericError","desc":"Bus 'x' not\\nfound"}}`
  expect(() => monitorReply("device_add", error)).toThrow("device_add: GenericError: Bus 'x' not found")
  expect(() => monitorReply("device_add", "<html>")).toThrow("no JSON")
})

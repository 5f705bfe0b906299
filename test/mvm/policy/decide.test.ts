/** @module test/mvm/policy/decide */

import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { MvmError } from "../../../src/lib/errors.ts"
import { decide, type Question } from "../../../src/mvm/policy/decide.ts"
import { testPolicy } from "../../../src/mvm/policy/explain.ts"
import { lint } from "../../../src/mvm/policy/lint.ts"
import { parsePolicy } from "../../../src/mvm/policy/parse.ts"
import { covers, matchGlob, parsePattern } from "../../../src/mvm/policy/pattern.ts"

const ALLOW = 'action = "allow"\n'

function rule(service: string, from: string, to: string, rest = ALLOW): string {
  return `[[rule]]\nservice = "${service}"\nfrom = "${from}"\nto = "${to}"\n${rest}`
}

function ask(service: string, from: string, to: string, change: Partial<Question> = {}): Question {
  return { service, from: { name: from, tags: [] }, to: { name: to, tags: [] }, ...change }
}

describe("a decision", () => {
  test("is the first rule's that matches", () => {
    const text = [
      rule("web", "a", "b", 'action = "deny"\ncomment = "not this one"\n'),
      rule("*", "a", "@any"),
    ]
    const policy = parsePolicy(text.join("\n"), "p.toml")
    const denied = decide(policy, ask("web", "a", "b"))
    expect([denied.action, denied.code, denied.rule.label]).toEqual(["deny", "denied", "p.toml:1"])
    expect(denied.reason).toBe("p.toml:1 (not this one) denies service web from a to b")
    const allowed = decide(policy, ask("web", "a", "c"))
    expect([allowed.action, allowed.target, allowed.rule.index]).toEqual(["allow", "c", 1])
  })

  test("is no where no rule matches, and where there are none", () => {
    for (const text of ["", rule("web", "a", "b")]) {
      const decision = decide(parsePolicy(text, "p.toml"), ask("web", "b", "a"))
      expect([decision.action, decision.rule.label, decision.code]).toEqual(["deny", "default", "denied"])
    }
  })

  test("is no for everything under a broken policy, with its reason", () => {
    const error = new MvmError("policy_broken", "p.toml:3:1: unknown key")
    const decision = decide({ file: "p.toml", error }, ask("web", "a", "b"))
    expect([decision.action, decision.code, decision.rule.label]).toEqual(["deny", "policy_broken", "broken"])
    expect(decision.reason).toContain("p.toml:3:1: unknown key")
  })

  test("redirects, and is not looked up again under the new target", () => {
    const text = rule("web", "a", "b", `${ALLOW}target = "c"\n`) + rule("web", "a", "c", 'action = "deny"\n')
    const decision = decide(parsePolicy(text, "p.toml"), ask("web", "a", "b"))
    expect([decision.action, decision.target]).toEqual(["allow", "c"])
    expect(decision.reason).toEndWith("redirected to c")
  })

  test("knows tags given to a VM and tags given by the policy", () => {
    const text = `[tags]\nred = ["a"]\n${rule("web", "tag:red", "tag:blue")}`
    const policy = parsePolicy(text, "p.toml")
    const to = { name: "b", tags: ["blue"] }
    expect(decide(policy, ask("web", "a", "b", { to })).action).toBe("allow")
    expect(decide(policy, ask("web", "x", "b", { to, from: { name: "x", tags: ["red"] } })).action).toBe(
      "allow",
    )
    expect(decide(policy, ask("web", "x", "b", { to })).action).toBe("deny")
    expect(decide(policy, ask("web", "a", "b")).action).toBe("deny")
  })

  test("compares programs by path, and by digest where the rule has one", () => {
    const digest = "ab".repeat(32)
    const programs = `programs = ["/bin/any", { path = "/bin/one", digest = "${digest}" }]\n`
    const text = rule("web", "a", "b", ALLOW + programs) + rule("web", "a", "b", 'action = "deny"\n')
    const policy = parsePolicy(text, "p.toml")
    const action = (program: Question["program"]) => decide(policy, ask("web", "a", "b", { program })).action
    expect(action({ path: "/bin/any", digest: "00" })).toBe("allow")
    expect(action({ path: "/bin/one", digest: digest.toUpperCase() })).toBe("allow")
    expect(action({ path: "/bin/one", digest: "cd".repeat(32) })).toBe("deny")
    expect(action({ path: "/bin/any/", digest })).toBe("deny")
    expect(action({ path: "/bin/two", digest })).toBe("deny")
    expect(action(undefined)).toBe("deny")
  })

  test("does not take a VM's name for a pattern", () => {
    const policy = parsePolicy(rule("web", "web*", "tag:x"), "p.toml")
    expect(decide(policy, ask("web", "web1", "tag:x")).action).toBe("deny")
    expect(decide(parsePolicy(rule("web", "ab", "b"), "p.toml"), ask("web", "a*", "b")).action).toBe("deny")
  })

  test("agrees with a naive reading of the same rules", () => {
    const names = ["a", "ab", "abc", "b", "host"]
    const patterns = ["a", "ab", "b", "host", "a*", "*b", "?b", "a?c", "**", "@any", "*", "tag:t", "tag:u"]
    const vm = fc.record({
      name: fc.constantFrom(...names),
      tags: fc.subarray(["t", "u"]),
    })
    const side = fc.array(fc.constantFrom(...patterns), { minLength: 1, maxLength: 3 })
    const rules = fc.array(
      fc.record({
        service: fc.constantFrom("a", "ab", "a*", "@any"),
        from: side,
        to: side,
        action: fc.constantFrom("allow", "deny"),
        programs: fc.option(fc.subarray(["/x", "/y"], { minLength: 1 }), { nil: undefined }),
      }),
      { maxLength: 6 },
    )
    const tags = fc.record({ t: fc.subarray(names), u: fc.subarray(names) })
    const question = fc.record({
      service: fc.constantFrom("a", "ab", "b"),
      from: vm,
      to: vm,
      program: fc.option(fc.record({ path: fc.constantFrom("/x", "/y", "/z"), digest: fc.constant("") }), {
        nil: undefined,
      }),
    })
    const property = fc.property(rules, tags, question, (ruleSet, tagSet, asked) => {
      const lines = ruleSet.map(({ service, from, to, action, programs }) =>
        [
          "[[rule]]",
          `service = ${JSON.stringify(service)}`,
          `from = ${JSON.stringify(from)}`,
          `to = ${JSON.stringify(to)}`,
          `action = ${JSON.stringify(action)}`,
          ...(programs ? [`programs = ${JSON.stringify(programs)}`] : []),
        ].join("\n"),
      )
      const tagLines = Object.entries(tagSet).map(([tag, members]) => `${tag} = ${JSON.stringify(members)}`)
      const policy = parsePolicy(["[tags]", ...tagLines, ...lines].join("\n"), "p.toml")
      const has = (pattern: string, { name, tags: own }: { name: string; tags: string[] }): boolean => {
        if (pattern === "@any") return true
        if (pattern.startsWith("tag:")) {
          const tag = pattern.slice(4) as "t" | "u"
          return own.includes(tag) || tagSet[tag].includes(name)
        }
        return new RegExp(`^${pattern.replaceAll("*", ".*").replaceAll("?", ".")}$`).test(name)
      }
      const index = ruleSet.findIndex(
        ({ service, from, to, programs }) =>
          has(service, { name: asked.service, tags: [] }) &&
          from.some((pattern) => has(pattern, asked.from)) &&
          to.some((pattern) => has(pattern, asked.to)) &&
          (!programs || (asked.program !== undefined && programs.includes(asked.program.path))),
      )
      const decision = decide(policy, asked)
      expect(decision.rule.index).toBe(index)
      expect(decision.action).toBe(index < 0 ? "deny" : (ruleSet[index]!.action as "allow" | "deny"))
    })
    fc.assert(property, { numRuns: 500 })
  })
})

describe("a glob", () => {
  const alphabet = fc.string({ unit: fc.constantFrom("a", "b", "*", "?"), maxLength: 8 })
  const plain = fc.string({ unit: fc.constantFrom("a", "b"), maxLength: 10 })

  test("matches what the regular expression of it matches", () => {
    const property = fc.property(alphabet, plain, (glob, text) => {
      const regex = new RegExp(`^${glob.replaceAll("*", ".*").replaceAll("?", ".")}$`)
      expect(matchGlob(glob, text)).toBe(regex.test(text))
    })
    fc.assert(property, { numRuns: 2000 })
  })

  test("covers another only where every name of that one is its own too", () => {
    const pattern = alphabet.filter((text) => text !== "")
    const property = fc.property(pattern, pattern, plain, (wide, narrow, text) => {
      const [one, two] = [parsePattern(wide, "vm"), parsePattern(narrow, "vm")]
      if (!one || !two || !covers(one, two)) return
      if (matchGlob(narrow, text)) expect(matchGlob(wide, text)).toBe(true)
    })
    fc.assert(property, { numRuns: 2000 })
  })

  test("takes no more than its bounded time on the worst text", () => {
    expect(matchGlob("*a".repeat(60), "a".repeat(64))).toBe(true)
    expect(matchGlob(`${"*a".repeat(60)}b`, "a".repeat(64))).toBe(false)
  })
})

describe("lint", () => {
  const vms = ["a", "b", "web1"].map((name) => ({ name, tags: name === "a" ? ["red"] : [] }))

  function warnings(text: string): string[] {
    return lint(parsePolicy(text, "p.toml"), vms).map(({ line, message }) => `${line}: ${message}`)
  }

  test("has nothing to say about a good policy", () => {
    expect(warnings(rule("web", "a", "b") + rule("web", "tag:red", "web?"))).toEqual([])
  })

  test("finds rules that are never reached", () => {
    const reached = "never reached: the rule of line 1 decides everything this one matches"
    expect(warnings(rule("*", "a", "@any") + rule("x*", "a", "web*"))).toEqual([`6: ${reached}`])
    expect(warnings(rule("*", "a", "b") + rule("web", "a", "web1"))).toEqual([])
    const programs = `${ALLOW}programs = ["/x"]\n`
    expect(warnings(rule("*", "a", "b", programs) + rule("web", "a", "b"))).toEqual([])
    expect(warnings(rule("*", "a", "b") + rule("web", "a", "b", programs))).toEqual([`6: ${reached}`])
  })

  test("finds names, globs, tags and targets that fit no VM", () => {
    const text = `[tags]\nblue = ["ghost"]\n${rule("web", "nobody", "x*", `${ALLOW}target = "gone"\n`)}${rule("web", "tag:nix", "a")}`
    expect(warnings(text)).toEqual([
      "2: tags.blue: there is no VM ghost",
      "3: from: there is no VM nobody",
      "3: to: no VM matches x*",
      "3: target: there is no VM gone",
      "9: from: no VM has the tag nix",
    ])
    expect(lint(parsePolicy(text, "p.toml"))).toEqual([])
  })

  test("finds doors that stand wide open", () => {
    expect(warnings(rule("*", "@any", "*"))).toEqual(["1: allows any service from any VM to any VM"])
    expect(warnings(rule("web", "@any", "@any"))).toEqual(["1: allows web from any VM to any VM"])
    expect(warnings(rule("*", "@any", "@any", 'action = "deny"\n'))).toEqual([])
  })
})

describe("a policy test", () => {
  test("shows every rule tried and what did not match", () => {
    const programs = `${ALLOW}programs = ["/x"]\n`
    const text = [
      rule("other", "a", "b"),
      rule("web", "b", "b"),
      rule("web", "a", "a"),
      rule("web", "a", "b", programs),
      rule("web", "a", "b"),
      rule("*", "@any", "@any"),
    ]
    const { steps, decision } = testPolicy(parsePolicy(text.join(""), "p.toml"), ask("web", "a", "b"))
    expect(steps.map((step) => step.mismatch)).toEqual(["service", "from", "to", "program", undefined])
    expect(decision.rule.line).toBe(steps.at(-1)!.line)
    const none = testPolicy(parsePolicy(text[0]!, "p.toml"), ask("web", "a", "b"))
    expect(none.steps.map((step) => step.mismatch)).toEqual(["service"])
  })
})

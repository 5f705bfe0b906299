/**
 * @module test/structure/security
 *
 * The README's promises name the tests that show them: each named test is there.
 */

import { expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"

const root = join(import.meta.dir, "../..")

/** Sources of all tests, spaces as one: a title may be broken over lines. */
const sources = [...new Bun.Glob("test/**/*.ts").scanSync(root)]
  .map((file) => readFileSync(join(root, file), "utf8"))
  .join("\n")
  .replace(/\s+/g, " ")

test("every test that the security section names exists", () => {
  const readme = readFileSync(join(root, "README.md"), "utf8")
  const section = readme.slice(readme.indexOf("## Security model"), readme.indexOf("## Figures"))
  const named = [...section.matchAll(/"([^"]{8,})"/g)].map((match) => match[1]!.replaceAll("\\|", "|"))
  expect(named.length).toBeGreaterThan(50)
  expect(named.filter((title) => !sources.includes(title))).toEqual([])
})

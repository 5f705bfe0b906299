/**
 * @module test/mvm/metrics/exposition-parser
 *
 * A strict reader of Prometheus' text format, written from its specification: what a scraper would shrug off is an
 * error here.
 *
 * @spec https://prometheus.io/docs/instrumenting/exposition_formats/ and /docs/practices/naming/
 */

export interface ReadSample {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

export interface ReadFamily {
  readonly name: string
  readonly help: string
  readonly type: string
  readonly samples: ReadSample[]
}

const NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*"
const SAMPLE = new RegExp(`^(${NAME})(?:\\{(.*)\\})? (\\S+)$`)
const LABEL = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)/
const TYPES = new Set(["counter", "gauge", "histogram"])
/** Units that are not base units. */
const BAD_UNITS = /_(milliseconds|ms|microseconds|minutes|hours|kilobytes|megabytes|kb|mb|percent)(_|$)/

/** @throws Error that names the line. */
export function readExposition(text: string): Map<string, ReadFamily> {
  if (!text.endsWith("\n")) throw new Error("the last line has no end")
  const families = new Map<string, ReadFamily>()
  let open: { name: string; help: string; type: string; samples: ReadSample[] } | undefined
  const seen = new Set<string>()
  text
    .slice(0, -1)
    .split("\n")
    .forEach((line, index) => {
      const fail = (reason: string): never => {
        throw new Error(`line ${index + 1}: ${reason}: ${line}`)
      }
      const help = new RegExp(`^# HELP (${NAME}) (.+)$`).exec(line)
      if (help) {
        const [, name = "", words = ""] = help
        if (families.has(name)) fail("a second family of that name")
        if (/\\[^\\n]/.test(words.replaceAll("\\\\", ""))) fail("an escape that there is not")
        open = { name, help: words, type: "", samples: [] }
        families.set(name, open)
        return
      }
      const type = new RegExp(`^# TYPE (${NAME}) (\\w+)$`).exec(line)
      if (type) {
        const [, name = "", word = ""] = type
        if (open?.name !== name || open.type !== "" || open.samples.length > 0) fail("TYPE out of its place")
        if (!TYPES.has(word)) fail("no such type")
        open!.type = word
        return
      }
      const [, name = "", labelText = "", number = ""] = SAMPLE.exec(line) ?? fail("not a line of the format")
      if (!open || open.type === "") return fail("a sample outside a family")
      const suffixes = open.type === "histogram" ? ["_bucket", "_sum", "_count"] : [""]
      if (!suffixes.some((suffix) => name === `${open!.name}${suffix}`)) fail("a sample of another family")
      const value = number === "+Inf" ? Infinity : Number(number)
      if (number === "" || Number.isNaN(value)) fail("no number")
      const labels = readLabels(labelText) ?? fail("bad labels")
      const key = `${name}${JSON.stringify(Object.entries(labels).sort())}`
      if (seen.has(key)) fail("the same sample twice")
      seen.add(key)
      open.samples.push({ name, labels, value })
    })
  for (const family of families.values()) check(family)
  return families
}

function readLabels(text: string): Record<string, string> | undefined {
  const labels: Record<string, string> = {}
  let rest = text
  while (rest !== "") {
    const match = LABEL.exec(rest)
    const [whole = "", name = "", value = "", end] = match ?? []
    if (!match || Object.hasOwn(labels, name) || (end === "," && rest.length === whole.length))
      return undefined
    labels[name] = value.replace(/\\(["\\n])/g, (_all, char: string) => (char === "n" ? "\n" : char))
    rest = rest.slice(whole.length)
  }
  return labels
}

/** What the conventions ask of a family as a whole. */
function check({ name, type, samples }: ReadFamily): void {
  const fail = (reason: string): never => {
    throw new Error(`${name}: ${reason}`)
  }
  if (type === "") fail("has no TYPE")
  if (!/^[a-z][a-z0-9_]*$/.test(name) || name.includes("__")) fail("is no lower-case name")
  if (BAD_UNITS.test(name)) fail("is in no base unit")
  if ((type === "counter") !== name.endsWith("_total")) fail("counters, and they alone, end in _total")
  if (/_(bucket|sum|count)$/.test(name)) fail("ends as a part of a histogram does")
  for (const { labels, value } of samples) {
    if (type !== "histogram" && "le" in labels) fail("has a label le")
    if (type === "counter" && !(value >= 0)) fail("a counter below zero")
  }
  if (type !== "histogram") return
  const buckets = samples.filter((sample) => sample.name.endsWith("_bucket"))
  const bounds = buckets.map(({ labels }) => (labels["le"] === "+Inf" ? Infinity : Number(labels["le"])))
  const [sum, count] = ["_sum", "_count"].map((end) =>
    samples.find((sample) => sample.name === `${name}${end}`),
  )
  if (!sum || !count || bounds.at(-1) !== Infinity) fail("lacks _sum, _count or the bucket +Inf")
  if (bounds.some((bound, index) => !(bound > (bounds[index - 1] ?? -Infinity)))) fail("bounds do not ascend")
  const counts = buckets.map(({ value }) => value)
  if (counts.some((value, index) => value < (counts[index - 1] ?? 0))) fail("buckets are not cumulative")
  if (counts.at(-1) !== count!.value) fail("_count is not the bucket +Inf")
}

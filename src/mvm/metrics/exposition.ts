/**
 * @module mvm/metrics/exposition
 *
 * Metrics as text that Prometheus reads: families of samples, and the counters and histograms that hold them between
 * two scrapes.
 *
 * Not here: timestamps, exemplars, the OpenMetrics variant.
 *
 * @spec https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4)
 */

export type Labels = Readonly<Record<string, string>>

export interface Sample {
  /** Behind the family's name: "_sum" */
  readonly suffix?: string
  readonly labels?: Labels
  readonly value: number
}

/** A metric with all its samples. */
export interface Family {
  readonly name: string
  readonly type: "counter" | "gauge" | "histogram"
  /** One sentence */
  readonly help: string
  readonly samples: readonly Sample[]
}

export const CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

/** The whole text of a scrape. */
export function exposition(families: readonly Family[]): string {
  const lines = families.flatMap(({ name, type, help, samples }) => [
    `# HELP ${name} ${help.replaceAll("\\", "\\\\").replaceAll("\n", "\\n")}`,
    `# TYPE ${name} ${type}`,
    ...samples.map(({ suffix = "", labels = {}, value }) => `${name}${suffix}${labelText(labels)} ${value}`),
  ])
  return `${lines.join("\n")}\n`
}

/** One number that only grows, or one for each value of a label. */
export class Counter {
  readonly #name: string
  readonly #help: string
  readonly #label: string | undefined
  readonly #values = new Map<string, number>()

  /** @param values what the label can be; each is there from the beginning, so that its first count is an increase */
  constructor(name: string, help: string, label?: string, values: readonly string[] = []) {
    this.#name = name
    this.#help = help
    this.#label = label
    for (const value of label === undefined ? [""] : values) this.#values.set(value, 0)
  }

  /** @param value of the label; one that was not announced is a mistake of the caller's and counts nowhere */
  add(amount = 1, value = ""): void {
    const before = this.#values.get(value)
    if (before !== undefined) this.#values.set(value, before + amount)
  }

  family(): Family {
    const samples = [...this.#values].map(([value, count]) => ({
      labels: this.#label === undefined ? {} : { [this.#label]: value },
      value: count,
    }))
    return { name: this.#name, type: "counter", help: this.#help, samples }
  }
}

/** How many observations were at most so great. */
export class Histogram {
  readonly #name: string
  readonly #help: string
  readonly #bounds: readonly number[]
  readonly #counts: number[]
  #count = 0
  #sum = 0

  /** @param bounds upper ones, ascending */
  constructor(name: string, help: string, bounds: readonly number[]) {
    this.#name = name
    this.#help = help
    this.#bounds = bounds
    this.#counts = bounds.map(() => 0)
  }

  observe(value: number): void {
    this.#count += 1
    this.#sum += value
    this.#bounds.forEach((bound, index) => {
      if (value <= bound) this.#counts[index] = (this.#counts[index] ?? 0) + 1
    })
  }

  family(): Family {
    const buckets = this.#bounds.map((bound, index) => ({
      suffix: "_bucket",
      labels: { le: String(bound) },
      value: this.#counts[index] ?? 0,
    }))
    return {
      name: this.#name,
      type: "histogram",
      help: this.#help,
      samples: [
        ...buckets,
        { suffix: "_bucket", labels: { le: "+Inf" }, value: this.#count },
        { suffix: "_sum", value: this.#sum },
        { suffix: "_count", value: this.#count },
      ],
    }
  }
}

/** One sample, or one for each value of `label`. */
export function gauge(
  name: string,
  help: string,
  values: number | Readonly<Record<string, number>>,
  label = "state",
): Family {
  const samples =
    typeof values === "number"
      ? [{ value: values }]
      : Object.entries(values).map(([of, value]) => ({ labels: { [label]: of }, value }))
  return { name, type: "gauge", help, samples }
}

function labelText(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => {
    return `${name}="${value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n")}"`
  })
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`
}

/**
 * Metrics as OpenMetrics text, in the shape of the original: HELP and TYPE carry a counter's name
 * without `_total`, its samples with it; families without samples are left out; the last line is
 * `# EOF`.
 *
 * @see spec control-plane 8; prom-client's own text keeps empty families.
 */
import { Registry } from "prom-client";

/** What prom-client hands out for each metric; its own type leaves the values out. */
interface Family {
  readonly name: string;
  readonly help: string;
  readonly type: string;
  readonly values: readonly {
    /** Of a histogram's parts. */
    readonly metricName?: string;
    readonly labels: Readonly<Record<string, string | number>>;
    readonly value: number;
  }[];
}

/** An empty registry; the process has one. */
export function makeRegistry(): Registry {
  return new Registry();
}

/** Asks every metric for its current value. */
export async function renderMetrics(registry: Registry): Promise<string> {
  const families = (await registry.getMetricsAsJSON()) as unknown as readonly Family[];
  let text = "";
  for (const family of families) {
    if (family.values.length > 0) text += familyText(family);
  }
  return `${text}# EOF\n`;
}

function familyText({ name, help, type, values }: Family): string {
  const isCounter = type === "counter";
  const familyName = isCounter ? name.replace(/_total$/, "") : name;
  const sampleName = isCounter ? `${familyName}_total` : name;
  let text = `# HELP ${familyName} ${escaped(help)}\n# TYPE ${familyName} ${declaredType(type, values)}\n`;
  for (const { metricName = sampleName, labels, value } of values) {
    text += `${metricName}${labelText(labels)} ${numberText(value)}\n`;
  }
  return text;
}

/**
 * Quantiles that were taken elsewhere are a gauge's to prom-client, whose own summaries want every
 * observation; to readers of the text the label is a summary's alone.
 */
function declaredType(type: string, [first]: Family["values"]): string {
  return first !== undefined && "quantile" in first.labels ? "summary" : type;
}

function labelText(labels: Family["values"][number]["labels"]): string {
  let text = "";
  for (const name in labels) {
    text += `${text === "" ? "{" : ","}${name}="${escaped(String(labels[name]))}"`;
  }
  return text === "" ? "" : `${text}}`;
}

function numberText(value: number): string {
  if (value === Number.POSITIVE_INFINITY) return "+Inf";
  return value === Number.NEGATIVE_INFINITY ? "-Inf" : String(value);
}

const ESCAPES: Readonly<Record<string, string>> = { "\\": "\\\\", '"': '\\"', "\n": "\\n" };

function escaped(text: string): string {
  return /["\\\n]/.test(text)
    ? text.replace(/["\\\n]/g, (special) => ESCAPES[special] ?? "")
    : text;
}

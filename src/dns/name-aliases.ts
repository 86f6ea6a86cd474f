/**
 * What a name that a pod asks for may mean, in the order of trying: resolvers append search domains,
 * and people leave parts of a service's name out.
 *
 * @see spec data-path 8.2
 */

export interface NameAlias {
  readonly name: string;
  /** The asked name without the search domain at its end; `undefined`: nothing was taken off. */
  readonly stripped: string | undefined;
}

/** Where names are looked for. */
export interface NameScope {
  /** Kubernetes namespace of who asks. */
  readonly namespace: string;
  /** `cluster.local`. */
  readonly clusterDomain: string;
  /** What a resolver of the pod appends; `undefined`: what Kubernetes gives to pods. */
  readonly searchDomains: readonly string[] | undefined;
}

/** @param name lower case, without a dot at its end. @returns each name once. */
export function nameAliases(name: string, scope: NameScope): readonly NameAlias[] {
  const aliases = new Map<string, NameAlias>();
  const add = (alias: string, stripped: string | undefined): void => {
    if (!aliases.has(alias)) aliases.set(alias, { name: alias, stripped });
  };
  add(name, undefined);
  for (const full of kubernetesNames(name, scope)) add(full, undefined);
  for (const domain of scope.searchDomains ?? podSearchDomains(scope)) {
    if (!name.endsWith(`.${domain}`)) continue;
    const stripped = name.slice(0, -domain.length - 1);
    add(stripped, stripped);
    for (const full of kubernetesNames(stripped, scope)) add(full, stripped);
  }
  return [...aliases.values()];
}

/** The services that a name of few labels may be short for. */
export function kubernetesNames(
  name: string,
  { namespace, clusterDomain }: Pick<NameScope, "namespace" | "clusterDomain">,
): readonly string[] {
  const own = `${name}.${namespace}.svc.${clusterDomain}`;
  const inService = `${name}.svc.${clusterDomain}`;
  const whole = `${name}.${clusterDomain}`;
  const endsInService = name.endsWith(".svc");
  switch (name.split(".").length) {
    case 1:
      return name === "" ? [] : [own];
    case 2:
      return [inService, own];
    case 3:
      return endsInService ? [whole, inService] : [inService];
    case 4:
      return endsInService ? [whole] : [];
    default:
      return [];
  }
}

/** From the most special to the least: `*.b.c` and `*.c` for `a.b.c`. */
export function wildcardsOf(name: string): readonly string[] {
  const wildcards: string[] = [];
  for (let dot = name.indexOf("."); dot >= 0; dot = name.indexOf(".", dot + 1)) {
    wildcards.push(`*${name.slice(dot)}`);
  }
  return wildcards;
}

function podSearchDomains({ namespace, clusterDomain }: NameScope): readonly string[] {
  return [`${namespace}.svc.${clusterDomain}`, `svc.${clusterDomain}`, clusterDomain];
}

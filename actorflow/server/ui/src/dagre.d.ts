// The one function of dagre that the page uses, and the graph that it takes.
declare module "@dagrejs/dagre/lib/layout.js" {
  import type { Graph } from "@dagrejs/graphlib";
  export default function layout(graph: Graph): void;
}

// What dagre's layout needs of graphlib: the graph, and two walks through it. The rest stays out of the page.
export { default as Graph } from "../node_modules/@dagrejs/graphlib/lib/graph.js";
import postorder from "../node_modules/@dagrejs/graphlib/lib/alg/postorder.js";
import preorder from "../node_modules/@dagrejs/graphlib/lib/alg/preorder.js";
export const alg = { postorder, preorder };

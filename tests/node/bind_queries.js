// Reads {tables: {name: columns}, queries: [{name, text}]} from standard input, and writes a line for each query:
// what Microsoft's Kusto parser says against it, and the columns it returns. Columns are written NAME:TYPE, NAME:TYPE.
const { readFileSync } = require("fs");
const { join } = require("path");
const { runInThisContext } = require("vm");

// The package is made for browsers: its parts expect to be run in the global scope, in this order.
const folder = join(process.argv[2], "node_modules", "@kusto", "language-service-next");
for (const part of ["bridge.min.js", "Kusto.Language.Bridge.min.js"]) {
  runInThisContext(readFileSync(join(folder, part), "utf8"), { filename: part });
}
const { GlobalState, KustoCode, Symbols } = globalThis.Kusto.Language;

function listItems(list) {
  return Array.from({ length: list.Count }, (_, index) => list.getItem(index));
}

const { tables, queries } = JSON.parse(readFileSync(0, "utf8"));
const symbols = Object.entries(tables).map(([name, columns]) => Symbols.TableSymbol.From(`(${columns})`).WithName(name));
const workspace = new Symbols.DatabaseSymbol.$ctor1("workspace", symbols);
const globals = GlobalState.Default.WithDatabase(workspace);

for (const { name, text } of queries) {
  const code = KustoCode.ParseAndAnalyze(text, globals);
  const problems = listItems(code.GetDiagnostics()).map((found) => found.Message);
  const columns = code.ResultType && code.ResultType.Columns ? listItems(code.ResultType.Columns) : [];
  const types = Object.fromEntries(columns.map((column) => [column.Name, column.Type.Name]));
  console.log(JSON.stringify({ name, problems, columns: types }));
}

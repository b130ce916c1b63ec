// Reads patterns ({name, source, flags}) from standard input, and writes one line for each that is not safe.
const { check } = require(require.resolve("recheck", { paths: [process.argv[2]] }));

async function main() {
  const patterns = JSON.parse(require("fs").readFileSync(0, "utf8"));
  for (const { name, source, flags } of patterns) {
    const isWide = /[\ud800-\udfff]/.test(source); // beyond 16 bits
    const found = await check(source, flags + (isWide ? "u" : ""), { timeout: 120000 });
    if (found.status !== "safe") {
      const { attack, complexity, error, status } = found;
      console.log(JSON.stringify({ name, status, why: error || complexity, attack }));
    }
  }
}

main().then(() => process.stdout.write("", () => process.exit(0)));

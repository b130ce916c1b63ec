// Reads patterns ({name, source, flags}) from standard input, and writes one line for each that is not safe.
const { check } = require(require.resolve("recheck", { paths: [process.argv[2]] }));

async function main() {
  const patterns = JSON.parse(require("fs").readFileSync(0, "utf8"));
  for (const { name, source, flags } of patterns) {
    const isWide = /[\ud800-\udfff]/.test(source); // beyond 16 bits
    const found = await check(source, flags + (isWide ? "u" : ""), { timeout: 30000 });
    if (found.status !== "safe") {
      console.log(JSON.stringify({ name, status: found.status, why: found.error || found.complexity }));
    }
  }
}

main().then(() => process.exit(0));

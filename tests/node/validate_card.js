// Reads an Adaptive Card from standard input, and writes what Microsoft's own library has to say about it,
// and the card as the library understood it.
const AC = require(require.resolve("adaptivecards/dist/adaptivecards.js", { paths: [process.argv[2]] }));

const card = new AC.AdaptiveCard();
const context = new AC.SerializationContext(AC.Versions.v1_5);
card.parse(JSON.parse(require("fs").readFileSync(0, "utf8")), context);
const problems = card.validateProperties().validationEvents.map((event) => event.message);
for (let place = 0; place < context.eventCount; place++) problems.push(context.getEventAt(place).message);
const understood = card.toJSON(new AC.SerializationContext(AC.Versions.v1_5));
console.log(JSON.stringify({ problems, understood }));

// What tests written with testcontainers do: start, wait for a log line, exec, copy, read logs, stop.
const assert = require("node:assert");
const { GenericContainer, Wait } = require("testcontainers");

async function main() {
  const container = await new GenericContainer("debian:bookworm-slim")
    .withCommand(["sh", "-c", "cat /etc/given; echo ready; exec sleep 1000"])
    .withCopyContentToContainer([{ content: "copied\n", target: "/etc/given" }])
    .withEnvironment({ GREETING: "hello" })
    .withLabels({ part: "test" })
    .withHealthCheck({ test: ["CMD-SHELL", "true"], interval: 500, retries: 3 })
    .withWaitStrategy(Wait.forAll([Wait.forLogMessage("ready"), Wait.forHealthCheck()]))
    .withStartupTimeout(240000)
    .start();
  const result = await container.exec(["sh", "-c", "echo $GREETING; exit 4"]);
  assert.strictEqual(result.exitCode, 4);
  assert.strictEqual(result.output.trim(), "hello");
  await container.copyContentToContainer([{ content: "later", target: "/etc/later" }]);
  const stream = await container.logs();
  const logs = await new Promise((resolve) => {
    let text = "";
    stream.on("data", (line) => { text += line; if (text.includes("ready")) resolve(text); });
  });
  assert.match(logs, /copied/);
  await container.restart();
  await container.stop({ timeout: 0 });
  console.log("testcontainers: passed");
}

main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });

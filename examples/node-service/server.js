const http = require('http');
const ms = require('ms');

const begun = Date.now();
const server = http.createServer((request, response) => {
  response.end(`up for ${ms(Date.now() - begun, { long: true })}, two days are ${ms('2 days')} ms\n`);
});
server.listen(3000);
process.on('SIGTERM', () => server.close(() => process.exit(0)));

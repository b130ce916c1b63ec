// A loopback AMQP 1.0 peer that takes messages for one queue as Service Bus does, and misbehaves on request.
//
// argv[2] is a JSON object, see Script in amqp_peer.py. Standard output has one JSON object per line:
// {"port"}, then {"link"} per queue link asked for, {"batch"} per delivery accepted and {"message"} per
// message in it, {"dropped"} per connection dropped.
import { createRequire } from "node:module";

const require = createRequire(process.env.AMQP_PEER_NODE_MODULES + "/");
const rhea = require("rhea");

const script = JSON.parse(process.argv[2]);
let deliveriesToDrop = script.drop_deliveries;
let deliveriesToReject = script.reject_deliveries;

const report = (value) => process.stdout.write(JSON.stringify(value) + "\n");

const container = rhea.create_container({ id: "amqp-peer", receiver_options: { autoaccept: false } });

// Claims-based security: the client puts its token at $cbs and waits for a status.
function answerToken(context) {
  const reply = context.connection.cbs_sender;
  reply.send({
    correlation_id: context.message.message_id,
    application_properties: {
      "status-code": rhea.types.wrap_int(script.token_status),
      "status-description": script.token_status === 200 ? "OK" : "refused by the script",
    },
  });
  context.delivery.accept();
}

// A batch (format 0x80013700) is a copy of the first message's sections with one data section per message.
function unpack(context) {
  if (!context.format) return [context.message];
  const batch = rhea.message.decode(context.message);
  const parts = batch.body.multiple ? batch.body.content : [batch.body.content];
  return parts.map((part) => rhea.message.decode(part));
}

function record(message) {
  const { message_id, content_type, ttl } = message;
  report({ message: { body: message.body.content.toString("utf8"), message_id, content_type, ttl } });
}

// The SDK takes an attach without its own source and target for a refused link.
function echoTerminus(link) {
  link.set_source({ address: link.source.address });
  link.set_target({ address: link.target.address });
}

container.on("sender_open", (context) => {
  echoTerminus(context.sender);
  if (context.sender.source.address === "$cbs") context.connection.cbs_sender = context.sender;
});

container.on("receiver_open", (context) => {
  const { receiver } = context;
  const address = receiver.target.address || "";
  const queue = address.split("/").pop();
  if (address !== "$cbs") report({ link: queue });
  if (address === "$cbs" || (queue === script.queue && !script.refuse_link)) {
    echoTerminus(receiver);
    receiver.local.attach.properties = {
      "com.microsoft:max-message-batch-size": rhea.types.wrap_ulong(script.max_batch_bytes),
    };
  } else {
    const condition = script.refuse_link ?? "amqp:not-found";
    receiver.close({ condition, description: `the link to ${queue} is refused by the script` });
  }
});

container.on("message", (context) => {
  if (context.receiver.target.address === "$cbs") {
    answerToken(context);
    return;
  }
  if (context.receiver.is_closed()) return; // sent before the client saw that its link is refused
  if (deliveriesToDrop > 0) {
    deliveriesToDrop -= 1;
    report({ dropped: true });
    context.connection.socket.destroy();
    return;
  }
  if (deliveriesToReject > 0) {
    deliveriesToReject -= 1;
    const info = { script: "reject_deliveries" }; // without info the SDK's sender hangs
    context.delivery.reject({ condition: "amqp:internal-error", description: "rejected by the script", info });
    return;
  }
  const messages = unpack(context);
  report({ batch: messages.length });
  messages.forEach(record);
  context.delivery.accept();
});

// A dropped connection is part of the play: without listeners rhea would end the process.
for (const event of ["disconnected", "connection_error", "session_error", "receiver_error", "sender_error", "error"]) {
  container.on(event, () => {});
}

container.sasl_server_mechanisms.enable_anonymous();
const server = container.listen({ host: "127.0.0.1", port: script.port, max_frame_size: 65536 });
server.on("listening", () => report({ port: server.address().port }));
process.stdin.on("end", () => process.exit(0)).resume();

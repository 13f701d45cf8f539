// In: a reading. Out: the chosen fields of a chosen device, on <topic>/<device> of the other broker.
const { forward, subscriptions } = env.get("SITE");

function chosen(list, name) {
    return !list || list.length === 0 || list.includes(name);
}

function matches(filter, topic) {
    const levels = topic.split("/");
    const wanted = filter.split("/");
    return wanted.every((level, i) => level === "#" || (i < levels.length && (level === "+" || level === levels[i]))) &&
        (wanted.length === levels.length || wanted[wanted.length - 1] === "#");
}

const topic = `${forward.topic}/${msg.device}`;
if (!chosen(forward.devices, msg.device)) {
    return null;
}
// The other broker may be this one, or hand its topics back to it.
if (subscriptions.some((filter) => matches(filter, topic))) {
    node.error(`site_forward: ${topic} is a topic that readings are taken from; forwarding to it would go in circles`);
    return null;
}
const fields = Object.keys(msg.values).filter((field) => chosen(forward.fields, field));
if (fields.length === 0) {
    return null;
}
const payload = { device: msg.device };
for (const field of fields) {
    payload[field] = msg.values[field];
}
payload.time = msg.time;
return { topic, payload, qos: 1, retain: false };

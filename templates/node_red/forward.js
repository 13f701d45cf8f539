// In: a reading. Out: the selected fields of a selected device, on <topic>/<device> of the other broker.
const { forward, subscriptions } = env.get("SITE");

function selected(list, name) {
    return !list || list.length === 0 || list.includes(name);
}

function matches(filter, topic) {
    const levels = topic.split("/");
    const wanted = filter.split("/");
    return wanted.every((level, i) => level === "#" || (i < levels.length && (level === "+" || level === levels[i]))) &&
        (wanted.length === levels.length || wanted[wanted.length - 1] === "#");
}

const topic = `${forward.topic}/${msg.device}`;
if (!selected(forward.devices, msg.device)) {
    return null;
}
// The other broker may be this one, or forward its topics back to it.
if (subscriptions.some((filter) => matches(filter, topic))) {
    node.error(`site_forward: readings are read from ${topic}; forwarding to it would create a loop`);
    return null;
}
const fields = Object.keys(msg.values).filter((field) => selected(forward.fields, field));
if (fields.length === 0) {
    return null;
}
const payload = { device: msg.device };
for (const field of fields) {
    payload[field] = msg.values[field];
}
payload.time = msg.time;
return { topic, payload, qos: 1, retain: false };

// In: a message from the broker. Out: {device, time, values}, or nothing for what is not a reading.
// What is wrong with such messages is counted and logged by Telegraf.
const site = env.get("SITE");
const EARLIEST = 1577836800; // 2020-01-01: before it a device's clock was not set

let reading;
try {
    reading = JSON.parse(msg.payload);
} catch (error) {
    return null;
}
if (reading === null || typeof reading !== "object" || Array.isArray(reading)) {
    return null;
}

// On its own topic a device is what the topic says, elsewhere what the message says.
const levels = String(msg.topic).split("/");
const own = site.prefix.split("/").concat("+", "reading");
const onOwnTopic = levels.length === own.length && own.every((level, i) => level === "+" || level === levels[i]);
const device = onOwnTopic ? levels[levels.length - 2] : reading.device;
if (typeof device !== "string" || !/^[^/+#\u0000-\u001f]{1,64}$/.test(device) || device === site.probe) {
    return null;
}

const now = Math.round(Date.now() / 1000);
const plausible = Number.isFinite(reading.time) && reading.time >= EARLIEST && reading.time <= now + site.ahead;
const values = {};
for (const field of Object.keys(reading)) {
    if (field !== "time" && Number.isFinite(reading[field])) {
        values[field] = reading[field];
    }
}
return { device, time: plausible ? reading.time : now, values };

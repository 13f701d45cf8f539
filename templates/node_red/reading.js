// In: a message from the broker. Out: {device, time, values}, or nothing if it is not a reading.
// What is a reading is decided as in mqtt_consumer.conf.j2, where Telegraf also counts and logs what is wrong with a message.
const site = env.get("SITE");
const DAY = 86400;

// Node-RED decodes each invalid byte as U+FFFD.
if (msg.payload.includes("\ufffd")) {
    return null;
}
let reading;
try {
    reading = JSON.parse(msg.payload.replace(/\0+$/, "")); // C programs send the final zero byte, too
} catch (error) {
    return null;
}
if (reading === null || typeof reading !== "object" || Array.isArray(reading)) {
    return null;
}

// On its own topic a device is what the topic says, elsewhere what the message says.
const levels = String(msg.topic).split("/");
const own = site.prefix.split("/").concat("+", site.branch);
const onOwnTopic = levels.length === own.length && own.every((level, i) => level === "+" || level === levels[i]);
const device = onOwnTopic ? levels[levels.length - 2] : reading.device;
// It becomes a level of a topic, where / + and # have a meaning.
if (typeof device !== "string" || !isName(device) || /[/+#]/.test(device) || device === site.probe) {
    return null;
}

// Whether the database can store it as a name.
function isName(text) {
    return /^[^\u0000-\u001f\u007f\\]+$/.test(text) && Buffer.byteLength(text) <= site.longest;
}

// Seconds that the site's clocks are ahead of UTC at that moment.
function offset(seconds) {
    const local = new Date(seconds * 1000).toLocaleString("sv-SE", { timeZone: site.zone }); // 2021-07-12 14:40:39
    return Date.parse(`${local.replace(" ", "T")}Z`) / 1000 - seconds;
}

// UTC seconds of the site's local time "2021 7 12 14 40 39", undefined if it is something else. Near a change of daylight saving
// it decides as Telegraf does (mqtt_consumer.conf.j2), apart from what Telegraf remembers of the device's last reading.
function utc(text, now) {
    const parts = /^\d{1,4}( \d{1,4}){5}$/.test(text) ? text.split(" ").map(Number) : [];
    const [year, month, day, hour, minute, second] = parts;
    const date = new Date(Date.UTC(year, month - 1, day, hour, minute, second));
    if (date.getUTCMonth() !== month - 1 || date.getUTCDate() !== day || hour > 23 || minute > 59 || second > 59) {
        return undefined;
    }
    const local = date.getTime() / 1000;
    const [before, after] = [offset(local - DAY), offset(local + DAY)];
    const [early, late] = [local - before, local - after];
    if (offset(late) !== after) {
        return early;
    }
    if (offset(early) !== before) {
        return late;
    }
    return late - 60 <= now && now < late + 900 ? late : early;
}

const now = Math.floor(Date.now() / 1000);
const time = Number.isFinite(reading.time) ? reading.time : utc(reading.sensortime, now);
// Before the earliest time a device's clock was not set.
const plausible = time >= site.earliest && time <= now + site.ahead;
const values = {};
for (const field of Object.keys(reading)) {
    if (!site.reserved.includes(field) && isName(field) && Number.isFinite(reading[field])) {
        values[field] = reading[field];
    }
}
if (Object.keys(values).length === 0) {
    return null;
}
return { device, time: plausible ? time : now, values };

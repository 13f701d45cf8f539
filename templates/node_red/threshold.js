// In: a reading, or the news that the connection to the broker is up.
// Out: {device, field, value, threshold, state, time}, retained, on <alert topic>/<device>/<field> whenever the state
// changes between low, ok and high; all that is known when the connection comes up, so that no alert is lost with it.
const site = env.get("SITE");
const LARGEST = 1000; // pairs of device and field that are remembered of devices that nobody declared
const DAY = 86400;

const known = context.get("known") || {};

function alert(key, payload) {
    return { topic: `${site.alerts}/${key}`, payload, qos: 1, retain: true };
}

// A value has to come back by so much before an alert is over: a reading at the limit would ring all day.
function band({ low, high, minimum, maximum, hysteresis }) {
    if (Number.isFinite(hysteresis)) {
        return hysteresis;
    }
    const ofRange = (maximum - minimum) * 0.02;
    const room = (high - low) / 2;
    return Number.isFinite(ofRange) ? Math.min(ofRange, Number.isFinite(room) ? room : ofRange) : 0;
}

function judge(reading, value, before) {
    const margin = band(reading);
    if (Number.isFinite(reading.low) && value < reading.low + (before === "low" ? margin : 0)) {
        return "low";
    }
    if (Number.isFinite(reading.high) && value > reading.high - (before === "high" ? margin : 0)) {
        return "high";
    }
    return "ok";
}

if (msg.status !== undefined) {
    const connected = /connected$/.test(msg.status.text) && !/dis/.test(msg.status.text);
    return connected ? [Object.keys(known).map((key) => alert(key, known[key].alert))] : null;
}

// Its threshold was taken back, or its device: nobody shall find the old alert. A device that is not declared has a day.
function gone({ alert: { device, field }, seen }) {
    return (
        !site.readings.some((reading) => reading.field === field) ||
        (!site.devices.includes(device) && msg.time - seen > DAY)
    );
}

function full() {
    const keys = Object.keys(known).filter((key) => !site.devices.includes(known[key].alert.device));
    if (keys.length < LARGEST) {
        context.set("warned", false);
        return false;
    }
    if (!context.get("warned")) {
        context.set("warned", true);
        node.warn(`more than ${LARGEST} fields of devices that nobody declared; no more of them are watched`);
    }
    return true;
}

// A time further ahead than this was remembered before there was a limit to it.
const latest = Date.now() / 1000 + site.ahead;
const out = [];
for (const key of Object.keys(known)) {
    if (gone(known[key])) {
        out.push(alert(key, ""));
        delete known[key];
    }
}
for (const reading of site.readings) {
    const value = msg.values[reading.field];
    const key = `${msg.device}/${reading.field}`;
    const before = known[key];
    // What a device held back while it was offline comes late; the newest reading counts.
    if (value === undefined || (before && msg.time < before.seen && before.seen <= latest)) {
        continue;
    }
    if (!before && !site.devices.includes(msg.device) && full()) {
        continue;
    }
    const last = before ? before.alert.state : undefined;
    const state = judge(reading, value, last);
    if (state === last) {
        before.seen = msg.time;
        continue;
    }
    const limit = state === "ok" ? last : state;
    const threshold = limit === undefined ? null : reading[limit];
    const payload = { device: msg.device, field: reading.field, value, threshold, state, time: msg.time };
    known[key] = { alert: payload, seen: msg.time };
    out.push(alert(key, payload));
}
context.set("known", known);
return [out];

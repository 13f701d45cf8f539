// In: a reading, or the state of the connection to the broker.
// Out: {device, field, value, threshold, state, time}, retained, on <alert topic>/<device>/<field> whenever the state
// changes between low, ok and high; all known alerts when the connection is established, so that none is lost.
const site = env.get("SITE");
const LARGEST = 1000; // pairs of device and field that are remembered for undeclared devices
const DAY = 86400;
const SAVED = 3600; // seconds after which the times of the last readings are saved, too

const known = context.get("known") || {};

function alert(key, payload) {
    return { topic: `${site.alerts}/${key}`, payload, qos: 1, retain: true };
}

// How far a value must return before its alert ends. Without it a reading near the limit would raise alerts all day.
function hysteresisOf({ low, high, minimum, maximum, hysteresis }) {
    if (Number.isFinite(hysteresis)) {
        return hysteresis;
    }
    const ofRange = (maximum - minimum) * 0.02;
    const room = (high - low) / 2;
    return Number.isFinite(ofRange) ? Math.min(ofRange, Number.isFinite(room) ? room : ofRange) : 0;
}

function stateOf(reading, value, before) {
    const margin = hysteresisOf(reading);
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

// Whether to remove an alert, since its threshold was removed, or its device is not declared and has been silent for a day.
function isObsolete({ alert: { device, field }, seen }) {
    return (
        !site.readings.some((reading) => reading.field === field) ||
        (!site.devices.includes(device) && msg.time - seen > DAY)
    );
}

function isFull() {
    const keys = Object.keys(known).filter((key) => !site.devices.includes(known[key].alert.device));
    if (keys.length < LARGEST) {
        context.set("warned", false);
        return false;
    }
    if (!context.get("warned")) {
        context.set("warned", true);
        node.warn(`more than ${LARGEST} fields of undeclared devices; further ones are not watched`);
    }
    return true;
}

// Times further ahead were remembered before they were limited.
const latest = Date.now() / 1000 + site.ahead;
const out = [];
for (const key of Object.keys(known)) {
    if (isObsolete(known[key])) {
        out.push(alert(key, ""));
        delete known[key];
    }
}
for (const reading of site.readings) {
    const value = msg.values[reading.field];
    const key = `${msg.device}/${reading.field}`;
    const before = known[key];
    // A device sends the readings that it kept while it was offline late; only the newest counts.
    if (value === undefined || (before && msg.time < before.seen && before.seen <= latest)) {
        continue;
    }
    if (!before && !site.devices.includes(msg.device) && isFull()) {
        continue;
    }
    const last = before ? before.alert.state : undefined;
    const state = stateOf(reading, value, last);
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
// Node-RED writes what is set to the card: changed alerts soon, the times of the last readings rarely.
const now = Date.now() / 1000;
if (out.length || Math.abs(now - (context.get("saved") || 0)) > SAVED) {
    context.set("known", known);
    context.set("saved", now);
}
return [out];

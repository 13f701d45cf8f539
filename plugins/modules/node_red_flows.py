#!/usr/bin/python
"""Merge declared flows and their credentials with those that were made in Node-RED's editor, in one call."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import stat
import tempfile

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: node_red_flows
short_description: Manage some of Node-RED's flows, and leave the others alone
description:
  - Writes the declared nodes to C(flows.json) and their credentials to C(flows_cred.json). Nodes with other ids, and their
    credentials, are not changed.
  - A file beside the flows records which nodes were declared. A node that is no longer declared is removed, unless a
    node that was made in the editor is on it (a tab) or refers to it (a configuration node).
  - In a declared node the declared properties have priority. Properties that the editor adds, and wires that were drawn to
    undeclared nodes, are kept.
  - Credentials are encrypted as Node-RED does it (AES-256-CTR with the SHA-256 of the secret as key), by the host's
    Node.js. If the secret has changed, they are first decrypted with the one in O(credential_secret_file).
  - Node-RED reads both files when it starts.
options:
  flows:
    description: The declared nodes, in the format of an export from the editor.
    type: list
    elements: dict
    required: true
  credentials:
    description: "Credentials of the declared nodes, as C({node id: {field: value}})."
    type: dict
    default: {}
  credential_secret:
    description: The C(credentialSecret) of the settings.
    type: str
    required: true
  credential_secret_file:
    description: File with the secret that was used until now.
    type: path
    required: true
  user_dir:
    description: Node-RED's C(userDir).
    type: path
    required: true
  owner:
    description: The account that Node-RED runs as; its group is the files' group, too.
    type: str
    default: node-red
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    description: The nodes that differ, and the names of credentials.
"""

EXAMPLES = r"""
- name: Merge the flows
  tig_pi.stack.node_red_flows:
    flows: "{{ lookup('ansible.builtin.template', 'flows.json.j2') | from_json }}"
    credentials: {local-broker: {user: node_red, password: "{{ mqtt_password }}"}}
    credential_secret: "{{ node_red_credential_secret }}"
    credential_secret_file: /etc/node-red/credential_secret
    user_dir: /var/lib/node-red
"""

RETURN = r"""
nodes:
  description: Ids of the nodes that were added, changed or removed.
  type: dict
  returned: always
  sample: {"added": ["alerts"], "changed": [], "removed": []}
"""

FLOWS, CREDENTIALS, RECORD = "flows.json", "flows_cred.json", ".declared-flows.json"
# The mode that Node-RED's own files have, from the umask of its unit.
MODE = 0o600

# Decrypts and encrypts flows_cred.json like Node-RED's runtime/lib/nodes/credentials.js. The initialisation vector is
# derived from secret and content, so that the same credentials give the same file.
CIPHER = r"""
const crypto = require("crypto");
const key = (secret) => crypto.createHash("sha256").update(secret).digest();
const input = JSON.parse(require("fs").readFileSync(0, "utf8"));
if (input.encrypt !== undefined) {
    const text = JSON.stringify(input.encrypt);
    const iv = crypto.createHmac("sha256", input.secret).update(text).digest().subarray(0, 16);
    const cipher = crypto.createCipheriv("aes-256-ctr", key(input.secret), iv);
    const data = Buffer.concat([cipher.update(text, "utf8"), cipher.final()]);
    console.log(JSON.stringify({ $: iv.toString("hex") + data.toString("base64") }));
} else {
    const iv = Buffer.from(input.decrypt.substring(0, 32), "hex");
    for (const [index, secret] of input.secrets.entries()) {
        try {
            const cipher = crypto.createDecipheriv("aes-256-ctr", key(secret), iv);
            const data = cipher.update(Buffer.from(input.decrypt.substring(32), "base64"));
            const text = new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat([data, cipher.final()]));
            console.log(JSON.stringify({ credentials: JSON.parse(text), secret: index }));
            process.exit(0);
        } catch (error) {
            // not this one
        }
    }
    console.log("{}");
}
"""


class FlowsError(Exception):
    """The flows cannot be merged; the message says what to do."""


def check_declared(declared, credentials):
    """Refuse flows that Node-RED would accept, but not run."""
    seen = {}
    for number, node in enumerate(declared, 1):
        name = node.get("id")
        if not isinstance(name, str) or not name or not isinstance(node.get("type"), str):
            raise FlowsError(f"Node {number} of the declared flows has no id or no type: {json.dumps(node)[:200]}")
        if name in seen:
            raise FlowsError(f"The id {name} is declared twice in the flows.")
        seen[name] = node
    tabs = {name for name, node in seen.items() if node["type"] in ("tab", "subflow")}
    for name, node in seen.items():
        if "z" in node and node["z"] not in tabs:
            raise FlowsError(f"Node {name} is on the tab {node['z']}, which is not declared.")
        for target in (target for port in node.get("wires", []) for target in port):
            if target not in seen:
                raise FlowsError(f"Node {name} is wired to {target}, which is not declared.")
    for name in credentials:
        if name not in seen:
            raise FlowsError(f"There are credentials for {name}, which is not declared in the flows.")


def references(node):
    """Ids that a node needs: its tab, its group, its configuration nodes, but not its wires."""
    pending = [value for name, value in node.items() if name not in ("id", "wires", "links", "func", "info")]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def still_needed(present, declared, recorded):
    """Ids that are no longer declared, but that a node made in the editor still needs."""
    candidates = {name for name in recorded if name not in declared}
    by_id = {node.get("id"): node for node in present}
    needed = set()
    pending = [node for name, node in by_id.items() if name not in recorded and name not in declared]
    while pending:
        for name in references(pending.pop()):
            if name in candidates and name in by_id and name not in needed:
                needed.add(name)
                pending.append(by_id[name])
    return needed


def merged_wires(declared, present, people):
    """The declared wires, and those that were drawn in the editor to undeclared nodes."""
    ports = []
    for number, port in enumerate(declared):
        before = present[number] if number < len(present) else []
        wanted = port + [target for target in before if target in people and target not in port]
        ports.append(before if sorted(before) == sorted(wanted) else wanted)
    return ports


def merged_node(present, declared, recorded, people):
    """A declared node as it is to be written. What the editor added is kept until the declaration changes."""
    node = {**present, **declared} if recorded == declared else dict(declared)
    if "wires" in declared:
        node["wires"] = merged_wires(declared["wires"], present.get("wires", []), people)
    return node


def merge_flows(present, declared, recorded):
    """The list of nodes as it is to be written, in its present order.

    present: list of nodes; declared: list of nodes; recorded: {id: node as it was declared last time}.
    Returns the list and the nodes to record.
    """
    wanted = {node["id"]: node for node in declared}
    people = {node.get("id") for node in present} - set(wanted) - set(recorded)
    needed = still_needed(present, wanted, recorded)
    merged = []
    for node in present:
        name = node.get("id")
        if name in wanted:
            merged.append(merged_node(node, wanted[name], recorded.get(name), people))
        elif name not in recorded or name in needed:
            merged.append(node)
    known = {node.get("id") for node in present}
    merged += [node for node in declared if node["id"] not in known]
    return merged, {**{name: recorded[name] for name in sorted(needed)}, **wanted}


def merge_credentials(present, declared, recorded, nodes):
    """All credentials as they are to be written; recorded: {id: [fields that were declared]}; nodes: ids that exist."""
    merged = {name: dict(fields) for name, fields in present.items()}
    for name, fields in recorded.items():
        for field in fields:
            if field not in declared.get(name, {}):
                merged.get(name, {}).pop(field, None)
    for name, fields in declared.items():
        merged.setdefault(name, {}).update(fields)
    # Credentials of removed nodes are removed, as by a deploy in the editor.
    return {name: fields for name, fields in merged.items() if name in nodes and fields}


class Store:
    """Node-RED's files on this host."""

    def __init__(self, module):
        self.module = module
        self.user_dir = module.params["user_dir"]
        self.owner = module.params["owner"]

    def path(self, name):
        return os.path.join(self.user_dir, name)

    def load(self, name, default, kind):
        try:
            with open(self.path(name), encoding="utf-8") as file:
                text = file.read()
        except FileNotFoundError:
            return default
        try:
            value = json.loads(text) if text.strip() else default
        except ValueError as error:
            raise FlowsError(
                f"{self.path(name)} is not valid JSON ({error}). "
                f"Replace it with Node-RED's backup ({self.path('.' + name + '.backup')}), or move it away."
            ) from error
        if not isinstance(value, kind):
            raise FlowsError(f"{self.path(name)} does not have the format that Node-RED writes; move it away.")
        return value

    def ids(self):
        return pwd.getpwnam(self.owner).pw_uid, grp.getgrnam(self.owner).gr_gid

    def attributes_differ(self, name):
        try:
            found = os.stat(self.path(name))
            return stat.S_IMODE(found.st_mode) != MODE or (found.st_uid, found.st_gid) != self.ids()
        except (FileNotFoundError, KeyError):
            return False

    def write(self, name, text):
        with contextlib.suppress(FileExistsError):
            os.makedirs(self.user_dir, mode=0o750)
            os.chown(self.user_dir, *self.ids())
        handle, temporary = tempfile.mkstemp(prefix=".ansible-", dir=self.user_dir)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fchmod(handle, MODE)
                os.fchown(handle, *self.ids())
                os.fsync(handle)
            os.replace(temporary, self.path(name))
        except BaseException:
            with contextlib.suppress(OSError):
                os.remove(temporary)
            raise

    def set_attributes(self, name):
        os.chmod(self.path(name), MODE)
        os.chown(self.path(name), *self.ids())

    def cipher(self, request):
        code, out, err = self.module.run_command(["node", "-e", CIPHER], data=json.dumps(request))
        if code != 0:
            raise FlowsError(f"Node.js could not decrypt or encrypt the credentials: {err.strip()[-300:]}")
        return json.loads(out)

    def secrets(self):
        """The secrets that the credentials may be encrypted with, the declared one first."""
        found = [self.module.params["credential_secret"].strip()]
        with contextlib.suppress(FileNotFoundError), open(self.module.params["credential_secret_file"]) as file:
            found.append(file.read().strip())
        # Generated by Node-RED if its settings have no credentialSecret.
        with contextlib.suppress(OSError, ValueError, AttributeError), open(self.path(".config.runtime.json")) as file:
            found.append(json.load(file).get("_credentialSecret"))
        return [secret for secret in found if secret]

    def credentials(self):
        """The credentials in flows_cred.json, and whether they are encrypted with the declared secret."""
        stored = self.load(CREDENTIALS, {}, dict)
        if not stored:
            return {}, True
        if "$" not in stored:
            return stored, False
        answer = self.cipher({"decrypt": stored["$"], "secrets": self.secrets()})
        if "credentials" not in answer:
            raise FlowsError(
                f"{self.path(CREDENTIALS)} is encrypted with an unknown secret, neither the declared credential "
                f"secret nor the one in {self.module.params['credential_secret_file']}. Restore the secret, or move "
                "the file away; credentials that were entered in the editor are then lost."
            )
        return answer["credentials"], answer["secret"] == 0


def by_id(nodes):
    return {node.get("id"): node for node in nodes}


def difference(before, after):
    """Ids that were added, changed and removed."""
    old, new = by_id(before), by_id(after)
    return {
        "added": [name for name in new if name not in old],
        "changed": [name for name in new if name in old and new[name] != old[name]],
        "removed": [name for name in old if name not in new],
    }


def pretty(value):
    # Node-RED's own format with flowFilePretty.
    return json.dumps(value, indent=4, ensure_ascii=False)


def shown(nodes, names):
    return "".join(pretty(node) + "\n" for node in nodes if node.get("id") in names)


def names_of(credentials):
    return "".join(f"{node}: {', '.join(sorted(fields))}\n" for node, fields in sorted(credentials.items()))


def side_by_side(path, before, after):
    return {"before": before, "after": after, "before_header": path, "after_header": path}


def run(module):
    params = module.params
    declared, credentials = params["flows"], params["credentials"]
    check_declared(declared, credentials)
    store = Store(module)
    present = store.load(FLOWS, [], list)
    record = store.load(RECORD, {"nodes": {}, "credentials": {}}, dict)
    flows, recorded = merge_flows(present, declared, record["nodes"])
    nodes = difference(present, flows)

    known, current_secret = store.credentials()
    wanted = merge_credentials(known, credentials, record["credentials"], set(by_id(flows)))
    new_record = {"nodes": recorded, "credentials": {name: sorted(fields) for name, fields in credentials.items()}}

    write = {
        FLOWS: flows != present,
        CREDENTIALS: wanted != known or not current_secret,
        RECORD: new_record != record,
    }
    attributes = [name for name in write if not write[name] and store.attributes_differ(name)]

    diff = []
    if write[FLOWS]:
        names = {name for group in nodes.values() for name in group}
        diff.append(side_by_side(store.path(FLOWS), shown(present, names), shown(flows, names)))
    if write[CREDENTIALS]:
        after = names_of(wanted) + "(secrets, changed)\n"
        diff.append(side_by_side(store.path(CREDENTIALS), names_of(known), after))

    if not module.check_mode:
        # Credentials first: flows that do not use them yet ignore them.
        if write[CREDENTIALS]:
            encrypted = store.cipher({"encrypt": wanted, "secret": params["credential_secret"].strip()})
            store.write(CREDENTIALS, pretty(encrypted))
        if write[RECORD]:
            # Until the flows are written, both the old and the new nodes count as declared.
            between = {"nodes": {**record["nodes"], **recorded}, "credentials": record["credentials"]}
            store.write(RECORD, pretty(between))
        if write[FLOWS]:
            store.write(FLOWS, pretty(flows))
        if write[RECORD]:
            store.write(RECORD, pretty(new_record))
        for name in attributes:
            store.set_attributes(name)
    changed = any(write.values()) or bool(attributes)
    module.exit_json(changed=changed, restart=write[FLOWS] or write[CREDENTIALS], nodes=nodes, diff=diff)


def main():
    module = AnsibleModule(
        argument_spec={
            "flows": {"type": "list", "elements": "dict", "required": True},
            "credentials": {"type": "dict", "default": {}, "no_log": True},
            "credential_secret": {"type": "str", "required": True, "no_log": True},
            "credential_secret_file": {"type": "path", "required": True, "no_log": False},
            "user_dir": {"type": "path", "required": True},
            "owner": {"type": "str", "default": "node-red"},
        },
        supports_check_mode=True,
    )
    try:
        run(module)
    except FlowsError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()

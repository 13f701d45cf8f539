#!/usr/bin/python
"""Make the program on a sensor node the declared one, over its serial port."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lopy4_program
short_description: Make the program on a sensor node the declared one, over its serial port
description:
  - Compares by hash on the device, sends only what differs into the slot that is not running, copies the rest there on the
    device, checks the slot as a whole, and then moves the boot pointer. A program that does not start hands back to the old one.
  - Whatever breaks off in between, the old program is the one that boots, and the next run completes.
  - The device is restarted in any case, because its program has to be interrupted to look at it.
options:
  name:
    description: Name of the device, for messages.
    type: str
    required: true
  port:
    description: Serial port. Without one the device is found by O(mac).
    type: str
  mac:
    description: MAC of the chip. Another chip on the port is an error, before anything is written.
    type: str
  program:
    description: Directory with loader.py and lib/, on the controller.
    type: path
    required: true
  settings:
    description: Content of settings.json. It is never shown.
    type: str
    required: true
  start_timeout:
    description: Seconds that the new program has to say that it works, or that it waits for the broker; 0 does not wait.
    type: int
    default: 150
requirements: [pyserial]
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: Put the program on the device
  lopy4_program:
    name: greenhouse
    port: /dev/ttyACM0
    program: firmware
    settings: "{{ lookup('template', 'settings.json.j2') }}"
  delegate_to: pi
"""

RETURN = r"""
slot:
  description: Slot that runs.
  type: str
  returned: success
version:
  description: Version of the program that was declared.
  type: str
  returned: success
previous_version:
  description: Version of the one that was there before; empty if there was none.
  type: str
  returned: success
bytes:
  description: Bytes that went down the line.
  type: int
  returned: success
written:
  description: Bytes that were sent and written on the device.
  type: int
  returned: success
seconds:
  description: Duration from opening the port to the restart of the device.
  type: float
  returned: success
files:
  description: Files that were C(sent), and files that were C(copied) on the device.
  type: dict
  returned: success
repaired:
  description: What was missing or damaged of what an earlier run had put there.
  type: list
  elements: str
  returned: success
waits:
  description: >-
    Whether the new program has not reached the broker within a minute. Where it does not within ten, the device goes back to
    the program before.
  type: bool
  returned: success
mac:
  description: MAC of the chip.
  type: str
  returned: success
firmware:
  description: Name and release of the interpreter.
  type: str
  returned: success
"""

import base64
import json
import time
import zlib

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.lopy4_line import PYSERIAL, DeviceError
from ansible.module_utils.lopy4_upload import ROOT_FILES, SETTINGS, Upload
from ansible.module_utils.lopy4_visit import Progress, check_mac, port_of, visit, written


def difference(upload: Upload, name: str) -> list[dict]:
    """Ansible's diff; settings.json is named and not shown."""
    shown = []
    declared = {**upload.files, **upload.root_files}
    for path, how in upload.differences():
        if path == SETTINGS:
            before, after = ("" if how == "new" else "(not shown)\n"), f"({how}, not shown)\n"
        elif how == "new":
            before, after = "", f"({len(declared[path])} bytes)\n"
        else:
            place = path if path in ROOT_FILES else f"{upload.slot}/{path}"
            before = upload.text(place)
            after = "" if how == "removed" else declared[path].decode("utf-8", "replace")
        shown.append(
            {"before_header": f"{name}: {path}", "after_header": f"{name}: {path}", "before": before, "after": after}
        )
    return shown


def run(module: AnsibleModule, progress: Progress) -> dict:
    asked = module.params
    payload = json.loads(zlib.decompress(base64.b64decode(asked["packed"])))
    files = {path: base64.b64decode(data) for path, data in payload["files"].items()}
    root = {path: files.pop(path) for path in ROOT_FILES}
    path = asked["port"] or port_of(asked["mac"], asked["name"])
    began = time.monotonic()
    result: dict = {"changed": False, "diff": [], "waits": False, "repaired": []}
    with visit(path) as repl:
        upload = Upload(repl, files, root, payload["version"], progress)
        upload.look()
        check_mac(upload.mac, asked["mac"] or "", path, asked["name"])
        result.update(
            mac=written(upload.mac),
            firmware=f"{upload.uname['machine']}, {upload.uname['release']}",
            platform=upload.platform,
            version=payload["version"],
            previous_version=upload.previous_version,
            slot=upload.slot,
            port=path,
        )
        if not upload.unchanged:
            result["changed"] = True
            if module._diff:
                result["diff"] = difference(upload, asked["name"])
            if not module.check_mode:
                damage = upload.damage()
                result["slot"] = upload.change()
                result["repaired"] = damage
        repl.reset()
        result.update(
            seconds=round(time.monotonic() - began, 2),
            bytes=repl.line.sent,
            written=upload.written,
            files={"sent": upload.sent_files, "copied": upload.copied_files},
        )
        if result["changed"] and not module.check_mode and asked["start_timeout"]:
            progress.next = 0.0
            progress("sent; waiting until the new program works")
            works, said = upload.started(result["slot"], asked["start_timeout"])
            if not works:
                before = result["previous_version"]
                back = f"The device goes back to version {before}." if before else "There is no older one."
                module.fail_json(
                    msg=f"The program does not start on {asked['name']}. {back} It says:\n{said or '(nothing)'}",
                    **result,
                )
            result["waits"] = bool(said)
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "port": {"type": "str"},
            "mac": {"type": "str"},
            "start_timeout": {"type": "int", "default": 150},
            # What the action plugin makes of O(program) and O(settings), and where it looks for our progress.
            "packed": {"type": "str", "required": True, "no_log": True},
            "progress": {"type": "str"},
        },
        required_one_of=[("port", "mac")],
        supports_check_mode=True,
    )
    if not PYSERIAL:
        if module.check_mode:  # nothing can be asked yet on a host that a run would make ready
            module.exit_json(changed=True, msg="python3-serial is not there yet: what is on the device is unknown.")
        module.fail_json(msg=missing_required_lib("pyserial (Debian: python3-serial)"))
    progress = Progress(module.params["progress"])
    try:
        result = run(module, progress)
    except DeviceError as error:
        module.fail_json(msg=f"{module.params['name']}: {error}")
    finally:
        progress.end()
    module.exit_json(**result)


if __name__ == "__main__":
    main()

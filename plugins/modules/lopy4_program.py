#!/usr/bin/python
"""Install a program on a sensor node over its serial port."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lopy4_program
short_description: Install a program on a sensor node over its serial port
description:
  - Compares hashes on the device, sends the files that differ to the slot that is not running, copies the others there on the
    device, verifies the slot as a whole, and then moves the boot pointer. If the program does not start, the previous one returns.
  - If the upload is interrupted, the previous program boots, and the next run completes the upload.
  - The device is always restarted, because its program must be interrupted for the comparison.
extends_documentation_fragment: tig_pi.stack.lopy4_device
options:
  program:
    description: Directory with loader.py and lib/, on the controller.
    type: path
    required: true
  drivers:
    description: Directory of further sensor drivers, on the controller. It may be absent.
    type: path
  settings:
    description: Content of settings.json. It is never logged.
    type: str
    required: true
  start_timeout:
    description: Seconds that the new program has to report that it works, or that it is waiting for the broker; 0 does not wait.
    type: int
    default: 150
  format_command:
    description: Command that formats the device and installs the program, for messages.
    type: str
    required: true
requirements: [pyserial]
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: Install the program
  tig_pi.stack.lopy4_program:
    name: greenhouse
    port: /dev/ttyACM0
    program: firmware
    settings: "{{ lookup('template', 'settings.json.j2') }}"
    format_command: ansible-playbook devices.yml --limit greenhouse --tags lopy4_erase_fs,lopy4
  delegate_to: pi
"""

RETURN = r"""
slot:
  description: Slot that runs.
  type: str
  returned: success
version:
  description: Version of the declared program.
  type: str
  returned: success
previous_version:
  description: Version of the previous program; empty if there was none.
  type: str
  returned: success
bytes:
  description: Bytes sent over the serial line.
  type: int
  returned: success
written:
  description: Bytes that were sent and written on the device.
  type: int
  returned: success
seconds:
  description: Seconds from opening the port to the restart of the device.
  type: float
  returned: success
files:
  description: Files that were C(sent), and files that were C(copied) on the device.
  type: dict
  returned: success
repaired:
  description: Files of an earlier run that were missing or damaged.
  type: list
  elements: str
  returned: success
waits:
  description: >-
    Whether the new program has not reached the broker within a minute. If it does not within ten minutes, the device returns to
    the previous program.
  type: bool
  returned: success
sensor_faults:
  description: What is wrong with the sensors that failed when the new program read them first, by their names.
  type: dict
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
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.progress import Progress
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.session import check_mac, port_of, visit, written
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.transport import DeviceError, require_pyserial
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.upload import (
    ROOT_FILES,
    SETTINGS,
    FormatNeeded,
    Upload,
)
from ansible_collections.tig_pi.stack.plugins.module_utils.packing import unpack

FORMAT = " `{}` creates a new file system (LittleFS, which survives power cuts) and installs the program; the LoRa and Sigfox keys are kept."


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


def made_room(name: str, since: int) -> str:
    which = "all of them" if since == 1 else time.strftime("those before %Y-%m-%d %H:%M:%S UTC", time.gmtime(since))
    return f"{name}: the oldest readings on the device made room for the program; it cannot send {which} again."


def run(module: AnsibleModule, progress: Progress) -> dict:
    asked = module.params
    payload = unpack(asked["packed"])
    files = {path: base64.b64decode(data) for path, data in payload["files"].items()}
    root = {path: files.pop(path) for path in ROOT_FILES}
    path = asked["port"] or port_of(asked["mac"], asked["name"])
    began = time.monotonic()
    result: dict = {"changed": False, "diff": [], "waits": False, "repaired": [], "sensor_faults": {}}
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
                if upload.kept_since:
                    module.warn(made_room(asked["name"], upload.kept_since))
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
            progress("sent; waiting for the new program")
            start = upload.started(result["slot"], asked["start_timeout"])
            if not start.works:
                before = result["previous_version"]
                back = f"The device returns to version {before}." if before else "There is no previous one."
                module.fail_json(
                    msg=f"The program does not start on {asked['name']}. {back} Its output:\n{start.said or '(nothing)'}",
                    **result,
                )
            result.update(waits=start.waits, sensor_faults=start.faults)
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "port": {"type": "str"},
            "mac": {"type": "str"},
            "start_timeout": {"type": "int", "default": 150},
            "format_command": {"type": "str", "required": True},
            # The action plugin packs O(program) and O(settings), and reads the progress from a file.
            "packed": {"type": "str", "required": True, "no_log": True},
            "progress": {"type": "str"},
        },
        required_one_of=[("port", "mac")],
        supports_check_mode=True,
    )
    require_pyserial(module, changed=True)
    progress = Progress(module.params["progress"])
    try:
        result = run(module, progress)
    except DeviceError as error:
        advice = FORMAT.format(module.params["format_command"]) if isinstance(error, FormatNeeded) else ""
        module.fail_json(msg=f"{module.params['name']}: {error}{advice}")
    finally:
        progress.end()
    module.exit_json(**result)


if __name__ == "__main__":
    main()

"""Telegraf's secrets: written as systemd reads them, and what is said of those that cannot work."""

from __future__ import annotations

import pytest
from ansible_collections.tig_pi.stack.plugins.filter import telegraf as filters
from chain import PASSWORD
from project import load

validator = load("roles/telegraf/files/telegraf-validate")


@pytest.mark.parametrize(
    "secret", [PASSWORD, "plain", "`id`", "\\", '"', "ends with \\\\", "# not a comment", " spaces "]
)
def test_a_secret_is_read_unchanged(tmp_path, secret):
    file = tmp_path / "telegraf.env"
    file.write_text(filters.telegraf_environment({"A": secret, "B": "other"}))
    assert validator.secrets(file) == {"A": secret, "B": "other"}


@pytest.mark.parametrize(
    ("templates", "secrets", "word"),
    [
        ([], {}, "telegraf_config_templates is empty"),
        (["/a/x.conf"], {}, "/a/x.conf"),
        (["/a/x.conf.j2", "/b/x.conf.j2"], {}, "the same file"),
        (["/a/x.conf.j2"], {"A-B": "x"}, "A-B"),
        (["/a/x.conf.j2"], {"A": ""}, "A is empty"),
        (["/a/x.conf.j2"], {"A": 5}, "A is empty, or not a string"),
        (["/a/x.conf.j2"], {"A": "x\ny"}, "A: a secret must not contain line breaks"),
        (["/a/x.conf.j2"], {"A": "x@{y:z}"}, "control characters or @{"),
    ],
)
def test_invalid_variables_are_reported(templates, secrets, word):
    [problem] = filters.telegraf_problems(templates, secrets)
    assert word in problem

"""The lookup grafana_content: what Grafana would leave out without a word is an error that names the file."""

from __future__ import annotations

import json

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar


@pytest.fixture
def content(tmp_path):
    """Run the lookup over files with these texts: a name that begins with `alert` is an alerting template."""

    def run(variables=None, receivers=(), folder="house", **files):
        loader, variables = DataLoader(), {"ansible_search_path": [str(tmp_path)], **(variables or {})}
        lookup = lookup_loader.get(
            "tig_pi.stack.grafana_content", loader=loader, templar=Templar(loader=loader, variables=variables)
        )
        boards, alerts = [], []
        for name, (ending, text) in files.items():
            path = tmp_path / f"{name}{ending}"
            path.write_text(text)
            if name.startswith("alert"):
                alerts.append(str(path))
            else:
                kind = "template" if ending.endswith(".j2") else "path"
                boards.append({"name": name, "folder": folder, kind: str(path)})
        return lookup.run(
            [], variables, dashboards=boards, alerting=alerts, datasources=["influx"], receivers=list(receivers)
        )[0]

    return run


def board(**more):
    return {"uid": "a", "title": "A", "panels": [], **more}


def panel(width=12, height=8, **more):
    return {"type": "stat", "title": "t", "gridPos": {"w": width, "h": height}, **more}


def rule(**more):
    steps = [
        {"refId": "A", "datasourceUid": "influx", "model": {}},
        {"refId": "B", "datasourceUid": "__expr__", "model": {}},
    ]
    return {"uid": "r", "title": "R", "condition": "B", "data": steps, "for": "5m", **more}


def group(*rules, **more):
    return {"apiVersion": 1, "groups": [{"name": "g", "folder": "f", "interval": "1m", "rules": list(rules), **more}]}


def written(result):
    return {file["dest"]: file["content"] for file in result["files"]}


def test_a_dashboard_becomes_strict_json_in_the_directory_of_its_folder(content):
    result = content(folder="My house!", a=(".yml.j2", "uid: a # why\ntitle: {{ 'Å' }}\npanels: []\n"))
    [(dest, text)] = written(result).items()
    assert dest == "/etc/grafana/dashboards/my-house/a.json"
    assert json.loads(text) == {"uid": "a", "title": "Å", "panels": [], "schemaVersion": 42}
    assert result["folders"] == [{"title": "My house!", "uid": "my-house"}]
    assert result["dashboards"] == ["a"]


def test_a_file_that_is_not_a_template_is_not_changed(content):
    text = json.dumps(board(description="{{ not.for.us }}", id=7))
    [text] = written(content(a=(".json", text))).values()
    assert json.loads(text)["description"] == "{{ not.for.us }}"
    assert "id" not in json.loads(text)


def test_panels_are_put_side_by_side_and_numbered(content):
    row = {"type": "row", "title": "r", "gridPos": {"w": 24, "h": 1}}
    panels = [row, panel(12, 4), panel(8, 8, id=2), panel(8, 2), panel(24, 1), row, panel(4, 4)]
    [text] = written(content(a=(".json", json.dumps(board(panels=panels))))).values()
    placed = [(one["id"], one["gridPos"]["x"], one["gridPos"]["y"]) for one in json.loads(text)["panels"]]
    assert placed == [(1, 0, 0), (3, 0, 1), (2, 12, 1), (4, 0, 9), (5, 0, 11), (6, 0, 12), (7, 0, 13)]


def test_panels_with_a_position_keep_it(content):
    panels = [panel(gridPos={"x": 3, "y": 2, "w": 5, "h": 4}), panel(4, 4)]
    [text] = written(content(a=(".json", json.dumps(board(panels=panels))))).values()
    first, second = (one["gridPos"] for one in json.loads(text)["panels"])
    assert first == {"x": 3, "y": 2, "w": 5, "h": 4}
    assert (second["x"], second["y"]) == (0, 6)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (json.dumps(board()) + " and more", "Extra data in line 1"),
        ('{"uid": "a", "title": "A",}', "is not JSON"),
        ('{"uid": "a", "uid": "b", "title": "A"}', "'uid' twice"),
        ('{"uid": "a", "title": "A", "version": NaN}', "NaN"),
        ("[]", "is not a dashboard"),
        (json.dumps({"dashboard": board(), "meta": {}}), "keep only the content of 'dashboard'"),
        (json.dumps(board(__inputs=[])), "exported for sharing"),
        (json.dumps(board(title=" ")), "has no title"),
        (json.dumps(board(uid="u" * 41)), "at most 40"),
        (json.dumps(board(uid="ö")), "at most 40"),
        (json.dumps(board(uid=None)), "at most 40"),
        (json.dumps(board(panels=[panel(25)])), "does not fit"),
        (json.dumps(board(panels=[{"type": "stat", "title": "t"}])), "panel 't' has no gridPos"),
        (json.dumps(board(panels=[panel(id=1), panel(id=1)])), "2 panels with the id 1"),
        (json.dumps(board(panels=[panel(gridPos={"x": 0, "y": 0, "w": 9, "h": 9})] * 2)), "ids|id 1|overlap"),
        (json.dumps(board(panels=[panel(datasource={"uid": "other"})])), "the provisioned ones are influx"),
        (
            json.dumps(board(panels=[panel(targets=[{"datasource": {"uid": "other"}}])])),
            "the provisioned ones are influx",
        ),
        (json.dumps(board(templating={"list": [{"datasource": "other"}]})), "the provisioned ones are influx"),
    ],
)
def test_an_error_in_a_dashboard_is_reported_with_its_file(content, text, complaint):
    with pytest.raises(AnsibleError, match=complaint) as error:
        content(a=(".json", text))
    assert "a.json" in str(error.value)


def test_overlapping_panels_are_reported(content):
    panels = [panel(title=name, gridPos={"x": x, "y": 0, "w": 9, "h": 9}) for name, x in (("one", 0), ("other", 8))]
    with pytest.raises(AnsibleError, match="'one' and 'other' overlap"):
        content(a=(".json", json.dumps(board(panels=panels))))


def test_built_in_data_sources_and_variables_are_fine(content):
    targets = [{"datasource": {"uid": uid}} for uid in ("-- Mixed --", "__expr__", "$source", "${source}", "influx")]
    assert content(a=(".json", json.dumps(board(panels=[panel(targets=targets)]))))["dashboards"] == ["a"]


@pytest.mark.parametrize(
    ("other", "complaint"),
    [(board(title="B"), "dashboard uid 'a'"), (board(uid="b"), "dashboard 'house/A'")],
)
def test_identifiers_that_two_dashboards_share_are_reported(content, other, complaint):
    with pytest.raises(AnsibleError, match=complaint) as error:
        content(a=(".json", json.dumps(board())), b=(".json", json.dumps(other)))
    assert "a.json" in str(error.value)
    assert "b.json" in str(error.value)


def test_a_template_that_cannot_be_rendered_is_reported(content):
    with pytest.raises(AnsibleError, match=r"(?s)a\.yml\.j2.*nowhere"):
        content(a=(".yml.j2", "uid: {{ nowhere }}"))


def test_invalid_yaml_is_reported_with_its_line(content):
    with pytest.raises(AnsibleError, match=r"a\.yml\.j2 is not YAML.*line 2"):
        content(a=(".yml.j2", "uid: a\n title: A\n"))


def test_rules_are_returned_and_written_as_yaml(content):
    model = group(rule(annotations={"summary": "{{ $labels.device }}"}))
    text = yaml.safe_dump(model).replace("{{", "{{ '{{' }}")
    result = content(alerts=(".yml.j2", text))
    assert result["rules"] == ["r"]
    [(dest, text)] = written(result).items()
    assert dest == "/etc/grafana/provisioning/alerting/alerts.yaml"
    assert yaml.safe_load(text) == model


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (group(rule(), interval="7s"), "multiple of 10s"),
        (group(rule(), interval="soon"), "multiple of 10s"),
        (group(rule(), folder=""), "a name and a folder"),
        (group(rule(uid="u" * 41)), "at most 40"),
        (group(rule(title="")), "has no title"),
        (group(rule(condition="Z")), "condition 'Z'; the queries are A, B"),
        (group(rule(data=[{"refId": "B", "datasourceUid": "other"}])), "the provisioned ones are influx"),
        (group(rule(noDataState="Bogus")), "noDataState 'Bogus'"),
        (group(rule(execErrState="NoData")), "execErrState 'NoData'"),
        (group(rule(**{"for": "a while"})), "a duration such as 5m"),
        (group(rule(notification_settings={"receiver": "nobody"})), "notifies 'nobody'"),
        (group(rule(), rule(title="S")), "rule uid 'r'"),
        (group(rule(), rule(uid="s")), "rule 'f/R'"),
        (
            {"apiVersion": 1, "policies": [{"receiver": "house", "routes": [{"receiver": "nobody"}]}]},
            "policy for 'nobody'",
        ),
    ],
)
def test_an_error_in_a_rule_is_reported_with_its_file(content, model, complaint):
    with pytest.raises(AnsibleError, match=complaint) as error:
        content(receivers=["house"], alerts=(".yml.j2", yaml.safe_dump(model)))
    assert "alerts.yml.j2" in str(error.value)


def test_a_rule_can_name_a_contact_point_of_its_file(content):
    model = group(rule(notification_settings={"receiver": "mine"}))
    model["contactPoints"] = [{"name": "mine", "receivers": [{"uid": "m", "type": "email"}]}]
    assert content(alerts=(".yml.j2", yaml.safe_dump(model)))["contact_points"] == ["m"]

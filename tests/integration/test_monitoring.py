"""The alert rules, the dashboard and its provisioning, as the tools that load them read them. That each metric named is
told, tests/acceptance/test_metrics.py sees."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import producer

ROOT = Path(producer.__file__).parents[1]
PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
RULES = [rule for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "dashboards" / "headwater.json").read_text())


def promtool(*arguments: str) -> str:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not here: it is in Debian's package prometheus")
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, cwd=PROMETHEUS, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_each_alert_says_what_why_and_what_to_do(rule: dict[str, Any]) -> None:
    told = rule["annotations"]
    assert all(len(told[name].split()) >= 3 for name in ("summary", "cause", "next_step"))
    page, _, anchor = told["runbook"].partition("#")
    assert f'<a id="{anchor}">' in (ROOT / page).read_text("utf-8")
    assert rule["labels"]["severity"] in ("info", "warning", "critical")


def test_promtool_accepts_the_rules_and_the_configuration() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "rules", "alerts.yml")
    promtool("check", "config", "prometheus.yml")


def test_the_alerts_fire_when_they_should_and_not_before() -> None:
    promtool("test", "rules", "alerts_test.yml")


def test_the_queries_of_the_dashboard_are_promql(tmp_path: Path) -> None:
    queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    assert len(queries) > 50
    rules = [
        {"record": f"panel:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(queries)
    ]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", str(tmp_path / "rules.yml"))


def test_the_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not taken & cells and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_every_panel_asks_the_data_source_that_is_chosen() -> None:
    [variable] = DASHBOARD["templating"]["list"]
    assert variable["type"] == "datasource"
    asked = re.findall(r'"uid": "([^"]*)"', json.dumps(DASHBOARD))
    assert set(asked) == {"headwater", f"${{{variable['name']}}}"}


def test_grafana_s_provisioning_names_what_is_there() -> None:
    [provider] = yaml.safe_load((GRAFANA / "provisioning/dashboards/headwater.yml").read_text())["providers"]
    [source] = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert provider["type"] == "file" and provider["options"]["path"] == "/var/lib/grafana/dashboards"
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")

"""The Helm chart: linted and rendered by Helm's own engine, each object held against the schemas of Kubernetes, KEDA
and the Prometheus operator, and against what the parts need.

No cluster is asked: what admission, scheduling and controllers make of the objects is not seen here.
"""

from __future__ import annotations

import copy
import functools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
import yaml
from cloudcoil.models.keda import v1alpha1 as keda
from cloudcoil.models.prometheus_operator import v1 as prometheus
from kubernetes_validate import validate
from typer.testing import CliRunner

from headwater.cli import app
from headwater.messages import queue_name
from headwater.settings import Settings

helm = pytest.importorskip("helm_python", reason="Helm's engine has no wheel for this machine")

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "headwater"
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]

LEAST: dict[str, Any] = {
    "documents": {"volume": {"nfs": {"server": "files.example", "path": "/documents"}}},
    "redis": {"host": "redis.data"},
    "qdrant": {"url": "http://qdrant.data:6333"},
}
MOST: dict[str, Any] = {
    **LEAST,
    "redis": {"host": "redis.data", "port": 6380, "tls": True, "username": "hw"},
    "qdrant": {"url": "https://qdrant.example"},
    "secret": {"redisPassword": "a b/c:d@e?%", "qdrantApiKey": "key"},
    "collection": "papers",
    "settings": {"HEADWATER_CHUNK_TOKENS": "300"},
    "models": {"volume": {"persistentVolumeClaim": {"claimName": "models", "readOnly": True}}},
    "imagePullSecrets": [{"name": "pull"}],
    "supplementalGroups": [2000],
    "workers": {"gpu": {"enabled": True}, "night": {"concurrency": 8, "autoscaling": {"maxReplicas": 1}}},
    "keda": {"enabled": True, "prometheus": {"serverAddress": "http://prometheus.monitoring.svc:9090"}},
    "metrics": {"podMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
    "networkPolicy": {"redisTo": [{"podSelector": {"matchLabels": {"app": "redis"}}}]},
}
OWN_SECRET: dict[str, Any] = {**LEAST, "secret": {"existingName": "mine"}, "query": {"enabled": False}}
KINDS = [pytest.param(LEAST, id="least"), pytest.param(MOST, id="most"), pytest.param(OWN_SECRET, id="own secret")]

#: the oldest and the newest Kubernetes whose schemas the test extra has and that Chart.yaml allows
_KUBERNETES = ("1.29", "1.37")
_FOREIGN = {"HF_HOME", "HF_HUB_OFFLINE"}

#: what KEDA's documentation names as parameters of these triggers; its schema takes any
_TRIGGERS = {
    "redis": {"address", "databaseIndex", "enableTLS", "listName", "listLength"},
    "prometheus": {"serverAddress", "query", "threshold", "activationThreshold"},
}


# -- the chart itself -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", KINDS)
def test_helm_lints_the_chart_without_a_warning(values: dict[str, Any]) -> None:
    report = helm.lint(CHART, values, strict=True)
    assert report["errors"] == []
    assert [m["error"] for m in report["messages"]] == ["icon is recommended"]


def test_the_lint_can_fail(tmp_path: Path) -> None:
    broken = tmp_path / "headwater"
    shutil.copytree(CHART, broken)
    with open(broken / "templates" / "producer.yaml", "a") as file:
        file.write("{{ .Values.producer.nothing.at.all }}\n")
    assert helm.lint(broken, LEAST, strict=True)["errors"]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("redis.host", "", "/redis/host"),
        ("qdrant.url", "qdrant:6333", "/qdrant/url"),
        ("documents.volume", {}, "/documents/volume"),
        ("workers.cpu", {"replica": 3}, "'replica'"),
        ("workers.Large", {}, "'Large'"),
        ("producer.replicas", 2, "'replicas'"),
        ("settings", {"HEADWATER_MODEL": "another"}, "'HEADWATER_MODEL'"),
        ("runAsUser", 0, "/runAsUser"),
        ("query.image", {"digest": "latest"}, "/query/image/digest"),
    ],
)
def test_wrong_values_are_refused_by_name(path: str, value: Any, said: str) -> None:
    values = copy.deepcopy(LEAST)
    *parents, last = path.split(".")
    place = values
    for name in parents:
        place = place.setdefault(name, {})
    place[last] = value
    with pytest.raises(helm.HelmValuesError) as refused, helm.Chart.load(CHART) as chart:
        chart.render(values)
    assert said in str(refused.value)


# -- the objects ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", KINDS)
@pytest.mark.parametrize("version", _KUBERNETES)
def test_each_object_follows_the_schema_of_its_kind(values: dict[str, Any], version: str) -> None:
    own = {
        "ScaledObject": keda.ScaledObject,
        "TriggerAuthentication": keda.TriggerAuthentication,
        "PodMonitor": prometheus.PodMonitor,
    }
    objects = _rendered(values)
    for found in objects:
        if found["kind"] in own:
            own[found["kind"]].model_validate(found, extra="forbid")
        else:
            assert validate(found, version, strict=True) == version
    names = [(found["kind"], found["metadata"]["name"]) for found in objects]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("kind", ["Deployment", "ScaledObject", "PodMonitor"])
def test_the_schemas_can_fail(kind: str) -> None:
    found = next(found for found in _rendered(MOST) if found["kind"] == kind)
    found["spec"]["replicaCount"] = 3
    with pytest.raises(Exception, match="replicaCount"):  # each library has an error of its own
        if kind == "Deployment":
            validate(found, _KUBERNETES[-1], strict=True)
        else:
            {"ScaledObject": keda.ScaledObject, "PodMonitor": prometheus.PodMonitor}[kind].model_validate(
                found, extra="forbid"
            )


@pytest.mark.parametrize("values", KINDS)
def test_the_pods_are_confined_as_in_compose(values: dict[str, Any]) -> None:
    for deployment in _of(values, "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        [container] = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert "memory" in container["resources"]["limits"] and "cpu" not in container["resources"]["limits"]
        documents = [mount for mount in container["volumeMounts"] if mount["name"] == "documents"]
        assert all(mount["readOnly"] for mount in documents)
        assert len(documents) == (deployment["metadata"]["labels"]["app.kubernetes.io/component"] != "query")
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_each_part_runs_the_command_of_compose_with_its_environment() -> None:
    for deployment in _of(MOST, "Deployment"):
        part = deployment["metadata"]["labels"]["app.kubernetes.io/component"]
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        assert container["command"] == SERVICES[part]["command"]
        assert CliRunner().invoke(app, [*container["command"][1:], "--help"]).exit_code == 0
        given = set(_environment(MOST, part))
        needless = {"CELERY_BROKER_URL", "HEADWATER_PORT"} if part != "worker" else set()
        needless |= {"HF_HOME", "HF_HUB_OFFLINE"} if part == "query" else set()
        needless |= {"QDRANT_URL", "HF_HOME", "HF_HUB_OFFLINE"} if part == "producer" else set()
        assert set(SERVICES[part]["environment"]) - needless <= given
        assert given <= _settings() | _FOREIGN


def test_a_part_gets_the_secrets_that_it_needs_and_no_others() -> None:
    needed = {part: {name for name, by in _environment(MOST, part).items() if by is None} for part in _PARTS}
    assert needed == {
        "producer": {"CELERY_BROKER_URL"},
        "worker": {"CELERY_BROKER_URL", "QDRANT_API_KEY"},
        "query": {"QDRANT_API_KEY"},
    }
    [secret] = _of(MOST, "Secret")
    assert set().union(*needed.values()) <= set(secret["stringData"])
    assert not _of(OWN_SECRET, "Secret")
    references = {entry["valueFrom"]["secretKeyRef"]["name"] for entry in _from_secret(OWN_SECRET)}
    assert references == {"mine"}


def test_the_broker_url_is_read_back_with_its_password() -> None:
    [secret] = _of(MOST, "Secret")
    url = secret["stringData"]["CELERY_BROKER_URL"]
    connection = redis.Redis.from_url(url).connection_pool.connection_kwargs
    assert (connection["host"], connection["port"], connection["db"]) == ("redis.data", 6380, 0)
    assert (connection["username"], connection["password"]) == ("hw", "a b/c:d@e?%")
    assert urlsplit(url).scheme == "rediss"
    [secret] = _of(LEAST, "Secret")
    assert secret["stringData"] == {"CELERY_BROKER_URL": "redis://redis.data:6379/0"}


def test_a_pod_gets_longer_to_stop_than_its_part_takes() -> None:
    graces = {
        d["metadata"]["labels"]["app.kubernetes.io/component"]: d["spec"]["template"]["spec"] for d in _deployments()
    }
    for part, pod in graces.items():
        compose = int(SERVICES[part]["stop_grace_period"].removesuffix("s"))
        assert pod["terminationGracePeriodSeconds"] >= compose
    assert graces["worker"]["terminationGracePeriodSeconds"] > 30  # the drain


def test_there_is_one_producer_and_its_ledger_outlives_the_release() -> None:
    [producer] = [d for d in _deployments() if d["metadata"]["name"].endswith("-producer")]
    assert producer["spec"]["replicas"] == 1 and producer["spec"]["strategy"] == {"type": "Recreate"}
    [claim] = _of(MOST, "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    volumes = {volume["name"]: volume for volume in producer["spec"]["template"]["spec"]["volumes"]}
    assert volumes["state"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    state = _environment(MOST, "producer")["HEADWATER_STATE_DIR"]
    assert state is not None and state.startswith("/state/")


def test_selectors_find_exactly_their_own_pods() -> None:
    pods = {d["metadata"]["name"]: d["spec"]["template"]["metadata"]["labels"] for d in _deployments()}

    def chosen(labels: dict[str, str]) -> set[str]:
        return {name for name, has in pods.items() if labels.items() <= has.items()}

    for deployment in _deployments():
        assert chosen(deployment["spec"]["selector"]["matchLabels"]) == {deployment["metadata"]["name"]}
    for budget in _of(MOST, "PodDisruptionBudget"):
        assert chosen(budget["spec"]["selector"]["matchLabels"]) == {budget["metadata"]["name"]}
    services = {found["metadata"]["name"]: chosen(found["spec"]["selector"]) for found in _of(MOST, "Service")}
    assert services == {
        "docs-headwater-query": {"docs-headwater-query"},
        "docs-headwater-embed": {name for name in pods if "-worker-" in name},
    }
    [monitor] = _of(MOST, "PodMonitor")
    assert chosen(monitor["spec"]["selector"]["matchLabels"]) == set(pods)
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    for deployment in _deployments():
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
        settings = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert ports[endpoint["port"]] == settings["HEADWATER_METRICS_PORT"]
        assert ports.get("http", ports.get("api")) == settings.get("HEADWATER_PORT")


def test_probes_ask_what_the_api_answers() -> None:
    for deployment in _deployments():
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        part = deployment["metadata"]["labels"]["app.kubernetes.io/component"]
        for probe in ("readinessProbe", "livenessProbe"):
            asked = str(container[probe])
            assert {"producer": "headwater status", "worker": ":6780/", "query": "'path': '/"}[part] in asked
            assert part == "producer" or ("readyz" if probe == "readinessProbe" else "healthz") in asked
        if part == "query":
            headers = container["readinessProbe"]["httpGet"]["httpHeaders"]
            assert headers == [{"name": "Host", "value": "localhost"}]


def test_callers_may_name_the_service() -> None:
    hosts = str(_environment(MOST, "query")["HEADWATER_ALLOWED_HOSTS"]).split(",")
    name = "docs-headwater-query"
    assert {name, f"{name}.prod", f"{name}.prod.svc"} <= set(hosts)


def test_workers_scale_by_the_queues_of_the_producer_and_the_age_of_a_task() -> None:
    deployments = {d["metadata"]["name"] for d in _deployments()}
    scaled = _of(MOST, "ScaledObject")
    assert {s["spec"]["scaleTargetRef"]["name"] for s in scaled} == {d for d in deployments if "-worker-" in d}
    [authentication] = _of(MOST, "TriggerAuthentication")
    [secret] = _of(MOST, "Secret")
    assert {ref["key"] for ref in authentication["spec"]["secretTargetRef"]} <= set(secret["stringData"])
    for scale in scaled:
        triggers = {trigger["name"]: trigger for trigger in scale["spec"]["triggers"]}
        assert set(triggers) == {"live", "bulk", "oldest"}
        for lane in ("live", "bulk"):
            assert triggers[lane]["metadata"]["listName"] == queue_name("papers", lane)
            assert triggers[lane]["metadata"]["address"] == "redis.data:6380"
            assert triggers[lane]["authenticationRef"]["name"] == authentication["metadata"]["name"]
        metric = triggers["oldest"]["metadata"]["query"].removeprefix("max(").split("{")[0]
        assert f'"{metric}"' in (ROOT / "producer" / "numbers.py").read_text("utf-8")
        for trigger in triggers.values():
            assert set(trigger["metadata"]) <= _TRIGGERS[trigger["type"]]
            assert all(isinstance(value, str) for value in trigger["metadata"].values())
    assert all("replicas" not in d["spec"] for d in _deployments() if "-worker-" in d["metadata"]["name"])


def test_the_window_of_a_backfill_keeps_the_largest_number_of_workers() -> None:
    """With n workers, window - n * concurrency hints wait in the queue, and the autoscaler wants that / bulkLength."""
    [settings] = _of(MOST, "ConfigMap")
    window = int(settings["data"]["HEADWATER_BULK_WINDOW"])
    # cpu: 4 workers of 20 threads, gpu: 2 of 20, night: 1 of 8; 20 hints each to keep them
    assert window == 4 * (20 + 20) + 2 * (20 + 20) + 1 * (8 + 20)
    [settings] = _of({**LEAST, "keda": {"enabled": True}}, "ConfigMap")
    assert (int(settings["data"]["HEADWATER_BULK_WINDOW"]) - 4 * 20) / 20 == 4
    [settings] = _of(LEAST, "ConfigMap")
    assert "HEADWATER_BULK_WINDOW" not in settings["data"]


def test_workers_with_a_device_go_where_there_is_one() -> None:
    [gpu] = [d for d in _deployments() if d["metadata"]["name"].endswith("-gpu")]
    pod = gpu["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    [cpu] = [d for d in _deployments() if d["metadata"]["name"].endswith("-cpu")]
    assert "nvidia.com/gpu" not in str(cpu["spec"])


def test_workers_embed_the_questions_of_query_servers_that_have_no_model() -> None:
    url = urlsplit(str(_environment(MOST, "query")["HEADWATER_EMBED_URL"]))
    assert url.hostname == _environment(MOST, "worker")["HEADWATER_ALLOWED_HOSTS"]
    [service] = [found for found in _of(MOST, "Service") if found["metadata"]["name"] == url.hostname]
    assert [port["port"] for port in service["spec"]["ports"]] == [url.port]
    to, by = ([p for p in _of(MOST, "NetworkPolicy") if p["metadata"]["name"].endswith(f"-embed-{n}")] for n in _ENDS)
    [egress], [ingress] = to[0]["spec"]["egress"], by[0]["spec"]["ingress"]
    assert _selects(egress["to"][0]["podSelector"], "worker") and not _selects(egress["to"][0]["podSelector"], "query")
    assert _selects(ingress["from"][0]["podSelector"], "query")
    own = {**MOST, "query": {"ownModel": True}}
    assert "HEADWATER_EMBED_URL" not in _environment(own, "query")
    assert [found["metadata"]["name"] for found in _of(own, "Service")] == ["docs-headwater-query"]


def test_a_chart_whose_questions_nobody_could_embed_is_refused() -> None:
    idle = {**MOST, "workerDefaults": {"autoscaling": {"minReplicas": 0}}}
    with pytest.raises(helm.HelmRenderError, match="no pool keeps a worker"):
        _rendered(idle)
    assert _rendered({**idle, "query": {"ownModel": True}})


def test_nothing_is_open_but_what_the_parts_need() -> None:
    """Who may be reached at which port, and reach out to which: worked out as Kubernetes does, by adding rules up."""
    opened: dict[str, dict[str, set[int]]] = {part: {"ingress": set(), "egress": set()} for part in _PARTS}
    policies = _of(MOST, "NetworkPolicy")
    for part in _PARTS:
        denied = set()
        for policy in policies:
            if _selects(policy["spec"]["podSelector"], part):
                denied |= set(policy["spec"]["policyTypes"])
                for direction in ("ingress", "egress"):
                    rules = policy["spec"].get(direction, [])
                    opened[part][direction] |= {port["port"] for rule in rules for port in rule["ports"]}
        assert denied == {"Ingress", "Egress"}
    assert opened == {
        "producer": {"ingress": {9464}, "egress": {53, 6380}},
        "worker": {"ingress": {9464, 6780}, "egress": {53, 6380, 443}},
        "query": {"ingress": {9464, 6780}, "egress": {53, 443, 6780}},
    }
    assert not [p for p in _of(LEAST, "NetworkPolicy") if any("9464" in str(r) for r in p["spec"].get("ingress", []))]
    index = next(p for p in _of(LEAST, "NetworkPolicy") if p["metadata"]["name"].endswith("-index"))
    assert index["spec"]["egress"] == [{"ports": [{"protocol": "TCP", "port": 6333}]}]


# -- means -------------------------------------------------------------------------------------------------------

_PARTS = ("producer", "worker", "query")
#: of the way from a query server to a worker
_ENDS = ("query", "worker")


def _rendered(values: dict[str, Any]) -> list[dict[str, Any]]:
    return copy.deepcopy(_render(json.dumps(values)))


@functools.cache
def _render(values: str) -> list[dict[str, Any]]:
    with helm.Chart.load(CHART) as chart:
        manifests = chart.render(json.loads(values), name="docs", namespace="prod")
    found = [yaml.safe_load_all(text) for name, text in manifests.items() if name.endswith(".yaml")]
    return [each for documents in found for each in documents if each]


def _of(values: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [found for found in _rendered(values) if found["kind"] == kind]


def _deployments() -> list[dict[str, Any]]:
    return _of(MOST, "Deployment")


def _environment(values: dict[str, Any], part: str) -> dict[str, str | None]:
    """Name -> value; None if it is a secret's."""
    [settings] = _of(values, "ConfigMap")
    deployment = next(
        d for d in _of(values, "Deployment") if d["metadata"]["labels"]["app.kubernetes.io/component"] == part
    )
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}]
    return {**settings["data"], **{entry["name"]: entry.get("value") for entry in container["env"]}}


def _from_secret(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for deployment in _of(values, "Deployment"):
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        yield from (entry for entry in container["env"] if "valueFrom" in entry)


def _settings() -> set[str]:
    fields = Settings.model_fields.items()
    return {str(info.validation_alias or f"HEADWATER_{name.upper()}") for name, info in fields}


def _selects(selector: dict[str, Any], part: str) -> bool:
    labels = {
        "app.kubernetes.io/name": "headwater",
        "app.kubernetes.io/instance": "docs",
        "app.kubernetes.io/component": part,
    }
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        expression["operator"] == "In" and labels[expression["key"]] in expression["values"]
        for expression in selector.get("matchExpressions", [])
    )

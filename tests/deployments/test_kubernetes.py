"""The manifests for Kubernetes are valid, and say what the compose file says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import all_versions

from deployments import secret_files

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deployments" / "kubernetes"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
MANIFESTS: list[dict[str, Any]] = [
    document
    for name in KUSTOMIZATION["resources"]
    for document in yaml.safe_load_all((FOLDER / name).read_text())
]
VERSIONS = list(dict.fromkeys(all_versions()))[-4:]
"""Of Kubernetes: the four newest, of which its project maintains three."""

SAME = {"migrate": "migrate", "server": "prefect-server", "services": "prefect-services"}
"""Containers whose service in the compose file has another name."""


def name_of(manifest: dict[str, Any]) -> str:
    return f"{manifest['kind']}-{manifest['metadata']['name']}"


def of_kind(*kinds: str) -> dict[str, dict[str, Any]]:
    return {m["metadata"]["name"]: m for m in MANIFESTS if m["kind"] in kinds}


def pods() -> dict[str, dict[str, Any]]:
    found = of_kind("Deployment", "Job")
    return {name: manifest["spec"]["template"]["spec"] for name, manifest in found.items()}


def containers() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Return each service's pod and container, by its name in the compose file."""
    found = {}
    for pod_name, pod in pods().items():
        for each in (*pod.get("initContainers", ()), *pod["containers"]):
            found[SAME.get(each["name"], pod_name)] = (pod, each)
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", MANIFESTS, ids=name_of)
def test_a_manifest_keeps_to_the_schema(manifest: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schema_finds_what_is_wrong() -> None:
    wrong = yaml.safe_load(yaml.safe_dump(of_kind("Deployment")["worker-gpu"]))
    wrong["spec"]["template"]["spec"]["containers"][0]["resources"]["limit"] = {}

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_every_file_is_one_of_the_kustomization() -> None:
    files = {file.name for file in FOLDER.glob("*.yaml")}

    assert files == {"kustomization.yaml", *KUSTOMIZATION["resources"]}


def test_each_service_of_ours_is_there_with_the_same_command() -> None:
    ours = {name: s for name, s in COMPOSE["services"].items() if "build" in s}
    plain = re.compile(r"\$\{\w+:-([^}]*)\}")

    here = {name: container["args"] for name, (_, container) in containers().items()}
    there = {name: [plain.sub(r"\1", w) for w in s["command"]] for name, s in ours.items()}

    assert here == there


def test_each_setting_is_the_same_as_in_the_compose_file() -> None:
    maps = of_kind("ConfigMap")
    plain = re.compile(r"\$\{\w+:-([^}]*)\}")

    for name, anchor in (("conveyor-server", "x-server"), ("conveyor-client", "x-client")):
        there = {key: plain.sub(r"\1", str(value)) for key, value in COMPOSE[anchor].items()}
        assert maps[name]["data"] == there


def test_a_container_gets_the_secrets_that_its_settings_name() -> None:
    maps = of_kind("ConfigMap")
    made = set(re.findall(r'"([A-Z0-9_]+)": ', Path(secret_files.__file__).read_text()))

    for name, (pod, container) in containers().items():
        (source,) = container["envFrom"]
        settings = dict(maps[source["configMapRef"]["name"]]["data"])
        settings |= {each["name"]: each["value"] for each in container.get("env", ())}
        named = set(re.findall(r"\{([A-Z0-9_]+)\}", "\n".join(settings.values())))
        (volume,) = [each for each in pod["volumes"] if each["name"] == "secrets"]
        given = {item["key"] for item in volume["secret"]["items"]}
        mounted = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}

        assert given == named, name
        assert given <= made
        assert mounted["secrets"] == secret_files.FOLDER


def test_nothing_secret_is_in_the_manifests() -> None:
    assert not of_kind("Secret")
    for each in of_kind("ConfigMap").values():
        for name, value in each["data"].items():
            if re.search("PASSWORD|SECRET|AUTH|KEY_ID|REDIS_.*URL", name):
                assert re.search(r"\{[A-Z0-9_]+\}", value), name


def test_every_container_has_few_rights_and_a_limit() -> None:
    for name, (pod, container) in containers().items():
        rights = container["securityContext"]

        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["automountServiceAccountToken"] is False, name
        assert rights["readOnlyRootFilesystem"] is True, name
        assert rights["allowPrivilegeEscalation"] is False, name
        assert rights["capabilities"]["drop"] == ["ALL"], name
        assert "memory" in container["resources"]["limits"], name


def test_a_service_does_not_set_prefects_own_variables() -> None:
    """A service ``prefect-server`` would give every pod a PREFECT_SERVER_PORT that is a URL."""
    assert all(pod["enableServiceLinks"] is False for pod in pods().values())


def test_the_gpu_worker_asks_for_one_gpu_and_the_others_for_none() -> None:
    asked = {
        name: container["resources"]["limits"].get("nvidia.com/gpu")
        for name, (_, container) in containers().items()
    }
    _, worker = containers()["worker-gpu"]

    assert {name: n for name, n in asked.items() if n} == {"worker-gpu": 1}
    assert worker["resources"]["requests"]["nvidia.com/gpu"] == 1
    assert worker["image"] == "onnx-conveyor-gpu"


def test_who_is_asked_for_health_serves_it() -> None:
    ports = {"/api/ready": 4200, "/api/health": 4200, "/health": 8080}
    probed = 0
    for _, container in containers().values():
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            if "httpGet" in container.get(kind, {}):
                asked = container[kind]["httpGet"]
                (port,) = [p for p in container["ports"] if p["name"] == asked["port"]]
                assert ports[asked["path"]] == port["containerPort"]
                probed += 1
    assert probed == 3 + 3 * 2


def test_the_background_services_are_asked_for_health_as_in_the_compose_file() -> None:
    _, container = containers()["prefect-services"]
    _, *command = COMPOSE["services"]["prefect-services"]["healthcheck"]["test"]

    for kind in ("startupProbe", "livenessProbe"):
        assert container[kind]["exec"]["command"] == command


def test_every_image_is_one_that_the_kustomization_names() -> None:
    named = {each["name"] for each in KUSTOMIZATION["images"]}

    assert {container["image"] for _, container in containers().values()} == named


def test_the_server_is_reached_by_its_clients_alone() -> None:
    policy = of_kind("NetworkPolicy")["prefect-server"]["spec"]
    (rule,) = policy["ingress"]
    (source,) = rule["from"]
    wanted = source["podSelector"]["matchLabels"].items()
    labels = {
        name: manifest["spec"]["template"]["metadata"]["labels"]
        for name, manifest in of_kind("Deployment", "Job").items()
    }

    reach = {name for name, has in labels.items() if wanted <= has.items()}

    assert policy["podSelector"]["matchLabels"] == {"app": "prefect-server"}
    assert reach == {"bootstrap", "worker-cpu", "worker-catalogue", "worker-gpu"}
    assert of_kind("Service")["prefect-server"]["spec"].get("type", "ClusterIP") == "ClusterIP"


def test_selectors_find_their_own_pods() -> None:
    for name, manifest in of_kind("Deployment").items():
        labels = manifest["spec"]["template"]["metadata"]["labels"]
        assert manifest["spec"]["selector"]["matchLabels"].items() <= labels.items(), name


def test_what_is_written_to_is_a_volume() -> None:
    for name, (pod, container) in containers().items():
        mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
        volumes = {each["name"] for each in pod["volumes"]}

        assert {"/tmp", "/scratch", "/run/secrets"} <= set(mounts), name
        assert set(mounts.values()) <= volumes, name

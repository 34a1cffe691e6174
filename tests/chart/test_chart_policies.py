"""Every policy over every shipped values file, and every policy can fail."""

from __future__ import annotations

import copy
from collections.abc import Callable

import chart_policies as policies
import pytest
from chart_rig import CHART, CI, VERSIONS, Doc, containers, groups, one, pod_specs, rendered

Break = Callable[[list[Doc]], object]


@pytest.fixture(scope="module", params=CI, ids=lambda path: path.stem)
def docs(request: pytest.FixtureRequest) -> list[Doc]:
    return rendered([request.param])


@pytest.mark.parametrize("policy", policies.POLICIES, ids=lambda p: p.__name__)
def test_policies(docs: list[Doc], policy: Callable[[list[Doc]], None]) -> None:
    policy(docs)


def first(docs: list[Doc], where: str) -> Doc:
    """The first container of a pod that stands somewhere."""
    return next(next(containers(t)) for at, t in pod_specs(docs) if at.startswith(where))


BREAKS: list[tuple[Callable[[list[Doc]], None], str, Break]] = [
    (policies.objects_are_valid, "prots", lambda d: one(d, "Service", "flotilla")["spec"].update(prots=[])),
    (policies.objects_are_valid, "imagePolicy", lambda d: first(d, "RayService").update(imagePolicy="x")),
    (policies.kuberay_takes_it, "minReplicas", lambda d: groups(d)["gateway"].update(minReplicas=99)),
    (policies.names_are_unique_and_short, "RayService", lambda d: d.append(one(d, "RayService"))),
    (policies.images_have_a_tag_that_stays, "Deployment", lambda d: first(d, "Deploy").update(image="a.b:5000/c")),
    (policies.images_have_a_tag_that_stays, "latest", lambda d: first(d, "Deploy").update(image="c:latest")),
    (policies.resources_are_set, "exporter", lambda d: first(d, "Deploy")["resources"]["limits"].pop("memory")),
    (policies.rights_are_least, "exporter",
     lambda d: first(d, "Deploy")["securityContext"].update(readOnlyRootFilesystem=False)),
    (policies.rights_are_least, "exporter", lambda d: one(d, "Deployment")["spec"]["template"]["spec"].update(
        hostNetwork=True)),
    (policies.what_lives_long_is_probed, "exporter", lambda d: first(d, "Deploy").pop("livenessProbe")),
    (policies.what_is_written_is_mounted, "exporter", lambda d: one(d, "Deployment")["spec"]["template"]["spec"][
        "volumes"].append({"name": "unused", "emptyDir": {}})),
    (policies.selectors_find_their_pods, "Service/flotilla",
     lambda d: one(d, "Service", "flotilla")["spec"]["selector"].update({"flotilla.dev/part": "gatway"})),
    (policies.selectors_find_their_pods, "every pod",
     lambda d: one(d, "NetworkPolicy", "flotilla-model")["spec"]["podSelector"].update(matchLabels={})),
    (policies.named_ports_are_there, "Service/flotilla",
     lambda d: one(d, "Service", "flotilla")["spec"]["ports"][0].update(targetPort="web")),
    (policies.no_secret_stands_in_the_open, "flotilla-fleet",
     lambda d: one(d, "ConfigMap", "flotilla-fleet")["data"].update(x="only-for-trying-out")),
    (policies.no_secret_stands_in_the_open, "FLOTILLA_KEY_PEPPER", lambda d: first(d, "Deploy")["env"].append(
        {"name": "FLOTILLA_KEY_PEPPER", "value": "x"})),
    (policies.ray_processes_share_one_environment, "gateway", lambda d: groups(d)["gateway"]["template"]["spec"][
        "containers"][0]["env"].append({"name": "A", "value": "b"})),
    (policies.streams_are_waited_for, "gateway", lambda d: groups(d)["gateway"]["template"]["spec"].update(
        terminationGracePeriodSeconds=30)),
    (policies.the_api_server_is_asked_by_few, "exporter", lambda d: one(d, "Deployment")["spec"]["template"][
        "spec"].update(automountServiceAccountToken=True)),
]


@pytest.mark.parametrize(("policy", "said", "spoil"), BREAKS,
                         ids=[f"{n}-{b[0].__name__}" for n, b in enumerate(BREAKS)])
def test_policies_can_fail(policy: Callable[..., None], said: str, spoil: Break) -> None:
    spoiled = copy.deepcopy(rendered([CHART / "ci" / "laptop-kind-values.yaml"]))
    spoil(spoiled)
    with pytest.raises(Exception, match=said):
        policy(spoiled, VERSIONS[-1:]) if policy is policies.objects_are_valid else policy(spoiled)


def test_every_policy_is_shown_to_fail() -> None:
    assert {b[0] for b in BREAKS} == set(policies.POLICIES)

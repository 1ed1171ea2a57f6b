"""The commands `generate` and `trace`: continue a prompt with a trained model."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.commands.options import AsJson, Plugins, load_plugins, show
from patchers.errors import BenchError

CheckpointArgument = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="A folder results/SUITE/checkpoints/RUN_ID.")
]
Prompt = Annotated[str, typer.Option(metavar="TEXT", help="What to go on with.")]
PromptFile = Annotated[Path | None, typer.Option(metavar="FILE|-", help="Take the prompt's bytes from here instead.")]
Temperature = Annotated[float, typer.Option(metavar="X", help="0 takes the most probable byte each time.")]
TopK = Annotated[int | None, typer.Option("--top-k", metavar="N", help="Draw from the N most probable alone.")]
TopP = Annotated[float | None, typer.Option("--top-p", metavar="X", help="Draw from those that make up X.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Of what is drawn.")]
Utf8Option = Annotated[bool, typer.Option("--utf8", help="Write valid UTF-8 only.")]


def generate(
    checkpoint: CheckpointArgument,
    prompt: Prompt = "",
    prompt_file: PromptFile = None,
    max_bytes: Annotated[int, typer.Option(metavar="N", help="Write so many bytes at most.")] = 256,
    until: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="End before it; may be repeated.")] = None,
    temperature: Temperature = 0.0,
    top_k: TopK = None,
    top_p: TopP = None,
    seed: Seed = 0,
    utf8: Utf8Option = False,
    as_json: AsJson = False,
    plugin: Plugins = None,
) -> None:
    """Go on with a prompt, byte by byte, with a model that a run has trained."""
    from bench.evaluation.generation import Screen, Wish, stream
    from bench.training.checkpoint import load_model
    from models.decoding.generate import Limits
    from models.decoding.sampling import Sampling

    load_plugins(plugin)
    ends = tuple(os.fsencode(text) for text in until or [])
    wish = Wish(Limits(max_bytes, ends, utf8), Sampling(temperature, top_k, top_p), seed)
    begins = _prompt(prompt, prompt_file)
    model = load_model(checkpoint)
    written, done, screen = b"", None, Screen(sys.stdout)
    for pieces in stream(model.module, model.patcher, [begins], wish):
        written, done = written + pieces[0].data, pieces[0].done
        if not as_json:
            screen.show(pieces[0].data, final=done is not None)
    if as_json:
        text = {"prompt": begins.decode(errors="replace"), "text": written.decode(errors="replace")}
        told = {**text, "hex": written.hex(), "bytes": len(written), "ended_by": done}
        print(json.dumps(told, indent=1))
        return
    if sys.stdout.isatty():
        print()


def trace(
    checkpoint: CheckpointArgument,
    prompt: Prompt = "",
    prompt_file: PromptFile = None,
    max_bytes: Annotated[int, typer.Option(metavar="N", help="Write so many bytes after the prompt.")] = 64,
    temperature: Temperature = 0.0,
    top_k: TopK = None,
    top_p: TopP = None,
    seed: Seed = 0,
    utf8: Utf8Option = False,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it as well: .png, .svg, .pdf (needs matplotlib).")
    ] = None,
    as_json: AsJson = False,
    plugin: Plugins = None,
) -> None:
    """Show byte by byte how a model reads a prompt and goes on: how unsure it is, where it cuts, what runs."""
    from bench.evaluation import trace as tracing
    from bench.evaluation.generation import Wish
    from bench.training.checkpoint import load_model
    from models.decoding.generate import Limits
    from models.decoding.sampling import Sampling

    load_plugins(plugin)
    wish = Wish(Limits(max_bytes, (), utf8), Sampling(temperature, top_k, top_p), seed)
    model = load_model(checkpoint)
    made = tracing.trace(model.module, model.patcher, _prompt(prompt, prompt_file), wish)
    if picture is not None:
        from bench.reporting.plots.trace import draw

        draw(made, picture)
    if as_json:
        print(json.dumps(made.as_json(), indent=1))
    else:
        show(tracing.as_table(made))


def _prompt(text: str, file: Path | None) -> bytes:
    """A prompt as the bytes that were typed, valid UTF-8 or not."""
    if file is None:
        return os.fsencode(text)
    if str(file) == "-":
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as error:
        raise BenchError(f"cannot read the prompt from {file}: {error.strerror}; give a file that is there") from error

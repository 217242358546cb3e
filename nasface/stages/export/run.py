"""Export a network, compare the file with PyTorch, and write it only if it computes the same."""

from __future__ import annotations

import glob
import logging
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nasface import durable, plugins, rundir
from nasface.deploy.plain import Deployed, Ends, Plain
from nasface.deploy.rewrites import rewrites_for, rewritten
from nasface.deploy.sensitivity import by_sensitivity
from nasface.errors import DataError, RunError
from nasface.formats import Format, OwnRuntime, Precision, Quantisation
from nasface.formats.graph import is_kept
from nasface.model import Model, View
from nasface.model.build import net_costs
from nasface.model.card import Card
from nasface.model.exported import Description
from nasface.model.files import Saved
from nasface.places import begins_with, not_ours
from nasface.recipe import Recipe
from nasface.scores import DEFAULT_NORMALISER
from nasface.stages.export import faces
from nasface.stages.export.compare import TOLERANCE, Difference, Original, compare
from nasface.stages.export.faces import Sample
from nasface.stages.machine import Machine
from nasface.stages.measure import cost_of, errors

log = logging.getLogger(__name__)

RANKED, NAMED = 16, 4  # faces by which parts are ranked, and parts that are named, where int8 loses too much


@dataclass(frozen=True)
class ExportOptions:
    """What to export.

    Attributes:
        form: name of the format, see `nasface plugins`.
        precision: see `nasface.formats.Precision`.
        ends: what is part of the graph besides the network.
        max_loss: highest loss of NME, in points, at which fp16 and int8 are written.
        calibrate: number of training faces on which int8 is calibrated.
        keep: patterns of the parts that int8 keeps in float.
        local_runtime: the folder of a package with the runtime to copy beside the file; for formats that take one.
    """

    form: str
    precision: Precision = "fp32"
    ends: Ends = field(default_factory=Ends)
    max_loss: float = 0.1
    calibrate: int = 256
    keep: tuple[str, ...] = ()
    local_runtime: Path | None = None

    def format(self) -> Format:
        """Build the format. Raises RunError when the runtime is not the one that it needs, or it takes none."""
        form = plugins.form(self.form)
        if self.local_runtime is None:
            return form
        if not isinstance(form, OwnRuntime):
            raise RunError(
                f"the format {self.form} does not copy a runtime; leave out --local-runtime, or give --format web"
            )
        return form.with_runtime(self.local_runtime)


@dataclass(frozen=True)
class NetworkAndFaces:
    """The network to export and the faces to use.

    Attributes:
        saved: the network.
        dataset, data_root: name and folder of another dataset.
        overrides: changes of the recipe, such as 'task.decoder=dark'.
    """

    saved: Saved
    dataset: str | None = None
    data_root: Path | None = None
    overrides: tuple[str, ...] = ()

    def recipe(self, faces: bool) -> Recipe:
        """Return the recipe by which the network was trained, with the changes asked for."""
        return self.saved.recipe(None, self.dataset, self.data_root, self.overrides, faces=faces)


@dataclass(frozen=True)
class Exported:
    """An exported file and what was measured.

    Attributes:
        path: the file with the network.
        files: all files.
        format, precision: as asked for.
        size: bytes of all files.
        faces: where the faces come from.
        difference: from PyTorch, on `compared` faces.
        compared, calibrated, judged: numbers of faces.
        nme_before, nme_after: inter-ocular NME on held-out faces, as shares; None where there are none.
    """

    path: Path
    files: tuple[Path, ...]
    format: str
    precision: Precision
    size: int
    faces: str
    difference: Difference
    compared: int
    calibrated: int
    judged: int
    nme_before: float | None
    nme_after: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        places = {"path": str(self.path), "files": [str(file) for file in self.files]}
        return {**vars(self), **places, "difference": vars(self.difference)}


def export(source: NetworkAndFaces, options: ExportOptions, out: Path, machine: Machine) -> Exported:
    """Export a network and check the file.

    Args:
        source: the network and the faces.
        options: what to export.
        out: the folder to write to. The file is named after the network and its precision.
        machine: progress and workers; the work is done on the CPU.

    Raises:
        RunError: when a library is missing, the network is an exported one, int8 has no faces to be calibrated on, or
            the file differs from PyTorch by more than allowed. Nothing is written then.
        DataError: when the faces asked for are not there.
    """
    form = options.format()
    form.require(options.precision)
    if source.saved.exported:
        raise RunError(
            f"{source.saved.weights} was exported already; give the run folder or the file of weights (.safetensors) "
            "from which it comes"
        )
    recipe, known = _recipe(source)
    model = source.saved.load(recipe)
    view = replace(model.view, precision="fp32")  # bf16 would move landmarks by more than the file may differ
    sample = _sample(recipe if known else None, view, machine, options)
    module = deployed(model, view, options.ends, form.channels)
    about = _description(model, view, recipe, options.precision, options.ends).to_json()
    path = out / f"{source.saved.name}-{options.precision}{form.suffix}"
    try:
        durable.make_folder(out)
        rundir.remove_partials(out)
        with durable.temporary_folder(out, f".{path.name}.", rundir.PARTIAL) as part:
            written = form.write(module, module.example(), part / path.name, about, _quantisation(options, sample))
            found = _judge(form, written, model, view, sample, options)
            _refuse(found, options, module.net, sample)
            _refuse_foreign(form, written, out, about)
            for file in sorted(written, key=lambda file: (file.suffix != ".html", file != written[-1])):
                durable.put(file, out / file.name)  # first what says that the files beside it are nasface's
    except OSError as err:
        raise RunError(f"cannot write {out} ({err.strerror or err}); choose another folder with --out") from err
    return replace(found, path=path, files=tuple(out / file.name for file in written))


def deployed(model: Model, view: View, ends: Ends, channels: int) -> Deployed:
    """Return what is exported: the network, rewritten, between its ends; float32, in eval mode."""
    net = rewritten(Plain(model.module), rewrites_for(channels)).float()
    flip = view.scheme.flip if view.flip_test else None
    return Deployed(net, view.input_size, view.decoder, view.sigma, flip, ends).eval()


def loaded(source: NetworkAndFaces) -> tuple[Model, Recipe]:
    """Load a network, and return it with its recipe, whose dataset need not be installed."""
    recipe, _ = _recipe(source)
    return source.saved.load(recipe), recipe


def costs_of(model: Model, recipe: Recipe) -> dict[str, int]:
    """Return the cost of a network by the names of `nasface.scores.NetworkCost`."""
    return asdict(cost_of(net_costs(model.module, recipe), model.module.graph))


def write_unchecked(model: Model, recipe: Recipe, form: Format, folder: Path) -> Path:
    """Write a network in fp32 to a folder without comparing the file with PyTorch: enough to measure its speed.

    Raises:
        RunError: when torch cannot export the network.
    """
    view = replace(model.view, precision="fp32")
    ends = Ends()
    module = deployed(model, view, ends, form.channels)
    about = _description(model, view, recipe, "fp32", ends).to_json()
    return form.write(module, module.example(), folder / f"{model.name}-fp32{form.suffix}", about, "fp32")[-1]


def _recipe(source: NetworkAndFaces) -> tuple[Recipe, bool]:
    """Return the recipe of the network, and whether it names a dataset that is installed here."""
    try:
        return source.recipe(faces=True), True
    except RunError:
        if source.dataset or source.data_root:
            raise
        return source.recipe(faces=False), False


def _sample(recipe: Recipe | None, view: View, machine: Machine, options: ExportOptions) -> Sample:
    """Return the faces of the network's dataset if they are there, else synthetic ones, which int8 does not take."""
    why = "its dataset is not installed"
    if recipe is not None:
        try:
            return _of_dataset(recipe, view, machine, options)
        except DataError as err:
            if recipe.data.root is not None:
                raise
            why = str(err)
    if options.precision == "int8":
        raise RunError(
            f"int8 is calibrated on training faces, and there are none ({why}); name them with --dataset and "
            "--data-root, or export fp16"
        )
    log.warning("the network is compared on synthetic faces, and no NME is measured: %s", why)
    return faces.of_nobody(view, machine)


def _of_dataset(recipe: Recipe, view: View, machine: Machine, options: ExportOptions) -> Sample:
    sample = faces.of_dataset(recipe, view, machine, options.calibrate if options.precision == "int8" else 0)
    if options.precision == "int8" and not len(sample.calibration_NHW3):
        raise RunError(
            f"int8 is calibrated on training faces, and dataset '{recipe.data.name}' has none; give another --dataset "
            "or --data-root, or export fp16"
        )
    return sample


def _description(model: Model, view: View, recipe: Recipe, precision: Precision, ends: Ends) -> Description:
    card = Card(model.architecture, view, model.training)
    return Description(card, precision, ends.inputs, ends.outputs, costs_of(model, recipe))


def _quantisation(options: ExportOptions, sample: Sample) -> Quantisation | Precision:
    if options.precision != "int8":
        return options.precision
    return Quantisation(options.ends.prepare(sample.calibration_NHW3), options.keep)


def _judge(
    form: Format, written: Sequence[Path], model: Model, view: View, sample: Sample, options: ExportOptions
) -> Exported:
    """Compare a file with PyTorch."""
    original = Original(model.module, view)
    look = original.look(form.open(written[-1], torch.get_num_threads()), options.ends)
    difference = compare(original, look, sample.compared_NHW3)
    before = after = None
    if len(sample.judged_NHW3):
        before = _nme(original.landmarks(sample.judged_NHW3), sample, view)
        after = _nme(look(sample.judged_NHW3)[0], sample, view)
    return Exported(
        path=written[-1],
        files=tuple(written),
        format=options.form,
        precision=options.precision,
        size=sum(file.stat().st_size for file in written),
        faces=sample.name,
        difference=difference,
        compared=len(sample.compared_NHW3),
        calibrated=len(sample.calibration_NHW3) if options.precision == "int8" else 0,
        judged=len(sample.judged_NHW3),
        nme_before=before,
        nme_after=after,
    )


def _refuse_foreign(form: Format, written: Sequence[Path], out: Path, about: str) -> None:
    """Raise a RunError when a file of the user's own would be replaced; warn when an earlier export is.

    A network is ours if it describes itself; what lies beside one is, if the page or else the network there is.
    """
    network = out / written[-1].name
    page = next((out / file.name for file in written if file.suffix == ".html"), None)
    earlier = _described(form, network)
    replaced: set[Path] = set()
    for file in written:
        there = out / file.name
        if not there.exists() or (there.is_file() and there.read_bytes() == file.read_bytes()):
            continue
        if there == network or page is None:
            ours = earlier is not None
        else:
            ours = begins_with(page, 'name="generator" content="nasface"')
        if not ours:
            raise not_ours(there)
        replaced.add(file)
    weights = written[-1] if page else written[0]  # a text beside the weights differs a little each time in OpenVINO
    if weights in replaced or (replaced and earlier != about):
        log.warning("%s, an earlier export that differs from this one, is replaced", network)


def _described(form: Format, network: Path) -> str | None:
    """Return how an exported network describes itself; None if it is not there, or not from nasface."""
    try:
        return form.describe(network) if network.is_file() else None
    except RunError:
        return None


def _nme(found_NL2: NDArray[np.float64], sample: Sample, view: View) -> float:
    return float(errors(found_NL2, sample.judged_NL2, view.scheme)[DEFAULT_NORMALISER].mean())


def _refuse(found: Exported, options: ExportOptions, net: nn.Module, sample: Sample) -> None:
    """Raise a RunError when the file differs from PyTorch by more than allowed."""
    difference = found.difference
    if options.precision == "fp32" and not (difference.landmarks and difference.worst <= TOLERANCE):
        raise RunError(
            f"the exported network puts landmarks up to {difference.worst:.3g} pixels from where PyTorch puts them (on "
            f"{found.compared} faces, {difference.landmarks} landmarks; {TOLERANCE} are allowed in fp32), so nothing "
            "was written; update torch, onnx and the runtime, and check the search space's parts with float inputs"
        )
    if found.nme_before is None or found.nme_after is None:
        return
    loss = 100 * (found.nme_after - found.nme_before)
    if not loss <= options.max_loss:
        advice = _help_int8(net, sample, options.keep) if options.precision == "int8" else _HELP[options.precision]
        raise RunError(
            f"{options.precision} raises the NME on {found.judged} held-out faces by {loss:.2f} points, from "
            f"{found.nme_before:.2%} to {found.nme_after:.2%}, more than --max-loss {options.max_loss:g}, so nothing "
            f"was written; {advice}"
        )


def _help_int8(net: nn.Module, sample: Sample, keep: tuple[str, ...]) -> str:
    """Return what to do about an int8 network that loses too much; `net` is what was exported, `keep` is in float."""
    images = Ends("normalised").prepare(sample.calibration_NHW3[:RANKED])
    worst = [part for part in by_sensitivity(net, torch.from_numpy(images)) if not is_kept(part, keep)][:NAMED]
    options = " ".join(f"--keep-float {shlex.quote(glob.escape(part))}" for part in worst)
    first = f"keep the most sensitive parts in float, too, with {options}; " if worst else ""
    return f"{first}calibrate on more faces with --calibrate; or export fp16"


_HELP = {"fp32": "update torch, onnx and the runtime", "fp16": "export fp32"}

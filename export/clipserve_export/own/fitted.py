"""A head that `clipserve fit` has fitted, as the source of an export.

The file of the new model is that of the model whose features the head takes, with the head behind its FEATURES:
scores = softmax(features x weights + bias), once for each view, and then the mean over views. So a view is scored by
the features that a head is fitted to, however many positions the network has; and any exported file that answers
FEATURES will do, in any precision. The mean over views comes last, as in every network: substitute backends run the
clips of a video in parts, and average the answers.
"""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from clipserve.contract import ClipContract
from clipserve.fitting.head import Head
from clipserve.options import Sampling
from clipserve_export.access import require_writable
from clipserve_export.clips import random_clips
from clipserve_export.errors import ContractError, RepositoryError, VersionError
from clipserve_export.exporting import ExportRecord, Progress, export_network
from clipserve_export.formats import Format, Run
from clipserve_export.network import ActionNetwork
from clipserve_export.own.onnx_nodes import Nodes, opset_of, read_names, rename_tensors
from clipserve_export.own.source import own_spec
from clipserve_export.records import published_numbers
from clipserve_export.repository import find_spec, read_chosen
from clipserve_export.serving.choices import Serving
from clipserve_export.sources import LoadedNetwork
from clipserve_export.specs import ModelSpec
from clipserve_export.target import Precision, Target
from clipserve_export.versions import choose_number, read_versions, require_compatible
from clipserve_export.weights import file_hash

REPORT = "fit.json"  # in the version's folder


@dataclass(frozen=True, kw_only=True)
class Trunk:
    """The published version of a model whose features a head takes.

    Attributes:
        path: its file.
        record: its export.json.
        serving: the options that it is served with.
    """

    repository: Path
    spec: ModelSpec
    version: int
    form: Format
    path: Path
    record: Mapping[str, Any]
    serving: Serving

    @property
    def feature_size(self) -> int:
        """D."""
        return self.spec.feature_size or 0

    @property
    def precision(self) -> Precision:
        """Of the file."""
        return self.record.get("precision", "fp32")  # type: ignore[no-any-return]

    @property
    def target(self) -> Target:
        """Of the file."""
        return self.record.get("target", "cpu")  # type: ignore[no-any-return]

    @property
    def origin(self) -> str:
        """As a record names it."""
        return f"{self.spec.name} version {self.version}, weights {self.record.get('weights', 'unknown')}"

    def spec_of(self, name: str) -> ModelSpec:
        """The model `name` with a head on this one. Raises ContractError for its name."""
        own = own_spec(name, self.spec.contract)
        return replace(own, clip_megabytes=self.spec.clip_megabytes, gpu_clip_megabytes=self.spec.gpu_clip_megabytes)

    def require_classes(self, name: str, classes: Sequence[str], *, version: int | None = None) -> None:
        """Raise VersionError unless these can be the classes of `name` beside its other versions."""
        spec = self.spec_of(name)
        try:
            require_compatible(
                self.repository, spec, choose_number(self.repository, spec, version or "next"),
                form=self.form, labels=classes, serving=self.serving,
            )  # fmt: skip
        except VersionError as error:
            raise VersionError(f"{error}; or choose another --name") from error


def find_trunk(repository: Path, on: str, *, name: str) -> Trunk:
    """The version of `on` that answers, for a head that is to be called `name`.

    Raises:
        RepositoryError: `repository` has no such model, or none of its versions, or cannot be written.
        ContractError: it has no features, or the name is not allowed.
    """
    spec = find_spec(repository, on)
    chosen = read_chosen(repository, spec)
    answering = next((version for version in read_versions(repository, spec) if version.answers), None)
    folder = repository / spec.net_name / str(answering.number if answering else 0)
    if chosen is None or answering is None or not (folder / chosen.form.filename).is_file():
        raise RepositoryError(
            f"{repository} has no version of {on}: give the folder that the server serves by --repository, or make the"
            f" model with clipserve export {on}"
        )
    if chosen.contract.feature_size is None:
        raise ContractError(f"{on} returns no FEATURES, which a fit needs: choose another model")
    trunk = Trunk(
        repository=repository,
        spec=replace(spec, contract=chosen.contract),
        version=answering.number,
        form=chosen.form,
        path=folder / chosen.form.filename,
        record=answering.record,
        serving=chosen.serving,
    )
    own = trunk.spec_of(name)
    numbers = published_numbers(repository, own)
    if numbers and not (repository / own.net_name / str(numbers[-1]) / REPORT).exists():
        raise ContractError(f"{repository} has a model {name} that clipserve fit has not made: choose another --name")
    require_writable(repository)
    return trunk


def publish_head(
    trunk: Trunk,
    head: Head,
    name: str,
    *,
    accuracy: str = "",
    protocol: tuple[Sampling, int, int] = ("uniform", 1, 1),
    report: str = "{}",
    version_number: int | None = None,
    progress: Progress = lambda _: None,
) -> ExportRecord:
    """Publish the head as a model of the trunk's repository.

    Args:
        trunk: whose features the head takes.
        head: D values in, K classes out.
        name: of the new model.
        accuracy: for its contract.
        protocol: sampling, views and crops that it was fitted with, for its contract.
        report: JSON, which is kept beside the file.
        version_number: None: the next one.
        progress: called with the name of each step.

    Raises:
        ExportError: nothing was published.
    """
    sampling, views, crops = protocol
    contract = replace(
        trunk.spec.contract,
        classes=len(head.classes),
        accuracy=accuracy,
        sampling=sampling,
        views=views,
        crops=crops,
        weights_source=f"clipserve fit on {trunk.spec.name}: {trunk.spec.contract.weights_source}",
    )
    spec = replace(trunk.spec_of(name), contract=contract)

    def choose_serving(present: Serving) -> Serving:
        first = read_chosen(trunk.repository, spec) is None
        return replace(trunk.serving, keep=Serving().keep) if first else present

    trunk.require_classes(name, head.classes, version=version_number)
    record = export_network(
        FittedSource(spec, trunk, head, report),
        format_name=trunk.form.name,
        repository=trunk.repository,
        precision=trunk.precision,
        target=trunk.target,
        version_number=version_number or "next",
        serving=choose_serving,
        progress=progress,
    )
    assert record is not None  # nothing is reused
    return record


@dataclass(frozen=True)
class FittedSource:
    """A head behind the file of its trunk."""

    spec: ModelSpec
    trunk: Trunk
    head: Head
    report: str
    measures_clip: bool = field(default=False, init=False)

    def load(self) -> LoadedNetwork:
        """The network as both files compute it: the trunk's, then the head."""
        return LoadedNetwork(
            network=FittedNetwork(self.spec.contract, self.trunk.form.load(self.trunk.path), self.head).eval(),
            contract=self.spec.contract,
            labels=self.head.classes,
            weights=f"head on {self.trunk.origin}",
            weights_sha256=hash_files(self.trunk, self.head),
            write=self.write,
            precision=self.trunk.precision,
            remedy=f"export {self.trunk.spec.name} again, and fit again",
        )

    def write(self, path: Path) -> None:
        """Write the network, and the report beside it."""
        {"onnx": write_onnx, "torchscript": write_torchscript}[self.trunk.form.name](self.trunk, self.head, path)
        (path.parent / REPORT).write_text(self.report)

    def recipe_files(self) -> Sequence[Path]:
        """This file, and what it adds nodes with."""
        return [Path(__file__), Path(__file__).with_name("onnx_nodes.py")]

    def describes(self, record: Mapping[str, Any]) -> bool:
        """Compared by the values."""
        return record.get("weights_sha256") == hash_files(self.trunk, self.head)


def hash_files(trunk: Trunk, head: Head) -> str:
    """SHA-256 of the trunk's file and the head's values."""
    values = hashlib.sha256(head.weights.tobytes() + head.bias.tobytes()).hexdigest()
    return hashlib.sha256((file_hash(trunk.path) + values).encode()).hexdigest()


class FittedNetwork(ActionNetwork):
    """What the new file is compared with."""

    def __init__(self, contract: ClipContract, run: Run, head: Head) -> None:
        super().__init__(contract)
        self._run, self._head = run, head

    def forward(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [N, V, T, S, S, 3] RGB -> SCORES float [N, K], FEATURES float [N, D]."""
        features = self._run(clip.flatten(0, 1).unsqueeze(1).numpy())[1]
        scores = torch.from_numpy(self._head.score(features)).float()
        return mean_views(scores, clip), mean_views(torch.from_numpy(features), clip)


def mean_views(values: Tensor, clip: Tensor) -> Tensor:
    """[N x V, ...] -> [N, ...]."""
    return values.reshape(clip.shape[0], clip.shape[1], -1).mean(1)


def write_onnx(trunk: Trunk, head: Head, path: Path) -> None:
    """The trunk's graph with each view as a video of its own, without what FEATURES do not depend on; then the head."""
    model = onnx.load(trunk.path)
    graph, contract = model.graph, trunk.spec.contract
    # Of its own, because the trunk may have a head, even the same one.
    prefix = f"clipserve/head_{hash_files(trunk, head)[:12]}/"
    view, features = f"{prefix}view", f"{prefix}features"
    keep_only(graph, "FEATURES")
    rename_tensors(graph.node, {"CLIP": view, "FEATURES": features})
    nodes = Nodes(opset_of(model), prefix)
    dims = [-1, 1, contract.frames, contract.crop, contract.crop, 3]
    nodes.add("Reshape", "CLIP", nodes.constant(dims), output=view)
    before = len(nodes.nodes)
    products = nodes.add("MatMul", features, nodes.array(head.weights.T))
    scores = nodes.add("Softmax", nodes.add("Add", products, nodes.array(head.bias)), axis=-1)
    nodes.mean(nodes.add("Reshape", scores, nodes.batch_and_views(len(head.classes))), output="SCORES")
    nodes.mean(nodes.add("Reshape", features, nodes.batch_and_views(head.feature_size)), output="FEATURES")
    own = list(graph.node)
    del graph.node[:], graph.output[:]
    graph.node.extend([*nodes.nodes[:before], *own, *nodes.nodes[before:]])
    graph.initializer.extend(nodes.constants)
    for output, size in (("SCORES", len(head.classes)), ("FEATURES", head.feature_size)):
        graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, ["N", size]))
    onnx.checker.check_model(model)
    onnx.save(model, path)


def keep_only(graph: onnx.GraphProto, output: str) -> None:
    """Drop every other output of the graph, and what only they depend on."""
    needed, nodes = {output}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            nodes.append(node)
            needed |= read_names(node)
    kept = {
        "node": nodes[::-1],
        "output": [value for value in graph.output if value.name == output],
        "initializer": [tensor for tensor in graph.initializer if tensor.name in needed],
        # Shapes that were inferred for N videos of V views; a runtime infers them again.
        "value_info": [],
    }
    for name, items in kept.items():
        del getattr(graph, name)[:]
        getattr(graph, name).extend(items)


def write_torchscript(trunk: Trunk, head: Head, path: Path) -> None:
    """The trunk's program with the head behind it; what only its own scores need is left out."""
    with warnings.catch_warnings(), torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        warnings.simplefilter("ignore")
        program = HeadedProgram(torch.jit.load(trunk.path, map_location="cpu"), head).eval().requires_grad_(False)
        example = random_clips(trunk.spec.geometry, batch=2, views=2, seed=0)
        torch.jit.save(torch.jit.freeze(torch.jit.trace(program, example, check_trace=False)), path)


class HeadedProgram(nn.Module):
    """A TorchScript program that answers (SCORES, FEATURES), with other scores."""

    def __init__(self, program: torch.jit.ScriptModule, head: Head) -> None:
        super().__init__()
        self.program = program
        self.projection = nn.Linear(head.feature_size, len(head.classes))
        self.projection.weight.data = torch.from_numpy(head.weights)
        self.projection.bias.data = torch.from_numpy(head.bias)

    def forward(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [N, V, T, S, S, 3] RGB -> SCORES, FEATURES."""
        features: Tensor = self.program(clip.flatten(0, 1).unsqueeze(1))[1]
        return mean_views(self.projection(features).softmax(-1), clip), mean_views(features, clip)

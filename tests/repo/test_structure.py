"""The shape of the code: short functions, one class a name, a test module for each module, a reason for each slow test.

Each exception stands in a table here. One that is no longer needed fails, too.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT

MAX_LINES, MAX_PARAMETERS = 50, 6

FLAT = {
    # Options of a command, one a parameter.
    "training/__main__.py::evaluate",
    "training/__main__.py::reduce",
    "training/__main__.py::train",
    "training/importing/command.py::import_",
}
"""Functions that may be longer, or take more, because they are a flat list."""

TESTED_ELSEWHERE = {
    "app/__main__.py": "live/test_live.py",
    "app/api/forms/bodies.py": "app/api/operations/test_adding.py app/api/operations/test_encode.py",
    "app/api/forms/images.py": "app/api/operations/test_encode.py",
    "app/api/forms/latents.py": "app/api/operations/test_decode.py app/api/operations/test_maps.py",
    "app/api/forms/readers.py": "app/api/operations/test_encode.py app/api/middleware/test_exchange.py",
    "app/api/forms/writers.py": "app/api/forms/test_route.py",
    "app/api/openapi/schemas.py": "app/api/openapi/test_document.py",
    "app/api/routing/administration.py": "app/api/service/test_manage.py app/api/middleware/test_access.py",
    "app/api/routing/application.py": "app/api/middleware/test_request_log.py app/api/service/test_service.py",
    "app/api/routing/negotiation.py": "app/api/service/test_service.py",
    "app/api/routing/problems.py": "app/api/openapi/test_document.py app/api/service/test_service.py",
    "app/api/routing/queries.py": "app/api/routing/test_operation.py",
    "app/api/routing/response.py": "app/api/forms/test_route.py",
    "app/api/routing/state.py": "app/api/service/test_service.py",
    "app/api/service/models.py": "app/api/service/test_service.py",
    "app/api/service/pages.py": "app/api/service/test_service.py app/api/middleware/test_headers.py",
    "app/api/v2/graphs.py": "app/api/v2/test_inference.py",
    "app/api/v2/index.py": "app/api/v2/test_inference.py",
    "app/api/v2/metadata.py": "app/api/v2/test_inference.py app/api/v2/test_triton.py",
    "app/api/v2/reply.py": "app/api/v2/test_inference.py app/api/v2/test_triton.py",
    "app/api/v2/repository.py": "app/api/v2/test_inference.py app/api/v2/test_triton.py",
    "app/api/v2/request.py": "app/api/v2/test_inference.py",
    "app/api/v2/server.py": "app/api/v2/test_inference.py",
    "app/api/v2/statistics.py": "app/api/v2/test_inference.py",
    "app/bundle/arrays.py": "app/bundle/test_manifest.py",
    "app/bundle/directory.py": "app/vae/test_catalog.py",
    "app/bundle/files.py": "app/bundle/test_manifest.py app/vae/test_catalog.py",
    "app/cli/bulk.py": "app/cli/test_outputs.py app/cli/commands/test_encode.py",
    "app/cli/commands/decode.py": "app/cli/test_both_ways.py",
    "app/cli/commands/interpolate.py": "app/cli/test_both_ways.py",
    "app/cli/commands/models.py": "app/cli/test_both_ways.py",
    "app/cli/commands/reconstruct.py": "app/cli/test_both_ways.py",
    "app/cli/commands/sample.py": "app/cli/test_both_ways.py",
    "app/cli/commands/score.py": "app/cli/test_both_ways.py",
    "app/cli/commands/serve.py": "app/cli/test_help.py",
    "app/cli/files.py": "app/cli/test_outputs.py",
    "app/cli/images.py": "app/cli/test_outputs.py",
    "app/cli/latents.py": "app/cli/test_both_ways.py app/cli/test_maps.py",
    "app/cli/main.py": "app/cli/test_help.py",
    "app/cli/options.py": "app/cli/test_help.py",
    "app/cli/problems.py": "app/cli/test_client.py",
    "app/cli/terminal.py": "app/cli/test_outputs.py",
    "app/cluster/fan_out.py": "app/cluster/test_ingress.py",
    "app/cluster/replicas.py": "live/test_ray.py",
    "app/codecs/png.py": "app/codecs/test_images.py",
    "app/errors.py": "app/api/openapi/test_document.py",
    "app/inference/graphs.py": "app/inference/test_session.py app/vae/test_vae.py",
    "app/inference/lanes.py": "app/inference/test_batcher.py app/inference/test_queue.py",
    "app/main.py": "app/api/service/test_service.py live/test_live.py",
    "app/maths/bounds.py": "app/api/operations/test_score.py",
    "app/metrics/__init__.py": "app/metrics/test_metrics.py",
    "app/metrics/collectors.py": "app/metrics/test_metrics.py",
    "app/metrics/graphs.py": "app/metrics/test_metrics.py",
    "app/observability/timing.py": "app/observability/test_logs.py app/inference/test_batcher.py",
    "app/security/tls.py": "live/test_tls.py",
    "app/server/protocol.py": "live/test_connections.py live/test_protocol.py",
    "app/server/reload.py": "live/test_reload.py",
    "app/server/run.py": "live/test_live.py",
    "app/server/sockets.py": "live/test_live.py live/test_connections.py",
    "app/vae/points.py": "app/api/operations/test_interpolate.py app/api/operations/test_combine.py",
    "app/vae/scoring.py": "app/api/operations/test_score.py",
    "training/__main__.py": "training/test_cli.py",
    "training/architectures/article.py": "training/test_architectures.py",
    "training/architectures/mlp.py": "training/test_architectures.py",
    "training/architectures/residual.py": "training/test_architectures.py",
    "training/architectures/shape.py": "training/test_architectures.py",
    "training/card/__init__.py": "training/card/test_card.py",
    "training/card/captions.py": "training/card/test_card.py",
    "training/card/reduced.py": "training/reducing/test_reduce.py",
    "training/data/__init__.py": "training/data/test_data.py",
    "training/data/dataset.py": "training/data/test_data.py",
    "training/data/faces/__init__.py": "training/data/faces/test_faces.py",
    "training/data/subjects.py": "training/card/test_card.py",
    "training/errors.py": "training/test_cli.py",
    "training/figures/__init__.py": "training/figures/test_figures.py",
    "training/importing/answers.py": "training/importing/test_command.py",
    "training/importing/card.py": "training/importing/test_round_trip.py",
    "training/importing/checks/comparison.py": "training/importing/test_round_trip.py",
    "training/importing/checks/forward.py": "training/importing/test_families.py",
    "training/importing/checks/latents.py": "training/importing/test_round_trip.py",
    "training/importing/checks/parity.py": "training/importing/test_round_trip.py",
    "training/importing/checks/reference.py": "training/importing/test_round_trip.py",
    "training/importing/checks/round_trip.py": "training/importing/test_round_trip.py",
    "training/importing/checks/samples.py": "training/importing/test_round_trip.py",
    "training/importing/checks/memory.py": "training/importing/test_tiles.py",
    "training/importing/checks/tiles.py": "training/importing/test_tiles.py",
    "training/importing/onnx_edits/chain.py": "training/importing/test_wrapper.py",
    "training/importing/onnx_edits/decoder_outputs.py": "training/importing/test_wrapper.py",
    "training/importing/onnx_edits/dynamic_batch.py": "training/importing/test_wrapper.py",
    "training/importing/onnx_edits/encoder_outputs.py": "training/importing/test_wrapper.py",
    "training/importing/onnx_edits/logits.py": "training/importing/test_wrapper.py",
    "training/importing/onnx_edits/random_operators.py": "training/importing/test_wrapper.py",
    "training/importing/onnx_edits/wrapper.py": "training/importing/test_wrapper.py",
    "training/importing/options.py": "training/importing/test_refusals.py",
    "training/importing/pipeline.py": "training/importing/test_round_trip.py",
    "training/importing/prompt.py": "training/importing/test_command.py",
    "training/importing/report.py": "training/importing/test_round_trip.py",
    "training/importing/source.py": "training/importing/test_directories.py",
    "training/importing/sources/diffusers_models.py": "training/importing/test_directories.py",
    "training/importing/sources/formats.py": "training/importing/test_directories.py",
    "training/importing/sources/onnx_files.py": "training/importing/test_wrapper.py",
    "training/importing/sources/optimum.py": "training/importing/test_directories.py",
    "training/importing/sources/torch_archives.py": "training/importing/test_torch.py",
    "training/importing/sources/torch_class.py": "training/importing/test_torch.py",
    "training/importing/sources/torch_forward.py": "training/importing/test_families.py",
    "training/importing/sources/torch_modules.py": "training/importing/test_torch.py",
    "training/importing/sources/torch_weights.py": "training/importing/test_torch.py",
    "training/importing/sources/torch_programs.py": "training/importing/test_torch.py",
    "training/importing/write.py": "training/importing/test_round_trip.py",
    "training/onnx_graph.py": "training/reducing/test_half_precision.py",
    "training/reducing/comparison.py": "training/reducing/test_reduce.py",
    "training/reducing/options.py": "training/reducing/test_reduce.py",
    "training/reducing/quality_gate.py": "training/reducing/test_reduce.py",
    "training/reducing/samples.py": "training/reducing/test_reduce.py",
}
"""Which modules of `tests/` test a module that has none at its mirrored path."""

SELF_CONTAINED = "training/architectures"
"""Each file has the whole of one net, whose parts are called alike."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> list[Path]:
    return sorted(path for package in ("app", "training") for path in (ROOT / package).rglob("*.py"))


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(node: ast.AST, outer: str = "") -> Iterator[tuple[str, Function]]:
    """Functions and methods below a node, by dotted name."""
    for child in ast.iter_child_nodes(node):
        name = f"{outer}{child.name}" if isinstance(child, Function | ast.ClassDef) else ""
        if isinstance(child, Function):
            yield name, child
        yield from functions(child, f"{name}." if name else outer)


def lines(function: Function) -> int:
    """Lines from `def` to the end, without those of its docstring."""
    assert function.end_lineno is not None
    total = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        assert first.end_lineno is not None
        total -= first.end_lineno - first.lineno + 1
    return total


def parameters(function: Function) -> int:
    """Parameters that a caller may give."""
    taken = function.args
    named = [one.arg for one in (*taken.posonlyargs, *taken.args, *taken.kwonlyargs)]
    return len([name for name in named if name not in ("self", "cls")]) + bool(taken.vararg) + bool(taken.kwarg)


def test_functions_are_short_and_take_few_parameters() -> None:
    large = {
        f"{shown(path)}::{name}": (lines(function), parameters(function))
        for path in modules()
        for name, function in functions(ast.parse(path.read_text()))
        if lines(function) > MAX_LINES or parameters(function) > MAX_PARAMETERS
    }
    assert {name: size for name, size in large.items() if name not in FLAT} == {}
    assert FLAT - large.keys() == set(), "these are no longer large"


def test_a_class_has_its_name_alone() -> None:
    homes = defaultdict(list)
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not shown(path).startswith(SELF_CONTAINED):
                homes[node.name].append(shown(path))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


def mirrored(path: Path) -> Path:
    """Where the tests of a module are looked for."""
    return ROOT / "tests" / path.relative_to(ROOT).parent / f"test_{path.stem.strip('_')}.py"


def has_code(path: Path) -> bool:
    """Whether a module defines a function or a class."""
    return any(isinstance(node, Function | ast.ClassDef) for node in ast.walk(ast.parse(path.read_text())))


def test_each_module_has_a_test_module() -> None:
    lacking = {shown(path) for path in modules() if has_code(path) and not mirrored(path).exists()}
    assert sorted(lacking - TESTED_ELSEWHERE.keys()) == []
    assert sorted(TESTED_ELSEWHERE.keys() - lacking) == [], "these have a test module of their own, or are gone"


def test_what_is_tested_elsewhere_is() -> None:
    named = {path for paths in TESTED_ELSEWHERE.values() for path in paths.split()}
    assert sorted(path for path in named if not (ROOT / "tests" / path).is_file()) == []


MARKS = ("slow", "skip", "skipif", "xfail")


def marks(tree: ast.AST) -> Iterator[tuple[int, str, bool]]:
    """Line and name of each mark that leaves a test out, and whether it has a reason."""
    called = {node.func: node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in MARKS and ast.unparse(node.value) == "pytest.mark":
            call = called.get(node)
            yield node.lineno, node.attr, call is not None and any(word.arg == "reason" for word in call.keywords)


def test_no_test_is_left_out_without_a_reason() -> None:
    paths = [path for path in (ROOT / "tests").rglob("*.py") if "node_modules" not in path.parts]
    found = {f"{shown(path)}:{line}": named for path in paths for line, _, named in marks(ast.parse(path.read_text()))}
    assert found
    assert [place for place, named in found.items() if not named] == []

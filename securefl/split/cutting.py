"""Cut a module by name into the parts that different parties hold.

    front (client) ─ activations a ─▶ body (server) ─ outputs z ─▶ head (client)

The module is traced by ``torch.fx`` with the named layers kept whole, so any module can be cut whose ``forward`` can be
traced and where **one** tensor crosses each cut: a residual connection over the cut would carry a second one, and what
crosses is what must be protected. The parts share the module's parameters; nothing is copied.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from securefl.errors import ConfigurationError

__all__ = ["Cut", "cut"]


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """``front``, ``head``: the client's. ``body``: the server's. ``head`` is ``None`` where the server has the end.

    With a head (the U shape) labels and loss stay with the client; without, the server needs the labels.
    """

    front: nn.Module
    body: nn.Module
    head: nn.Module | None

    def shapes(self, inputs: torch.Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of one example's activations and of one example's outputs of the body.

        ``inputs``: at least one example along dimension 0. Raises :class:`ConfigurationError` for parts that do not
        keep examples along dimension 0.
        """
        modes = [(part, part.training) for part in (self.front, self.body)]
        try:
            self.front.eval(), self.body.eval()
            with torch.no_grad():
                activations = self.front(inputs)
                outputs = self.body(activations)
        finally:
            for part, mode in modes:
                part.train(mode)
        for tensor in (activations, outputs):
            if tensor.ndim < 2 or tensor.shape[0] != inputs.shape[0]:
                raise ConfigurationError(
                    f"a tensor of shape {tuple(tensor.shape)} crosses the cut for {inputs.shape[0]} examples: "
                    "cut where examples lie along dimension 0"
                )
        return tuple(activations.shape[1:]), tuple(outputs.shape[1:])


def cut(module: nn.Module, after: str, until: str | None = None) -> Cut:
    """Cut ``module`` after the layer named ``after``; with ``until``, again after that layer (the U shape).

    Names are those of ``module.named_modules()``. Raises :class:`ConfigurationError` for a name that does not exist
    (with the nearest one), a layer that runs more than once, a cut that more than one tensor crosses, parameters used
    on both sides, a body without parameters and a module that ``torch.fx`` cannot trace.
    """
    names = [name for name, _ in module.named_modules() if name]
    wanted = [after] if until is None else [after, until]
    for name in wanted:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.3)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(map(repr, names[:12]))}"
            raise ConfigurationError(f"the model has no layer {name!r} to cut after; {hint}")
    graph = _trace(module, wanted)
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    if len(placeholders) != 1:
        raise ConfigurationError(f"a model to be cut takes one tensor; this one takes {len(placeholders)} arguments")
    ends = [_node_of(graph, name) for name in wanted]
    order = {node: at for at, node in enumerate(graph.nodes)}
    if until is not None and order[ends[0]] >= order[ends[1]]:
        raise ConfigurationError(f"the layer {until!r} runs before {after!r}: the body would be empty")
    final = next(node for node in graph.nodes if node.op == "output").args[0]
    if not isinstance(final, fx.Node):
        raise ConfigurationError("a model to be cut gives one tensor")
    starts: list[fx.Node] = [placeholders[0], *ends]
    stops: list[fx.Node] = [*ends, final]
    parts = [
        _part(module, graph, start, stop, order, None if at == 0 else wanted[at - 1])
        for at, (start, stop) in enumerate(zip(starts, stops, strict=True))
    ]
    _refuse_shared(parts)
    if not any(True for _ in parts[1].parameters()):
        raise ConfigurationError(
            f"nothing behind {after!r} has parameters for the server to hold: cut before the last layer"
        )
    return Cut(parts[0], parts[1], parts[2] if until is not None else None)


class _Whole(fx.Tracer):
    """Keeps the layers of given names whole."""

    def __init__(self, names: Collection[str]) -> None:
        super().__init__()
        self._names = names

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self._names or super().is_leaf_module(m, module_qualified_name)


def _trace(module: nn.Module, names: Collection[str]) -> fx.Graph:
    try:
        return _Whole(names).trace(module)
    except Exception as error:  # a module's own forward runs here and may raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigurationError(f"the model's forward cannot be traced by torch.fx: {reason}") from error


def _node_of(graph: fx.Graph, name: str) -> fx.Node:
    calls = [node for node in graph.nodes if node.op == "call_module" and node.target == name]
    if len(calls) != 1:
        raise ConfigurationError(
            f"the layer {name!r} runs {len(calls)} times in one forward pass; cut after a layer that runs once"
        )
    call: fx.Node = calls[0]
    return call


def _part(
    module: nn.Module, graph: fx.Graph, start: fx.Node, stop: fx.Node, order: dict[fx.Node, int], name: str | None
) -> fx.GraphModule:
    """What computes ``stop`` from ``start``; parameters and constants come along, other tensors may not."""
    needed, waiting = {start}, [stop]
    while waiting:
        node = waiting.pop()
        if node in needed:
            continue
        if node.op != "get_attr" and order[node] < order[start]:
            raise ConfigurationError(
                f"behind the cut after {name!r} the model still uses {node.name!r} from before it (a skip "
                "connection?): one tensor may cross, cut elsewhere"
            )
        needed.add(node)
        waiting.extend(node.all_input_nodes)
    part = fx.Graph()
    moved: dict[fx.Node, fx.Node] = {start: part.placeholder("x")}
    for node in graph.nodes:
        if node in needed and node is not start:
            moved[node] = part.node_copy(node, moved.__getitem__)
    part.output(moved[stop])
    part.lint()
    result = fx.GraphModule(module, part)
    result.train(module.training)
    return result


def _refuse_shared(parts: list[Any]) -> None:
    seen: dict[int, int] = {}
    for at, part in enumerate(parts):
        for name, parameter in part.named_parameters():
            if seen.setdefault(id(parameter), at) != at:
                raise ConfigurationError(f"the parameter {name!r} is used on both sides of a cut: it has no one owner")

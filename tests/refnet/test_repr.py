"""Every public object prints one short line, and some a table in a notebook."""

from html.parser import HTMLParser
from inspect import isclass

import pytest

import refnet
from refnet import golden, seeded, testing
from refnet.graph.graph import Graph
from refnet.network.networks import network_blocks
from refnet.summary import summarize
from refnet.tables import MOST_ROWS, html_table
from refnet.weights.conversion import Conversion
from tests.support.nets import lively_weights

_LONGEST = 250
_SIDE = 33
# These hold a few numbers or words: Python's own repr shows them in a line.
_SMALL = {"Recipe", "ArgScope"}


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """An object of every public class, and of the classes that public functions give."""
    weights = refnet.Weights(lively_weights())
    path = tmp_path_factory.mktemp("goldens") / "net.safetensors"
    recorded = golden.record(path, weights, (_SIDE, _SIDE, 3), seed=3)
    engine = refnet.Engine(weights)
    net, _ = engine.trace((_SIDE, _SIDE, 3))
    return {
        "Weights": weights,
        "Engine": engine,
        "KerasModel": refnet.KerasModel(weights),
        "Predictor": refnet.Predictor(weights, end_points=["block1", "block2"]),
        "Block": network_blocks("resnet_v2_152")[2],
        "Golden": recorded,
        "Report": golden.check(path, weights),
        "Tensor": net,
        "Graph": net.graph,
        "Architecture": weights.architecture,
        "Conversion": Conversion(renamed={f"{i}": "a" * 30 for i in range(300)}, extra=["a" * 100] * 500),
        "Summary": summarize("resnet_v2_152"),
        "of a long source": refnet.Weights(dict(weights), source="x" * 10_000),
        "of irregular blocks": refnet.Block("b", refnet.bottleneck, [{"depth": 4 * n, "stride": 1} for n in range(99)]),
    }


def test_every_public_class_has_an_example(examples):
    modules = [refnet, golden, seeded, testing]
    named = {
        value for module in modules for name in getattr(module, "__all__", ()) for value in [getattr(module, name)]
    }
    public = {value.__name__ for value in named if isclass(value) and not issubclass(value, Exception)}
    assert public - _SMALL <= set(examples)


def test_one_short_line_without_addresses(examples):
    for name, example in examples.items():
        text = repr(example)
        assert "\n" not in text, name
        assert len(text) <= _LONGEST, name
        assert "0x" not in text, name


def test_a_line_says_what_it_is(examples):
    weights = examples["Weights"]
    assert f"{len(weights)} tensors" in repr(weights)
    assert f"{len(examples['Graph'].end_points)} end points" in repr(examples["Graph"])
    assert repr(examples["Block"]) == "<Block block3: bottleneck 35 x 1024, 1024/2>"
    assert repr(examples["Conversion"]) == "<Conversion: 300 renamed, 500 extra>"
    assert repr(Conversion()) == "<Conversion: nothing was changed>"
    assert "0 of" in repr(examples["Report"])


def test_the_values_of_a_deep_network(capsys):
    graph = Graph(dict.fromkeys(()))
    net, end_points = refnet.resnet_v2_101(graph.placeholder((1, _SIDE, _SIDE, 3)), 1001)
    assert len(repr(net)) <= _LONGEST
    assert len(repr(end_points)) <= 2 * _LONGEST * len(end_points)


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.rows, self.text = [], 0, []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.rows += tag == "tr"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def _parsed(html):
    tags = _Tags()
    tags.feed(html)
    tags.close()
    assert tags.open == []
    return tags


def test_tables_for_notebooks(examples):
    shown = {name: example for name, example in examples.items() if hasattr(example, "_repr_html_")}
    assert {"Weights", "Golden", "Report", "Summary", "Conversion"} <= set(shown)
    for name, example in shown.items():
        html = example._repr_html_()
        assert _parsed(html).rows >= 1, name
        assert len(html) < 200_000, name
    assert _parsed(examples["Weights"]._repr_html_()).rows == len(examples["Weights"]) + 1


def test_a_table_escapes_and_cuts_off():
    hostile = "<script>alert('&')</script>"
    html = html_table(hostile, [hostile], [[hostile]] * 3)
    assert "<script" not in html
    assert _parsed(html).text.count(hostile) == 5
    html = html_table("many", ["number"], ([n] for n in range(MOST_ROWS + 1234)))
    assert _parsed(html).rows == MOST_ROWS + 2
    assert "and 1,234 more" in html


def test_numbers_have_separators():
    assert "25,549,352" in html_table("", ["n"], [[25_549_352]])

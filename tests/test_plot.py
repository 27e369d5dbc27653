"""The figures of a run, read back from what is drawn."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba

from snn_sparsity.commands.main import main
from snn_sparsity.figures import FIGURES, available, figure_of, read_run
from snn_sparsity.figures.drawing import KIND_LOOKS
from snn_sparsity.figures.origin import CAUSES
from snn_sparsity.measure.names import CAUSES as LOGGED_CAUSES
from snn_sparsity.validation import InputError


def block(stage, place):
    modules = [(kind, f"{kind}{n}") for n in (1, 2) for kind in ("conv", "bn", "neuron")]
    downsample = [("conv", "downsample.0"), ("bn", "downsample.1"), ("neuron", "downsample.2")] if stage > 1 and not place else []
    return [(kind, f"layer{stage}.{place}.{path}") for kind, path in modules + downsample]


def sew18():
    """Tags of SEW-ResNet18's operations, the input's first."""
    blocks = [module for stage in (1, 2, 3, 4) for place in (0, 1) for module in block(stage, place)]
    stem = [("input", "input"), ("conv", "conv1"), ("bn", "bn1"), ("neuron", "sn1"), ("pool", "maxpool")]
    listed = [*stem, *blocks, ("pool", "avgpool"), ("linear", "fc")]
    return [(kind, f"{depth:02d}_{path}") for depth, (kind, path) in enumerate(listed)]


def logged(epoch, shift=0.0):
    """What all probes log at an epoch, with numbers of a plausible size."""
    random, values = np.random.default_rng(epoch), {}
    shares = {}
    for depth, (kind, tag) in enumerate(sew18()):
        zero = 0.2 + shift + 0.01 * (depth % 20) + 0.1 * epoch
        split = dict(zip(CAUSES, zero * random.dirichlet([0.5, 0.5, 1, 1, 1, 3]), strict=True))
        values |= {f"grad_zero/{kind}/{tag}": sum(split.values()), f"grad_norm/{kind}/{tag}": 10 ** random.uniform(-4, 0)}
        values |= {f"zero_origin/{cause}/{kind}/{tag}": share for cause, share in split.items()}
        shares.setdefault(kind, []).append(split)
        if kind == "neuron":
            values |= {f"surrogate_{name}/{tag}": random.uniform(0, 0.9) for name in ("vanishing", "unseen", "firing_rate", "silent")}
            values |= {f"surrogate_always/{tag}": 0.0, f"surrogate_distance/{tag}": random.uniform(0, 3)}
        if kind in ("conv", "linear"):
            for pair in ("gradients", "weights"):
                r = math.nan if depth % 5 == 0 else random.uniform(-0.7, 0.7)
                values |= {f"trail_correlation/pearson_batches_{name}/{pair}/{tag}": r + step
                           for name, step in (("value", 0), ("low", -0.2), ("high", 0.15))}  # fmt: skip
    for kind, splits in shares.items():
        values |= {f"zero_origin_mean/{cause}/{kind}": np.mean([split[cause] for split in splits]) for cause in CAUSES}
    values |= {"pool_windows/none/04_maxpool": 0.4, "pool_windows/one/04_maxpool": 0.25, "pool_windows/several/04_maxpool": 0.35}
    for ratio, median in (("predicted_ratio", 40.0 - epoch), ("upper_bound", 9000.0), ("measured_ratio", 25.0 + epoch)):
        values |= {f"vulnerability/{ratio}_{name}": median * factor for name, factor in (("q25", 0.7), ("median", 1), ("q75", 1.6))}
    return values | {"pool_tie_shared_zero/04_maxpool": 0.123, "vulnerability/inside_bounds": 0.9, "train/loss_epoch": 2.3}


def write(folder, epochs, extra=()):
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["epoch,step,name,value"]
    rows += [f"{epoch},{10 * epoch},{name},{float(value)!r}" for epoch, values in epochs.items() for name, value in values.items()]
    (folder / "metrics.csv").write_text("\n".join([*rows, *extra]) + "\n")
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "runs/demo/seed_3407/0", {0: logged(0), 1: logged(1)})


@pytest.fixture
def run(folder):
    return read_run(folder)


@pytest.fixture
def other(tmp_path):
    return read_run(write(tmp_path / "runs/average/seed_1/2", {0: logged(0, 0.1), 3: logged(3, 0.1)}))


def altered(folder, name, value):
    """The run after a last row was added."""
    with (folder / "metrics.csv").open("a") as file:
        file.write(f"1,10,{name},{value}\n")
    return read_run(folder)


def drawn(axes, gid):
    """Points [n,2] of the line with this gid."""
    return next(line for line in axes.lines if line.get_gid() == gid).get_xydata()


def line(axes, label):
    return next(line for line in axes.lines if line.get_label() == label).get_xydata()


SHOWN = [kind for kind in KIND_LOOKS if kind != "surrogate"]


def of_kind(kind):
    return [(depth, f"{kind}/{tag}") for depth, (each, tag) in enumerate(sew18()) if each == kind]


# Reading -------------------------------------------------------------------------------------------------------------------


def test_a_run_is_read(run):
    assert run.name == "demo/seed_3407/0"
    assert run.curve("vulnerability/measured_ratio_median") == ([0, 1], [25.0, 26.0])
    assert run.curve("never/logged") == ([], [])
    assert run.last("vulnerability/measured_ratio_m") == {"vulnerability/measured_ratio_median": 26.0}
    assert [operation.depth for operation in run.operations("grad_zero/").values()] == list(range(64))


def test_the_last_row_of_an_epoch_wins(tmp_path):
    extra = ["1,5,a,1.0", "0,0,a,2.0", "1,6,a,3.0", "1,6,b,nan", ",6,c,1.0"]
    run = read_run(write(tmp_path, {}, extra))
    assert run.curve("a") == ([0, 1], [2.0, 3.0])
    assert math.isnan(run.last("b")["b"])
    assert set(run.values) == {"a", "b"}, "what has no epoch is left out"


def test_depths_are_numbers_and_not_text(tmp_path):
    run = read_run(write(tmp_path, {0: {f"grad_zero/conv/{depth:02d}_c": 0.5 for depth in (100, 99, 3)}}))
    assert [operation.depth for operation in run.operations("grad_zero/").values()] == [3, 99, 100]


# What is drawn -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SHOWN)
def test_gradients_shows_the_last_epoch(run, kind):
    zeros, norms = figure_of("gradients", [run]).axes
    last = logged(1)
    assert drawn(zeros, kind) == pytest.approx(np.array([(depth, 100 * last[f"grad_zero/{tag}"]) for depth, tag in of_kind(kind)]))
    assert drawn(norms, kind) == pytest.approx(np.array([(depth, last[f"grad_norm/{tag}"]) for depth, tag in of_kind(kind)]))
    assert norms.get_yscale() == "log"


@pytest.mark.parametrize("value", ["0.0", "nan"])
def test_a_norm_without_logarithm_is_marked(folder, value):
    run = altered(folder, "grad_norm/pool/04_maxpool", value)
    assert line(figure_of("gradients", [run]).axes[1], "norm 0 or not finite")[:, 0].tolist() == [4]


@pytest.mark.parametrize("name", [name for name in FIGURES if name != "origin"])
def test_two_runs_stand_side_by_side_on_the_same_axes(run, other, name):
    figure = figure_of(name, [run, other])
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    for left, right in zip(panels[::2], panels[1::2], strict=True):
        assert (left.get_xlim(), left.get_ylim()) == (right.get_xlim(), right.get_ylim())
        assert left.get_position().x1 < right.get_position().x0
        assert left.get_position().y0 == right.get_position().y0
    assert [axes.get_title().splitlines()[0].split(",")[0] for axes in panels[:2]] == ["demo/seed_3407/0", "average/seed_1/2"]


def test_two_runs_of_origin_stand_below_each_other(run, other):
    axes = figure_of("origin", [run, other]).axes
    assert len(axes) == 4
    assert {each.get_ylim() for each in axes} == {axes[0].get_ylim()}
    assert (axes[0].get_xlim(), axes[1].get_xlim()) == (axes[2].get_xlim(), axes[3].get_xlim())


def test_zeros_over_epochs_is_depth_by_epoch(run, other):
    left, right, _ = figure_of("zeros_over_epochs", [run, other]).axes
    zeros = [np.ma.filled(axes.collections[0].get_array(), math.nan) for axes in (left, right)]
    expected = [[100 * logged(epoch)[f"grad_zero/{kind}/{tag}"] for epoch in (0, 1)] for kind, tag in sew18()]
    assert zeros[0].shape == zeros[1].shape == (64, 3), "epochs 0, 1 and 3"
    assert zeros[0][:, :2] == pytest.approx(np.array(expected))
    assert np.isnan(zeros[0][:, 2]).all(), "the first run has no epoch 3"
    assert np.isnan(zeros[1]).all(0).tolist() == [False, True, False], "the second run has no epoch 1"
    assert [label.get_text() for label in left.get_xticklabels()] == ["0", "1", "3"]
    assert [axes.collections[0].get_clim() for axes in (left, right)] == [(0, 100)] * 2


def test_causes_add_up_to_the_zeros(run):
    by_kind, by_operation = figure_of("origin", [run]).axes
    last = logged(1)
    tops = {round(bar.get_x() + bar.get_width() / 2): bar.get_y() + bar.get_height() for bar in by_operation.patches}
    assert tops == pytest.approx({depth: 100 * last[f"grad_zero/{kind}/{tag}"] for depth, (kind, tag) in enumerate(sew18())})
    heights = [bar.get_height() for bar in by_kind.patches]
    assert heights == pytest.approx([100 * last[f"zero_origin_mean/{cause}/{kind}"] for cause in CAUSES for kind in SHOWN])
    assert [label.get_text() for label in by_kind.get_xticklabels()] == SHOWN


def test_causes_are_told_apart(run):
    by_operation = figure_of("origin", [run]).axes[1]
    bars = {bar.get_gid(): bar for bar in by_operation.patches}
    last = logged(1)
    assert tuple(CAUSES) == LOGGED_CAUSES, "each cause that is logged is drawn, in its order"
    for cause, look in CAUSES.items():
        assert bars[cause].get_facecolor() == to_rgba(look.colour)
        assert bars[cause].get_height() == pytest.approx(100 * last[f"zero_origin/{cause}/linear/63_fc"])
    note = "4 (maxpool): windows with no spike 40.0 %, one 25.0 %, several 35.0 %;\nzeros if tied maxima shared the gradient 12.3 %"
    assert note in by_operation.get_xlabel()


def test_bound_shows_the_medians_and_quartiles(run):
    (axes,) = figure_of("bound", [run]).axes
    assert line(axes, "predicted ratio").tolist() == [[0, 40], [1, 39]]
    assert line(axes, "measured ratio").tolist() == [[0, 25], [1, 26]]
    assert line(axes, "lower bound, 3")[:, 1].tolist() == [3, 3]
    upper = next(each for each in axes.lines if each.get_label().startswith("upper bound"))
    assert upper.get_ydata().tolist() == [9000, 9000]
    band = next(each for each in axes.collections if each.get_gid() == "measured_ratio").get_paths()[0].vertices
    assert {tuple(corner) for corner in band.round(9).tolist()} == {(0, 17.5), (1, 18.2), (0, 40), (1, 41.6)}
    assert axes.get_yscale() == "log"
    assert axes.get_title() == "demo/seed_3407/0\nvulnerability: 90.0 % inside the bounds at the last epoch"


def test_bound_has_a_row_for_each_probe(tmp_path):
    names = {f"{probe}/{name}": 4.0 for probe in ("strict", "other/probe") for name in ("predicted_ratio_median", "upper_bound_median")}
    titles = [axes.get_title() for axes in figure_of("bound", [read_run(write(tmp_path, {0: names}))]).axes]
    assert [title.splitlines()[-1] for title in titles] == ["other/probe", "strict"]


def test_trail_shows_correlations_and_marks_undefined_ones(run):
    for axes, pair in zip(figure_of("trail", [run]).axes, ("gradients", "weights"), strict=True):
        last = {name: value for name, value in logged(1).items() if name.startswith("trail_") and f"/{pair}/" in name}
        expected = [(int(name.split("/")[-1][:2]), value) for name, value in last.items() if "_value/" in name]
        assert drawn(axes, pair) == pytest.approx(np.array(expected), nan_ok=True)
        undefined = [depth for depth, value in expected if math.isnan(value)]
        assert undefined
        assert line(axes, "undefined (no spread)")[:, 0].tolist() == undefined
        intervals = [each.get_xydata() for each in axes.lines if each.get_gid() == "interval"]
        middles = [(x, (low + high) / 2 + 0.025) for (x, low), (_, high) in intervals]
        assert np.array(middles) == pytest.approx(np.array(expected), nan_ok=True)


def test_surrogate_shows_each_statistic(run):
    seen, firing, distance = figure_of("surrogate", [run]).axes
    shown = [(seen, "vanishing degree", "vanishing"), (seen, "unseen by the surrogate", "unseen"), (firing, "firing rate", "firing_rate"),
             (firing, "silent neurons", "silent"), (firing, "always-firing neurons", "always")]  # fmt: skip
    for axes, label, name in shown:
        expected = [(depth, 100 * logged(1)[f"surrogate_{name}/{tag.split('/')[1]}"]) for depth, tag in of_kind("neuron")]
        assert line(axes, label) == pytest.approx(np.array(expected))
    expected = [(depth, logged(1)[f"surrogate_distance/{tag.split('/')[1]}"]) for depth, tag in of_kind("neuron")]
    assert line(distance, "distance to the threshold") == pytest.approx(np.array(expected))


def test_figures_are_unknown_to_pyplot(run):
    for name in FIGURES:
        figure_of(name, [run])
    assert pyplot.get_fignums() == []


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_gaps_of_the_heat_map_are_explained(run, other):
    assert legend_of(figure_of("zeros_over_epochs", [run])) == SHOWN
    assert legend_of(figure_of("zeros_over_epochs", [run, other])) == [*SHOWN, "not measured"]


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_overlaps(run, tmp_path, name):
    long = write(tmp_path / "one+two_with_a_long_name+three_with_a_longer_one+four/seed_1/0", {0: logged(0)})
    figure = figure_of(name, [run, read_run(long)])
    FigureCanvasAgg(figure).draw()
    boxes = [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()] + [figure.legends[0].get_window_extent()]
    boxes += [label.get_window_extent() for axes in figure.axes for label in (axes.xaxis.label, axes.yaxis.label) if label.get_text()]
    assert not [(a, b) for place, a in enumerate(boxes) for b in boxes[:place] if a.overlaps(b)]
    width, height = figure.canvas.get_width_height()
    assert all(box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height for box in boxes)


@pytest.mark.parametrize("name", FIGURES)
def test_what_is_undefined_is_marked_and_not_left_out(tmp_path, name):
    run = read_run(write(tmp_path / "runs/demo/seed_1/0", {0: dict.fromkeys(logged(0), math.nan)}))
    figure = figure_of(name, [run])
    FigureCanvasAgg(figure).draw()
    box, width = figure.legends[0].get_window_extent(), figure.canvas.get_width_height()[0]
    assert box.x0 >= 0
    assert box.x1 <= width
    assert not any("nan" in axes.get_title() for axes in figure.axes)
    words = ("undefined", "undefined (no spread)", "not measured", "norm 0 or not finite", "median 0 or not finite")
    assert set(words) & set(legend_of(figure))


# The command ---------------------------------------------------------------------------------------------------------------


def test_plot_writes_what_there_are_metrics_for(folder, tmp_path, capsys):
    before = set(tmp_path.rglob("*"))
    assert main(["plot", str(folder)]) == 0
    out = folder / "figures"
    assert capsys.readouterr().out.splitlines() == [str(out / f"{name}.png") for name in FIGURES]
    assert set(tmp_path.rglob("*")) - before == {out, *(out / f"{name}.png" for name in FIGURES)}


def test_plot_writes_only_to_out(run, other, tmp_path, capsys):
    before = set(tmp_path.rglob("*"))
    assert main(["plot", str(run.path), str(other.path), "--figure", "bound", "--out", str(tmp_path / "a/b")]) == 0
    assert set(tmp_path.rglob("*")) - before == {tmp_path / "a", tmp_path / "a/b", tmp_path / "a/b/bound.png"}


@pytest.mark.parametrize("name", FIGURES)
def test_the_same_metrics_give_the_same_bytes(folder, tmp_path, name, capsys):
    for out in ("first", "second"):
        assert main(["plot", str(folder), "--figure", name, "--out", str(tmp_path / out)]) == 0
    first, second = ((tmp_path / out / f"{name}.png").read_bytes() for out in ("first", "second"))
    assert first == second
    assert first.startswith(b"\x89PNG")
    assert b"Software" not in first
    assert 1200 <= int.from_bytes(first[16:20], "big") <= 1600


def test_the_users_own_style_changes_nothing(folder, tmp_path, capsys, monkeypatch):
    assert main(["plot", str(folder), "--figure", "bound", "--out", str(tmp_path / "plain")]) == 0
    monkeypatch.setitem(pyplot.rcParams, "font.size", 30)
    monkeypatch.setitem(pyplot.rcParams, "savefig.facecolor", "red")
    assert main(["plot", str(folder), "--figure", "bound", "--out", str(tmp_path / "styled")]) == 0
    assert (tmp_path / "plain/bound.png").read_bytes() == (tmp_path / "styled/bound.png").read_bytes()


def test_all_means_what_there_is(tmp_path, other, capsys):
    run = write(tmp_path / "some", {0: {"grad_zero/conv/01_conv1": 0.5, "surrogate_silent/03_sn1": 0.1}})
    assert available(read_run(run)) == ["gradients", "zeros_over_epochs", "surrogate"]
    assert main(["plot", str(other.path), str(run), "--out", str(tmp_path / "out")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_help(capsys):
    with pytest.raises(SystemExit) as exit_code:
        main(["plot", "--help"])
    assert exit_code.value.code == 0
    assert set(FIGURES) <= set(capsys.readouterr().out.replace(",", " ").split())


def test_plot_needs_no_torch(folder):
    code = f"import sys; from snn_sparsity.commands.main import main; main(['plot', {str(folder)!r}, '--figure', 'bound'])"
    forbidden = "{'torch', 'lightning', 'matplotlib.pyplot'}"
    subprocess.run([sys.executable, "-c", f"{code}; assert not {forbidden} & set(sys.modules)"], check=True, capture_output=True)


# Mistakes ------------------------------------------------------------------------------------------------------------------


def error(capsys, tmp_path, *arguments):
    """Exit code 2, one line, nothing written."""
    before = set(tmp_path.rglob("*"))
    assert main(["plot", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    (message,) = captured.err.splitlines()
    assert captured.out == ""
    assert set(tmp_path.rglob("*")) == before
    return message


def test_bad_arguments(folder, tmp_path, capsys):
    message = error(capsys, tmp_path, folder, "--figure", "accuracy")
    assert "--figure='accuracy' is not allowed" in message
    assert all(name in message for name in (*FIGURES, "all"))
    assert "required: RUN" in error(capsys, tmp_path)
    assert "unrecognized arguments: third" in error(capsys, tmp_path, folder, folder, "third")
    assert "unrecognized arguments: --colour" in error(capsys, tmp_path, folder, "--colour")
    assert "metrics.csv/bound.png cannot be written: File exists" in error(
        capsys, tmp_path, folder, "--figure", "bound", "--out", folder / "metrics.csv"
    )


def test_folders_that_are_no_run(tmp_path, folder, capsys):
    assert "nowhere is no run" in error(capsys, tmp_path, "nowhere")
    assert f"{tmp_path} is no run" in error(capsys, tmp_path, folder, tmp_path)


@pytest.mark.parametrize("row", ["1,10,a", "1,10,a,b", "x,10,a,1.0", "1,x,a,1.0", "1,10,a,1.0,2", "1", '1,10,"a,1.0'])
def test_a_malformed_line_is_named(tmp_path, capsys, row):
    run = write(tmp_path / "run", {0: {"a": 1.0}}, [row])
    assert "metrics.csv line 3 is no row epoch,step,name,value" in error(capsys, tmp_path, run)


def test_files_that_are_no_metrics(tmp_path, capsys):
    for content, message in ((b"", "line 1"), (b"a,b\n", "line 1: the columns must be epoch,step,name,value"), (b"\xff", "cannot be read")):
        (tmp_path / "metrics.csv").write_bytes(content)
        assert message in error(capsys, tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("figure", "probe"),
    [("gradients", "GradientSparsity"), ("zeros_over_epochs", "GradientSparsity"), ("origin", "SparsityOrigin"),
     ("bound", "VulnerabilityRatio"), ("trail", "GradientTrail"), ("surrogate", "SurrogateSaturation")],
)  # fmt: skip
def test_missing_metrics_name_the_probe(folder, tmp_path, capsys, figure, probe):
    bare = write(tmp_path / "bare", {0: {"val/accuracy": 0.5, "grad_zero_adversarial/conv/01_conv1": 0.1}})
    message = error(capsys, tmp_path, folder, bare, "--figure", figure)
    assert f"{bare} has no metrics for the figure '{figure}': train with the probe {probe} " in message


def test_all_without_any_metrics(folder, tmp_path, capsys):
    bare = write(tmp_path / "bare", {0: {"val/accuracy": 0.5}})
    assert f"no figure finds its metrics in {bare}: train with one of the probes GradientSparsity, " in error(capsys, tmp_path, bare)
    assert f"no figure finds its metrics in {folder} and {bare}" in error(capsys, tmp_path, folder, bare)


def test_nothing_half_written(folder, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "bound.png").write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert "No space left on device" in error(capsys, tmp_path, folder, "--figure", "bound", "--out", out)
    assert os.listdir(out) == ["bound.png"]
    assert (out / "bound.png").read_bytes() == b"old"


def test_figure_of_knows_its_names(run):
    with pytest.raises(InputError, match="figure='accuracy' is not allowed"):
        figure_of("accuracy", [run])

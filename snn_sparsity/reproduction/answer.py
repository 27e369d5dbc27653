"""What the paper claims, what the runs found, how sure: three sentences that follow from the numbers, whatever these are."""

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Literal, NamedTuple

from snn_sparsity.audit.judge.statistics import Proportion
from snn_sparsity.reproduction.attack_settings import AttackSettings
from snn_sparsity.reproduction.attackers import PURE, Mode
from snn_sparsity.reproduction.causal.effects import effects, points, slopes
from snn_sparsity.reproduction.causal.trained import DENSE, SPARSE, Trained
from snn_sparsity.reproduction.defences import audited
from snn_sparsity.reproduction.paired import Pooled, difference, signed
from snn_sparsity.reproduction.paper import DATASETS, network_name, paper, paper_rows
from snn_sparsity.reproduction.results import SeedGroup

Verdict = Literal["supported", "refuted", "undecided"]
NETWORK, DEPTH, DATASET = "SEWResNet", 18, "cifar10"


class Row(NamedTuple):
    """Accuracies of the paper's SEW-ResNet18 on CIFAR-10, percent.

    Attributes:
        maximum: By column, with max pooling.
        average: With average pooling.
    """

    maximum: dict[str, float]
    average: dict[str, float]

    def gap(self, column: str) -> float:
        """Return how far max pooling is ahead, in points."""
        return self.maximum[column] - self.average[column]


def papers_row() -> Row:
    """Return the paper's row.

    Example:
        >>> round(papers_row().gap("pgd"), 2), round(papers_row().gap("clean"), 2)
        (8.61, -1.98)
    """
    found = {row.pool: dict(row.accuracy) for table in (2, 3) for row in paper_rows(table) if row.setting[:3] == (DATASET, NETWORK, DEPTH)}
    return Row(found["max"], found["avg"])


def verdict(zeros: Pooled, gap: float) -> Verdict:
    """Say what an interval of the zeros' effect makes of the claim that they cause the paper's difference.

    A cause of less than half of a difference is not what makes it: ``refuted`` if all of the interval is below half of the gap,
    ``supported`` if all of it is above 0 and some of it reaches half of the gap, ``undecided`` else: the experiment was too small. One
    set of networks is ``undecided`` whatever its interval, which knows nothing of other networks.

    Args:
        zeros: The effect, a share.
        gap: The paper's difference, in points.

    Example:
        >>> [verdict(Pooled(0, low, high, 0, 2, 500), 8.0) for low, high in ((-0.01, 0.02), (0.01, 0.06), (-0.01, 0.06))]
        ['refuted', 'supported', 'undecided']
    """
    if zeros.sets < 2:
        return "undecided"
    if 100 * zeros.high < gap / 2:
        return "refuted"
    return "supported" if zeros.low > 0 else "undecided"


def sentences(networks: Sequence[Trained], groups: Sequence[SeedGroup] = (), others: Sequence[Trained] = ()) -> list[str]:
    """Return the three sentences.

    Args:
        networks: Those of the causal experiment; without a complete set of four, nothing is said to be found.
        groups: The runs beside the paper: its own rows, if they were trained here, are told.
        others: Networks of smaller experiments: what those that were trained longer tell is told.
    """
    row = papers_row()
    claim = (
        f"The paper claims that max pooling makes gradients sparse and that this makes undefended SEW-ResNets robust, at a small price in "
        f"clean accuracy: {network_name(NETWORK, DEPTH)} on {DATASETS[DATASET]} keeps {row.maximum['pgd']:.2f} % under PGD-7 with max and "
        f"{row.average['pgd']:.2f} % with average pooling (clean {row.maximum['clean']:.2f} and {row.average['clean']:.2f} %)."
    )
    return [claim, _found(networks, groups) + _longer_trained(trained_longest(networks, others)), _sure(networks)]


def _found(networks: Sequence[Trained], groups: Sequence[SeedGroup]) -> str:
    found = {(each.mode, each.attack): each for each in effects(networks)}
    if not found:
        return (
            "These runs cannot tell whether zeros are the cause: there is no complete set of the causal experiment among them "
            f"(max and average pooling, each trained with sparse and with dense gradients){_attackers(networks)}{_own_rows(groups)}."
        )
    main, gap = found["spikes_batch", "pgd_7"], papers_row().gap("pgd")
    small = ", though they do something" if main.zeros.low > 0 else ""
    few = ", one set of networks," if main.zeros.sets < 2 else ""
    says = {
        "refuted": f"These runs refute that the zeros explain half of that difference or more{small}",
        "supported": "These runs support that the zeros are a cause",
        "undecided": f"These runs{few} are too small to tell whether the zeros are the cause",
    }[verdict(main.zeros, gap)]
    left = _own_rows(groups) or f"; attackers of pixels leave {_left(networks, 'max')} and {_left(networks, 'avg')}"
    return (
        f"{says}: with the forward pass held fixed, they change accuracy under the paper's PGD-7 by {points(main.zeros)} points, where the "
        f"paper's difference is {gap:+.1f} and max pooling's here {points(main.both)}{left}."
    )


def _sure(networks: Sequence[Trained]) -> str:
    found = {(each.mode, each.attack): each for each in effects(networks)}
    wanted = paper()
    missing = f"snn-sparsity sweep --grid causal trains the networks ({wanted['epochs']} epochs of them need a GPU)"
    if not networks:
        return f"Nothing is sure: {missing}."
    first = networks[0]
    epochs, images = _range(each.epochs for each in networks), _range(each.train_images for each in networks)
    if not found:
        return (
            f"Little is sure: {len(networks)} networks trained for {epochs} epochs on {images} images (the paper: {wanted['epochs']} on "
            f"{wanted['images']['train']:,}), brackets are 95 % intervals over images, other networks may differ; {missing}."
        )
    main = found["spikes_batch", "pgd_7"]
    seeds, sets, n = len({each.seed for each in networks}), main.zeros.sets, main.zeros.images
    originals = "all in their original pixels" if first.original_images == n else f"{first.original_images} known as originals"
    over = "networks and images" if sets > 1 else "images"
    return (
        f"How sure: {len(networks)} networks ({first.network}, {seeds} seed{'s' * (seeds > 1)}, {sets} complete set{'s' * (sets > 1)} of "
        f"four) trained for {epochs} epochs on {images} images (the paper: {wanted['epochs']} on {wanted['images']['train']:,}), all "
        f"attacked on the same {n} test images ({originals}); brackets are 95 % intervals over {over}, an effect of "
        f"{100 * main.zeros.seen:.1f} points would have been seen in 80 % of such experiments, what is left under attack is an upper "
        f"bound, and a GPU would add the paper's {wanted['epochs']} epochs on all images (snn-sparsity sweep --grid causal)."
    )


def _attackers(networks: Sequence[Trained]) -> str:
    """Return what the zeros do to attackers of the networks that are there, as a clause; empty without any."""
    if not networks:
        return ""
    lead: dict[Mode, str] = {"spikes_batch": "under the paper's PGD-7", "spikes_eval": "under PGD-7 with BatchNorm in eval mode"}
    told = []
    for mode, words in lead.items():
        found = slopes(networks, mode, "pgd_7")
        told.append(f"{10 * found.value:+.1f} [{10 * found.low:+.1f}, {10 * found.high:+.1f}] {words}")
    gap = papers_row().gap("pgd")
    return (
        f"; what {len(networks)} networks tell of attackers alone: each 10 points of zeros in the attacker's gradient change accuracy by "
        f"{' and '.join(told)}, in points, on the same {len(networks[0].clean)} images (the paper's difference is {gap:+.1f})"
    )


def trained_longest(networks: Sequence[Trained], others: Sequence[Trained]) -> list[Trained]:
    """Return those of the others that saw most images in training, max pooling first; none if they saw no more than the networks."""
    longest = max((each.seen for each in others), default=0)
    if not networks or longest <= max(each.seen for each in networks):
        return []
    return sorted((each for each in others if each.seen == longest), key=lambda each: each.pooling, reverse=True)


def _longer_trained(chosen: Sequence[Trained]) -> str:
    """Return what the networks trained longest tell under the paper's PGD-7, as a sentence; empty if there are none."""
    if not chosen:
        return ""
    trained = f"trained longest ({chosen[0].epochs} epochs on {chosen[0].train_images:,} images)"
    found = {(each.mode, each.attack): each for each in effects(chosen)}
    if not found:
        return _longer_attacked(chosen, trained)
    main = found["spikes_batch", "pgd_7"]
    sets, weaker = main.both.sets, ", which is a weaker attack and no robustness," if main.attacker.low > 0 else ""
    over = "images; other networks may differ by more" if sets == 1 else "images, and networks"
    return (
        f" In the {'set' if sets == 1 else f'{sets} sets'} of four {trained} max pooling is ahead by {points(main.both)} points under that "
        f"attack: zeros in training do {points(main.training)} of it, zeros in the attacker's gradient {points(main.attacker)}{weaker} and "
        f"the forward pass {points(main.forward)} ({main.both.images} {over})."
    )


def _longer_attacked(chosen: Sequence[Trained], trained: str) -> str:
    """Return what zeros in the attacker's gradient do to each of these networks."""
    found = [difference(*(each.right("spikes_batch", "pgd_7", attacker) for attacker in PURE)) for each in chosen]
    told = [
        f"{signed(100 * each.value)} [{signed(100 * each.low)}, {signed(100 * each.high)}] points with "
        f"{'max' if network.pooling == 'max' else 'average'} pooling"
        for network, each in zip(chosen, found, strict=True)
    ]
    weaker, several = all(each.low > 0 for each in found), "s" * (len(chosen) > 1)
    does = "weaken that attack, which is no robustness: by" if weaker else "change accuracy under that attack by"
    return (
        f" {'But in' if weaker else 'In'} the {len(chosen)} network{several} {trained} zeros in the attacker's gradient alone {does} "
        f"{' and '.join(told)} ({found[0].images} images)."
    )


def _left(networks: Sequence[Trained], pooling: str) -> str:
    """Return what attackers of pixels leave of the networks as the paper has them, trained with their pooling's own gradient."""
    trained = SPARSE if pooling == "max" else DENSE
    own = [each for each in networks if (each.pooling, each.training) == (pooling, trained)]
    worst, clean = (
        fmean(fmean(outcome) for outcome in found) for found in ((each.worst("pixels") for each in own), (each.clean for each in own))
    )
    return f"{100 * worst:.1f} % of images with {'max' if pooling == 'max' else 'average'} pooling ({100 * clean:.1f} % clean)"


def _own_rows(groups: Sequence[SeedGroup]) -> str:
    """Return what the paper's two networks came to here, trained longest, as a clause; empty where one was not trained."""
    longest: dict[str, tuple[SeedGroup, AttackSettings]] = {}
    for group in sorted(groups, key=lambda each: each.trained):
        pgd = next((attack for attack in group.attacks if attack.column == "pgd"), None)
        if group.first.setting[:3] == (DATASET, NETWORK, DEPTH) and pgd is not None and group.accuracy(pgd) is not None:
            longest[group.first.setting[3]] = group, pgd
    if longest.keys() != {"max", "avg"}:
        return ""
    pair = [longest[pool] for pool in ("max", "avg")]
    maximum, average = (group.cell(pgd) for group, pgd in pair)
    worst = [[Proportion(**found["accuracy"]["worst"]) for each in group.results if (found := audited(each))] for group, _ in pair]
    audits = ""
    if all(worst):
        # Each seed has an audit of its own: a network is robust or not, a mean of networks is neither.
        left = " and ".join(", ".join(each.percent for each in seeds) for seeds in worst)
        audits = f", and {left} % once pixels are attacked by an audit ({_range(each.samples for seeds in worst for each in seeds)} images)"
    epochs, images = _range(group.first.epochs for group, _ in pair), _range(group.first.images("train") or 0 for group, _ in pair)
    judged = _range(each.attacked_images or 0 for group, _ in pair for each in group.sound)
    return (
        f"; the paper's two {network_name(NETWORK, DEPTH)} (Tables 2 and 3: max and average pooling), trained here for {epochs} epochs on "
        f"{images} images, keep {maximum} and {average} % under PGD-7 ({judged} images){audits}"
    )


def _range(values: Iterable[int]) -> str:
    every = sorted(set(values))
    return f"{every[0]:,}" if len(every) == 1 else f"{every[0]:,} to {every[-1]:,}"

"""``p3d models``."""

from collections.abc import Sequence


def run(args: Sequence[str]) -> int:
    """Parse and run."""
    from pseudo3d.cli import parse

    return parse(models, "models", args)


def models(num_classes: int | None = None) -> int:
    """List the networks: parameters, size in float32, arithmetic for one clip, and sizes that were published.

    A multiply-add counts as 2 operations. MB are 10^6 bytes, MiB 2^20; parameters are counted, running statistics not.

    Example: p3d models --num-classes 101

    Args:
        num_classes: outputs of the head; the published count (487 or 1000) unless given.
    """
    from pseudo3d.commands.output import print_table
    from pseudo3d.models import list_models
    from pseudo3d.models.cost import PUBLISHED_SIZES, model_cost

    rows = []
    for name in list_models():
        cost = model_cost(name, num_classes=num_classes)
        rows.append(
            (
                name,
                f"{cost.parameters:,}",
                f"{cost.megabytes:.1f}",
                f"{cost.mebibytes:.1f}",
                f"{cost.flops / 1e9:.1f}",
                "x".join(map(str, cost.clip)),
            )
        )
    print_table(("model", "parameters", "MB", "MiB", "GFLOP/clip", "clip (T x H x W)"), rows)
    print("\nbeside the published sizes, with the classes they were published for")
    sizes = []
    for name, published in PUBLISHED_SIZES.items():
        cost = model_cost(name, num_classes=published.num_classes)
        counted = (f"{published.num_classes}", f"{cost.megabytes:.1f}", f"{cost.mebibytes:.1f}")
        sizes.append((name, *counted, f"{published.megabytes}", cost.compared(published), published.source))
    print_table(("model", "classes", "MB", "MiB", "published", "", "source"), sizes)
    return 0

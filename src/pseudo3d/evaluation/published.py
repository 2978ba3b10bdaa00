"""The numbers of the P3D paper's tables and of the C3D talk, as they are printed: one data file, ``published.csv``.

Its columns: table, section, group, method, metric, value, unit, source. A value is the printed text, with its digits;
"-" stands where the table has a dash. A method that comes twice (C3D in Table 2) is two rows: a metric that comes again
begins the next one. The table "text" holds what only the running text says; its group is the table that it belongs to.
"""

import csv
import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

SOURCES = {
    "P3D paper": "Qiu, Yao, Mei: Learning Spatio-Temporal Representation with Pseudo-3D Residual Networks, ICCV 2017",
    "C3D talk": "slides on Tran et al.: Learning Spatiotemporal Features with 3D Convolutional Networks, ICCV 2015",
}

# The works behind the numbers in brackets, from the paper's list; the talk has no such list.
REFERENCES = {
    3: "Derpanis et al., CVPR 2012",
    4: "Feichtenhofer, Pinz, Wildes, NIPS 2016",
    5: "Feichtenhofer, Pinz, Wildes, CVPR 2014",
    6: "Feichtenhofer, Pinz, Zisserman, CVPR 2016",
    7: "He et al., CVPR 2016",
    10: "Karpathy et al., CVPR 2014",
    12: "Kliper-Gross et al., ECCV 2012",
    13: "Kliper-Gross, Hassner, Wolf, PAMI 2012",
    19: "Peng et al., Signal Processing Letters 2014",
    22: "Qiu, Yao, Mei, CVPR 2017",
    25: "Simonyan, Zisserman, NIPS 2014",
    26: "Simonyan, Zisserman, ICLR 2015",
    29: "Sun et al., ICCV 2015",
    31: "Tran et al., ICCV 2015",
    33: "Varol, Laptev, Schmid, arXiv 1604.04494",
    34: "Wang, Schmid, ICCV 2013",
    35: "Wang, Qiao, Tang, CVPR 2015",
    36: "Wang et al., ECCV 2016",
    37: "Yue-Hei Ng et al., CVPR 2015",
    39: "Zhu et al., CVPR 2016",
}


@dataclass(frozen=True)
class Published:
    """One printed number (or word).

    Args:
        value: as printed, without its unit.
        unit: "%", "MB", "frame/s", "clip/s", "frames", "hours", or "".
    """

    value: str
    unit: str = ""

    @property
    def number(self) -> float:
        """The value as a number, in its unit.

        Raises:
            ValueError: it is a word or a dash.
        """
        return float(self.value)


@dataclass(frozen=True)
class PublishedRow:
    """One row of a published table.

    Args:
        table: "table1" to "table6", "table_c3d_ucf101", "table_c3d_runtime", or "text" for the running text.
        section: of the paper, or the slide's title.
        group: the heading that it stands under, "" without one; of "text", the table that it belongs to.
        method: as printed, references in brackets.
        source: a key of ``SOURCES``.
        values: by metric, in the order of the columns.
    """

    table: str
    section: str
    group: str
    method: str
    source: str
    values: Mapping[str, Published] = field(default_factory=dict)


@cache
def read_published() -> tuple[PublishedRow, ...]:
    """Every row of every table, in print order.

    Example:
        >>> row = read_published()[4]
        >>> row.table, row.method, row.values["accuracy"].value, row.source
        ('table1', 'P3D ResNet', '84.2', 'P3D paper')
    """
    rows: list[PublishedRow] = []
    last: tuple[str, ...] = ()
    values: dict[str, Published] = {}
    with (importlib.resources.files("pseudo3d.evaluation") / "published.csv").open(encoding="utf-8") as lines:
        for line in csv.DictReader(lines):
            key = (line["table"], line["section"], line["group"], line["method"], line["source"])
            if key != last or line["metric"] in values:
                last, values = key, {}
                rows.append(PublishedRow(*key, values))
            values[line["metric"]] = Published(line["value"], line["unit"])
    return tuple(rows)


def published_rows(table: str) -> tuple[PublishedRow, ...]:
    """The rows of one table, in print order; none for a table that is not published.

    Example:
        >>> [row.values["video hit@1"].number for row in published_rows("table2") if row.method.startswith("C3D")]
        [60.0, 61.1]
    """
    return tuple(row for row in read_published() if row.table == table)

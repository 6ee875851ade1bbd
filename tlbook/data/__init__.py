"""Examples, their labels, and which of them belong together."""

from tlbook.data.dataset import Dataset, from_dataset, near_duplicates
from tlbook.data.folders import FEWEST, folder, image_folder
from tlbook.data.published import SOLAR_PANELS, news, solar_cells, spoken_digits
from tlbook.splits import Split

__all__ = [
    "FEWEST",
    "SOLAR_PANELS",
    "Dataset",
    "Split",
    "folder",
    "from_dataset",
    "image_folder",
    "near_duplicates",
    "news",
    "solar_cells",
    "spoken_digits",
]

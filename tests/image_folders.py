"""Folders of images, as users have them."""

import datasets
import numpy as np
from PIL import Image

STYLES = ("plain", "inverted", "framed")


def a_folder_of_colours(folder, *, splits=("train", "test"), grey=False, size=20):
    """Write uniform images of three colours, one class per colour."""
    folder.mkdir(exist_ok=True)
    colours = [(9, 9, 9), (99, 99, 99), (200, 200, 200)] if grey else [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    features = datasets.Features(
        {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["red", "green", "blue"])}
    )
    rows = {"kind": [i % 3 for i in range(60)]}
    rows["picture"] = [Image.new("RGB", (size, size), colours[kind]) for kind in rows["kind"]]
    for split in splits:
        table = datasets.Dataset.from_dict(rows, features=features)
        table.to_parquet(str(folder / f"{split}.parquet"))
    return folder


def a_folder_of_styles(folder, *, names=("n01", "n02"), broken=False):
    """Write images of two classes in three styles, in columns without types; one file can be broken."""
    rows = {"photo": [], "what": [], "style": []}
    for i in range(60):
        image = np.zeros((8, 8, 3), dtype=np.uint8)
        image[:, (i % 2) * 4 : (i % 2) * 4 + 4] = 200
        style = STYLES[i % 3]
        if style == "inverted":
            image = 255 - image
        if style == "framed":
            image[0] = image[-1] = (255, 0, 0)
        rows["photo"].append(Image.fromarray(image))
        rows["what"].append(names[i % 2])
        rows["style"].append(style)
    features = datasets.Features(
        {"photo": datasets.Image(), "what": datasets.Value("string"), "style": datasets.Value("string")}
    )
    for split in ("train", "test"):
        table = datasets.Dataset.from_dict(rows, features=features)
        if broken:
            table = table.cast_column("photo", datasets.Image(decode=False)).to_list()
            table[7]["photo"] = {"bytes": b"no picture", "path": "seven.png"}
            table = datasets.Dataset.from_list(table).cast(features)
        table.to_parquet(str(folder / f"{split}.parquet"))
    return folder

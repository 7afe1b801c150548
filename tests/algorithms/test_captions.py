import torch

from fgl_app.algorithms.captions import caption_images, choose_examples


def test_an_image_is_captioned_once_and_every_batch_is_cached():
    images = torch.randint(0, 256, (3, 3, 16, 16), generator=torch.Generator().manual_seed(0)).byte()
    seen, cached = [], []

    def captioner(batch):
        seen.append(len(batch))
        return [f"caption {int(image.sum())}" for image in batch]

    cache = {}
    again = torch.cat([images, images[:1]])
    captions = caption_images(
        again, captioner, cache, batch_size=2, callback=lambda n: cached.append(len(cache))
    )
    assert captions[3] == captions[0] == f"caption {int(images[0].sum())}"
    assert (seen, cached) == ([2, 1], [2, 3])
    assert caption_images(again, captioner, cache, batch_size=2) == captions
    assert seen == [2, 1]


def test_the_number_of_examples_per_class_is_limited():
    labels = torch.tensor([0] * 10 + [1] * 2)
    chosen = choose_examples(labels, 3, torch.Generator().manual_seed(0))
    assert labels[chosen].tolist() == [0, 0, 0, 1, 1]
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert choose_examples(labels, 0, torch.Generator()).tolist() == list(range(12))

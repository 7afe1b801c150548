"""A dataset of three styles: one client per style, prompts with the style, accuracy by style."""

import datasets
import pytest
import torch

from fgl_app.algorithms.embedding import encode_texts
from fgl_app.messages.embeddings import record_to_embeddings
from fgl_app.models.pipelines import Placement, load_text_encoder
from tests.app_runs import run
from tests.image_folders import STYLES, a_folder_of_styles


@pytest.fixture
def styles(tmp_path, monkeypatch):
    """Config of a dataset with one domain per client."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    words = '[labels]\nn01 = "left"\nn02 = "right"\n[domains]\nframed = "in a red frame"\n'
    (tmp_path / "words.toml").write_text(words + '[negatives]\ninverted = "dark"\n')
    return {
        "dataset": str(a_folder_of_styles(tmp_path / "set")),
        "label_column": "what",
        "domain_column": "style",
        "vocabulary": str(tmp_path / "words.toml"),
        "partitioning": "domain",
        "image_size": 16,
    }


def test_prompts_contain_the_domain_and_accuracy_is_reported_by_domain(styles, tiny_generator, tmp_path):
    uploads = []

    def spoil(message, reply):
        if message.metadata.message_type == "query.embed":
            uploads.append(record_to_embeddings(reply.content, num_classes=2, max_bytes=10**9))
        return reply

    summary = run(
        tmp_path,
        nodes=3,
        generator=str(tiny_generator),
        guidance_scale=2.0,
        embedding_dtype="float32",
        num_server_rounds=2,
        spoil=spoil,
        **styles,
    )
    assert summary["status"] == "completed"
    assert summary["num_prompts"] == 6
    by_domain = summary["accuracy_by_domain"]
    assert sorted(by_domain) == sorted(STYLES)
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Accuracy by domain" in report
    # There are 20 test images of each style.
    assert sum(by_domain.values()) / 3 == pytest.approx(summary["accuracy"])
    # Domains are numbered in the order of their names, so the second client holds "inverted".
    encoder = load_text_encoder(str(tiny_generator), Placement(torch.device("cpu")))
    texts = ["left, inverted, high resolution", "right, inverted, high resolution"]
    upload = uploads[0].tensors
    assert (upload["prompt_embeds"] == encode_texts(encoder, texts)["prompt_embeds"]).all()
    assert (upload["negative_prompt_embeds"] == encode_texts(encoder, ["dark"])["prompt_embeds"]).all()


def test_a_centralized_run_needs_no_split(styles, tmp_path):
    changes = styles | {"partitioning": "iid", "vocabulary": ""}
    summary = run(tmp_path, method="classifier", inner_strategy="centralized", num_server_rounds=2, **changes)
    assert set(summary["accuracy_by_domain"]) == set(STYLES)


def test_an_unreadable_image_is_listed_in_the_summary(styles, tmp_path):
    a_folder_of_styles(tmp_path / "set", broken=True)
    summary = run(tmp_path, nodes=3, method="classifier", num_server_rounds=1, **styles)
    assert [text.split(":")[0] for text in summary["skipped_images"]] == [
        "train 7 seven.png",
        "test 7 seven.png",
    ]
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Skipped images" in report
    assert "cannot identify image file" in report

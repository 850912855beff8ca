"""A network of one's own joins a running server, and answers there as it does in its file."""

from pathlib import Path

import numpy as np
import pytest
import torch

from clipserve import UnexpectedAnswer, VideoClassifier
from clipserve.errors import RequestError
from clipserve_export.own.contract_file import read_contract_file
from clipserve_export.own.source import own_spec
from clipserve_export.repository import read_config
from clipserve_export.versions import reload_model
from tests.export.small_network import publish_network
from tests.motion_repository import ANY_PORTS, KilledTriton


@pytest.mark.long
def test_it_is_reloaded_into_a_running_server_with_the_clips_that_it_takes(
    motion_repository: Path, tmp_path: Path, real_videos: list[Path]
) -> None:
    repository = motion_repository
    with KilledTriton(repository, models=["motion"], **ANY_PORTS) as triton:
        before = VideoClassifier("motion", triton.grpc_url).classify(real_videos[0])
        for name, function in (("mine", "build"), ("plain", "without_embedding")):
            publish_network(repository, tmp_path, name, function)
            contract, _ = read_contract_file(tmp_path / "nets.toml")
            reload_model(own_spec(name, contract), triton.grpc_url)
        with VideoClassifier("mine", triton.grpc_url) as mine:
            answer = mine.classify(real_videos[0], features=True, sampling="clip", views=2)
            told = mine.contract()
        assert answer.features is not None
        assert answer.features.shape == (12,)
        assert (told.frames, told.classes, told.feature_size, told.weights_licence) == (4, 3, 12, "MIT")
        assert told.mean == (0.4, 0.5, 0.6)
        assert {scored.label for scored in answer.labels} == {"one", "two", "three"}
        with VideoClassifier("mine", triton.grpc_url) as mine:
            single = mine.classify(real_videos[0], features=True)
        assert single.features is not None
        torch.manual_seed(0)  # as the user's code makes the head
        with torch.no_grad():
            expected = torch.nn.Linear(12, 3)(torch.from_numpy(single.features)).softmax(-1).numpy()
        found = {scored.index: scored.score for scored in single.labels}
        np.testing.assert_allclose([found[number] for number in range(3)], expected, atol=1e-5)
        with VideoClassifier("plain", triton.grpc_url) as plain:
            assert len(plain.classify(real_videos[0]).labels) == 3
            assert plain.contract().feature_size is None
            with pytest.raises((RequestError, UnexpectedAnswer), match="FEATURES"):
                plain.classify(real_videos[0], features=True)
        after = VideoClassifier("motion", triton.grpc_url).classify(real_videos[0])
    assert after.labels == before.labels
    assert "CLIP_4X8_40_32" in [output.name for output in read_config(repository, "decode").output]

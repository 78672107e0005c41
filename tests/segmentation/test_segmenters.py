"""The other segmenters, with stand-ins for their weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xrecon_bundle.files import InputError
from xrecon_bundle.metrics import dice_score
from xrecon_bundle.segmentation import PTXSeg
from xrecon_bundle.segmentation.lungmask import LungmaskSegmenter
from xrecon_bundle.segmentation.sam import SamSegmenter


class _Truth:
    """A lungmask that knows the answer, in lungmask's own axes: slices from the feet up, rows to the back."""

    def __init__(self, chest) -> None:
        self.chest = chest

    def apply(self, image: np.ndarray) -> np.ndarray:
        np.testing.assert_array_equal(image, self.chest.hu.transpose(2, 1, 0)[::-1])
        cavities = np.where(self.chest.labels > 2, self.chest.labels - 2, self.chest.labels)
        return cavities.transpose(2, 1, 0)[::-1]


def test_lungmask_gives_the_cavities_and_free_air_is_found_in_them(collapsed):
    labels = PTXSeg(LungmaskSegmenter(inferer=_Truth(collapsed)))(collapsed.hu, collapsed.spacing)
    np.testing.assert_array_equal(np.isin(labels, (1, 3)), collapsed.labels == 1)
    assert dice_score(labels == 4, collapsed.labels == 4) > 0.9


@pytest.mark.parametrize("segmenter", ["lungmask", "sam"])
@pytest.mark.parametrize(("weights", "found"), [(None, "none given"), ("gone", "no .* gone")])
def test_weights_that_are_missing_are_asked_for(segmenter, weights, found):
    with pytest.raises(InputError, match=f"^(SAM|lungmask) weights: {found}; give .*--weights"):
        PTXSeg(segmenter, weights)


@pytest.fixture
def tiny_sam():
    transformers = pytest.importorskip("transformers", reason="extra `sam` is not installed")
    torch.manual_seed(0)
    vision = {
        "hidden_size": 16, "output_channels": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64,
        "patch_size": 8, "window_size": 4, "global_attn_indexes": [1], "num_pos_feats": 8, "mlp_dim": 32,
    }  # fmt: skip
    prompt = {"hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 4}
    decoder = {"hidden_size": 16, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
    config = transformers.SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    return transformers.SamModel(config)


def test_a_sam_that_knows_nothing_changes_nothing(tiny_sam, tmp_path, collapsed):
    """An untrained model's answers do not agree with their prompts, so the classical result stays."""
    tiny_sam.save_pretrained(tmp_path)
    sam = PTXSeg("sam", tmp_path)
    np.testing.assert_array_equal(sam(collapsed.hu, collapsed.spacing), PTXSeg()(collapsed.hu, collapsed.spacing))


def test_sam_is_asked_in_its_own_pixels_and_its_answer_comes_back_to_ours():
    """A stand-in that fills the boxes it is asked about: a slice that is not square, boxes not at its centre."""

    class Boxes(torch.nn.Module):
        class config:
            class vision_config:
                image_size = 64

        def forward(self, pixel_values, input_boxes, input_points, input_labels, multimask_output):
            assert pixel_values.shape == (1, 3, 64, 64)
            assert input_labels.all()
            rows, columns = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
            x0, y0, x1, y1 = (input_boxes[0, :, k, None, None] for k in range(4))
            inside = (columns > x0) & (columns < x1) & (rows > y0) & (rows < y1)
            x, y = input_points[0, :, 0].T[..., None, None]
            assert ((x > x0) & (x < x1) & (y > y0) & (y < y1)).all()
            self.pred_masks = torch.where(inside, 5.0, -5.0)[None, :, None]
            return self

    labels = np.zeros((128, 96), np.uint8)
    labels[10:50, 20:80], labels[70:120, 8:40] = 1, 2
    nibbled = labels.copy()
    nibbled[10:14, 20:30] = 0
    refined = SamSegmenter(Boxes()).refine_slice(np.zeros((128, 96), np.float32), nibbled, 1.0)
    assert dice_score(refined == 1, labels == 1) > 0.97
    assert dice_score(refined == 2, labels == 2) > 0.97
    assert refined[12, 25] == 1, "what the classical result missed is filled in"

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from xrecon_bundle import frame
from xrecon_bundle.anatomy.thorax import synthesize_thorax
from xrecon_bundle.datasets.blocks import StoreBlocks, StoreCases
from xrecon_bundle.datasets.training_store import COARSE, PIXELS, SIZE, draw_case, list_store, write_store
from xrecon_bundle.files import InputError, file_sha256
from xrecon_bundle.projection import ConeBeamGeometry, Projector


def add_case(store: Path, name: str) -> None:
    """A case whose HU say where a voxel is, and whose lungs fill one corner region."""
    folder = store / "cases" / name
    folder.mkdir(parents=True)
    x, y, z = np.ogrid[:SIZE, :SIZE, :SIZE]
    labels = np.zeros((SIZE,) * 3, dtype=np.uint8)
    labels[100:160, 40:100, 60:180] = 2
    arrays = {
        "ct": (4 * x + 2 * y + z - 1000).astype(np.int16),
        "labels": labels,
        "coarse": np.full((COARSE,) * 3, 0.25, dtype=np.float16),
        "coarse_labels": labels[::7, ::7, ::7].repeat(2, 0).repeat(2, 1).repeat(2, 2),
        "radiographs": np.broadcast_to(np.arange(SIZE, dtype=np.float32), (2, SIZE, SIZE)),
        "materials": np.ones((2, 2, PIXELS, PIXELS), dtype=np.float32) * np.linspace(50, 200, PIXELS, dtype=np.float32),
    }
    for part, array in arrays.items():
        np.save(folder / f"{part}.npy", array)
    (folder / "case.json").write_text("{}")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    add_case(folder, "ann-00000")
    return folder


def test_a_block_is_that_part_of_the_ct(store):
    blocks = StoreBlocks(store, film_share=0, edge=32).set_random_state(1)
    for index in range(20):
        item = blocks[index]
        start = item["start"].tolist()
        assert all(first % 4 == 0 and 0 <= first <= SIZE - 32 for first in start)
        x, y, z = np.ogrid[tuple(slice(first, first + 32) for first in start)]
        expected = frame.hu_to_unit(torch.from_numpy((4 * x + 2 * y + z - 1000).astype(np.float32)))
        torch.testing.assert_close(item["label"][0], expected)
        inside = (x >= 100) & (x < 160) & (y >= 40) & (y < 100) & (z >= 60) & (z < 180)
        np.testing.assert_array_equal(item["segmentation"].numpy(), 2 * inside)


def test_most_blocks_show_the_lungs(store):
    blocks = StoreBlocks(store, film_share=0, edge=32).set_random_state(2)
    assert sum(bool((blocks[index]["segmentation"] > 0).any()) for index in range(60)) > 35


def test_without_films_the_radiographs_are_those_of_the_store(store):
    image = StoreBlocks(store, film_share=0).set_random_state(3)[0]["image"]
    expected = frame.radiograph_to_unit(np.load(store / "cases" / "ann-00000" / "radiographs.npy"))
    np.testing.assert_allclose(image, expected)


def test_films_are_in_the_unit_scale_or_unknown(store):
    blocks = StoreBlocks(store, film_share=1).set_random_state(4)
    images = torch.stack([blocks[index]["image"] for index in range(6)])
    assert images.shape == (6, 2, SIZE, SIZE)
    assert (((images >= 0) & (images <= 1)) | (images == -1)).all()
    assert (images == -1).any()


def test_the_truth_of_a_film_goes_on_where_the_scan_ends(tmp_path):
    """A film is not cut off there; line integrals are."""
    add_case(tmp_path, "ann-00000")
    folder = tmp_path / "cases" / "ann-00000"
    scan = slice(12, 52)  # of 64 sections, 42 to 182 of 224
    coarse = np.zeros((COARSE,) * 3, dtype=np.float16)
    coarse[16:50, 20:40, scan] = 0.42
    ct = np.full((SIZE,) * 3, -1024, dtype=np.int16)
    ct[56:175, 70:140, 42:182] = 26
    np.save(folder / "coarse.npy", coarse)
    np.save(folder / "ct.npy", ct)
    films, integrals = (StoreBlocks(tmp_path, film_share=share, edge=32).set_random_state(8) for share in (1, 0))
    for index in range(6):
        film, integral = films[index], integrals[index]
        np.testing.assert_array_equal(integral["coarse"][0], coarse.astype(np.float32))
        assert (film["coarse"][0, 30, 30] > 0.3).all()
        assert film["coarse"][0, 3].max() == 0  # not to the side
        assert film["start"][2] >= 42
        assert film["start"][2] + 32 <= 182
    label = StoreCases(tmp_path, ["ann"])[0]["label"]
    assert label[0, 100, 100].min() == 0


def test_some_blocks_in_a_row_are_of_one_picture(store):
    """Also where a new epoch begins amid them, and where the indices come in any order."""
    blocks = StoreBlocks(store, film_share=1, edge=32, blocks_per_picture=3).set_random_state(9)
    first = [blocks[index] for index in (5, 0, 7, 2, 1)]
    assert len({item["image"].numpy().tobytes() for item in first[:3]}) == 1
    assert len({item["image"].numpy().tobytes() for item in first[3:]}) == 1
    assert not torch.equal(first[0]["image"], first[3]["image"])
    assert len({tuple(item["start"].tolist()) for item in first}) > 3
    again = blocks.set_random_state(9)
    assert torch.equal(again[0]["image"], first[0]["image"])
    assert not torch.equal(first[4]["image"], first[0]["image"])


def test_a_mirrored_chest_is_mirrored_in_all_it_has(tmp_path):
    """Not its lateral, which shows both sides over each other."""
    add_case(tmp_path, "ann-00000")
    folder = tmp_path / "cases" / "ann-00000"
    radiographs = np.random.default_rng(0).random((2, SIZE, SIZE)).astype(np.float32)
    np.save(folder / "radiographs.npy", radiographs)
    coarse = np.random.default_rng(1).random((COARSE,) * 3).astype(np.float16)
    np.save(folder / "coarse.npy", coarse)
    labels = np.load(folder / "labels.npy")
    labels[110:120, 50:60, 100:110] = 4
    np.save(folder / "labels.npy", labels)
    coarse_labels = np.load(folder / "coarse_labels.npy")
    coarse_labels[2, 2] = [1, 2, 3, 4] * 16
    np.save(folder / "coarse_labels.npy", coarse_labels)

    blocks = StoreBlocks(tmp_path, film_share=0, edge=32, mirror_share=1).set_random_state(1)
    other = np.array([0, 2, 1, 4, 3])
    expected = frame.radiograph_to_unit(np.stack([radiographs[0, ::-1], radiographs[1]]))
    starts = []
    for index in range(20):
        item = blocks[index]
        np.testing.assert_allclose(item["image"], expected, rtol=1e-6)
        np.testing.assert_array_equal(item["coarse"][0], coarse[::-1].astype(np.float32))
        np.testing.assert_array_equal(item["coarse_segmentation"], other[coarse_labels[::-1]])
        block = tuple(slice(first, first + 32) for first in item["start"].tolist())
        ct = np.load(folder / "ct.npy")[::-1][block].astype(np.float32)
        torch.testing.assert_close(item["label"][0], frame.hu_to_unit(torch.from_numpy(ct)))
        np.testing.assert_array_equal(item["segmentation"], other[labels[::-1][block]])
        starts.append(item["start"][0].item())
    assert len(set(starts)) > 3


def test_some_chests_are_mirrored(store):
    blocks = StoreBlocks(store, film_share=0, edge=0, mirror_share=0.5).set_random_state(1)
    sides = [(blocks[index]["coarse_segmentation"] == 1).any().item() for index in range(40)]
    assert 10 < sum(sides) < 30


@pytest.fixture(scope="module")
def thorax(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of one synthetic chest, made of a CT of 64 voxels an edge."""
    folder = tmp_path_factory.mktemp("thorax")
    write_store(folder, {}, 1, synthetic_every=1, spatial_size=64)
    return folder


@pytest.mark.parametrize("mirror_share", [0, 1])
def test_a_bent_chest_has_the_radiographs_of_the_bent_ct(thorax, mirror_share):
    """Every time other ones, and both views."""
    options = {"film_share": 0, "edge": 0, "mirror_share": mirror_share}
    bent = StoreBlocks(thorax, **options, bent_mm=25).set_random_state(1)
    straight = StoreBlocks(thorax, **options).set_random_state(1)[0]
    for index in range(3):
        item = bent[index]
        for view, geometry in enumerate((ConeBeamGeometry.chest_pa, ConeBeamGeometry.chest_lateral)):
            projector = Projector(geometry(SIZE))
            own, other = (
                float(np.corrcoef(item["image"][view].flatten(), projector(it["coarse"][None]).flatten())[0, 1])
                for it in (item, straight)
            )
            assert own > 0.98
            assert own > other + 0.003
        lung = item["coarse"][0][item["coarse_segmentation"] > 0]
        assert frame.unit_to_hu(lung.mean()) < -500
        assert not torch.equal(item["image"], bent[index]["image"])


def test_films_of_a_bent_chest(thorax):
    item = StoreBlocks(thorax, film_share=1, edge=0, bent_mm=11).set_random_state(2)[0]
    assert (((item["image"] >= 0) & (item["image"] <= 1)) | (item["image"] == -1)).all()
    assert (item["coarse"][0, 30, 30] > 0.2).sum() > 20


@pytest.mark.parametrize("view", [0, 1])
def test_a_mirrored_chest_gives_the_mirrored_pa_and_nearly_the_same_lateral(view):
    chest = frame.hu_to_unit(torch.from_numpy(synthesize_thorax(3, 64).ct.astype(np.float32)))[None, None]
    geometry = (ConeBeamGeometry.chest_pa, ConeBeamGeometry.chest_lateral)[view](64)
    image, mirrored = (Projector(geometry)(volume)[0, 0, 0] for volume in (chest, chest.flip(2)))
    expected, other = (image.flip(0), image) if view == 0 else (image, image.flip(0))
    assert (mirrored - expected).abs().mean() < (1e-4 if view == 0 else 0.08) * image.mean()
    assert (mirrored - other).abs().mean() > 0.08 * image.mean()


def test_the_same_seed_gives_the_same_items(store):
    first, again = (StoreBlocks(store, film_share=0.5).set_random_state(5) for _ in range(2))
    for index in range(4):
        one, two = first[index], again[index]
        assert one.pop("case") == two.pop("case")
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_store_may_grow_between_epochs_and_people_are_held_out(tmp_path):
    with pytest.raises(InputError, match="no finished case"):
        StoreBlocks(tmp_path)
    add_case(tmp_path, "ann-00000")
    blocks = StoreBlocks(tmp_path, without=["bob"])
    add_case(tmp_path, "cleo-00001")
    add_case(tmp_path, "bob-00002")
    assert [case.name for case in blocks.cases] == ["ann-00000"]
    blocks.set_random_state(0)
    assert [case.name for case in blocks.cases] == ["ann-00000", "cleo-00001"]
    assert [StoreCases(tmp_path, ["bob"])[0]["case"]] == ["bob-00002"]


def test_without_a_block_a_case_needs_no_fine_ct(tmp_path):
    add_case(tmp_path, "ann-00000")
    for name in ("ct", "labels"):
        (tmp_path / "cases" / "ann-00000" / f"{name}.npy").unlink()
    item = StoreBlocks(tmp_path, edge=0).set_random_state(6)[0]
    assert set(item) == {"case", "image", "coarse", "coarse_segmentation"}
    assert item["case"] == "ann-00000"
    assert item["image"].shape == (2, SIZE, SIZE)
    assert StoreCases(tmp_path, ["ann"], coarse=True)[0]["label"].shape == (1, COARSE, COARSE, COARSE)


def test_cases_to_validate_with_are_the_same_whenever_they_are_asked_for(tmp_path):
    for number in range(2):
        add_case(tmp_path, f"ann-{number:05d}")
    cases, again = (StoreCases(tmp_path, ["ann"], coarse=True) for _ in range(2))
    images = [cases[index]["image"] for index in (1, 0)]
    assert torch.equal(images[0], again[1]["image"])
    assert torch.equal(images[1], again[0]["image"])
    assert not torch.equal(*images)  # every second one is a film


def test_who_is_shaped_as_one_held_out_is_held_out_too(tmp_path):
    names = ["ann-00000", "ann+bob-00001", "bob+ann-00002", "cid+ann-00003", "bob-00004"]
    for name in names:
        add_case(tmp_path, name)
    found = {
        "of ann": [path.name for path in list_store(tmp_path, people=["ann"])],
        "without bob": [path.name for path in list_store(tmp_path, without=["bob"])],
        "of both": [path.name for path in list_store(tmp_path, people=["ann", "bob"])],
    }
    assert found == {
        "of ann": ["ann-00000"],
        "without bob": ["ann-00000", "cid+ann-00003"],
        "of both": ["ann-00000", "ann+bob-00001", "bob+ann-00002", "bob-00004"],
    }


def keep_person(store: Path, name: str, seed: int) -> Path:
    """A CT file, of which only the bytes matter, and what the store keeps of it."""
    file = store / f"{name}.nii.gz"
    file.write_bytes(f"{name} {seed}".encode())
    case = synthesize_thorax(seed, 32)
    ct, labels = (part.repeat(7, 0).repeat(7, 1).repeat(7, 2) for part in (case.ct, case.segmentation))
    (store / "people").mkdir(exist_ok=True)
    np.savez(store / "people" / f"{name}-{file_sha256(file)[:8]}.npz", ct=ct, labels=labels)
    return file


def test_another_ct_under_the_same_name_is_another_person(tmp_path):
    options = {"synthetic_every": 0, "spatial_size": 32}
    people = {"ann": keep_person(tmp_path, "ann", 0)}
    (name,) = write_store(tmp_path, people, 1, **options)
    case = tmp_path / "cases" / name
    before = np.load(case / "ct.npy")
    assert case.stat().st_mode == case.parent.stat().st_mode
    write_store(tmp_path, {"ann": keep_person(tmp_path, "ann", 5)}, 1, **options)
    assert not np.array_equal(np.load(case / "ct.npy"), before)


def test_who_is_not_to_be_learnt_from_any_more_is_named(tmp_path):
    options = {"synthetic_every": 0, "spatial_size": 32}
    people = {name: keep_person(tmp_path, name, seed) for seed, name in enumerate(("ann", "bob"))}
    write_store(tmp_path, people, 2, **options)
    with pytest.raises(InputError, match=r"1 cases of people.*bob-00001.*another --folder"):
        write_store(tmp_path, {"ann": people["ann"]}, 2, **options)
    assert (tmp_path / "cases" / "bob-00001").is_dir()


def test_what_a_killed_run_left_is_removed(tmp_path):
    (tmp_path / ".making-synthetic-00000").mkdir(parents=True)
    write_store(tmp_path, {}, 1, synthetic_every=1, spatial_size=32)
    assert not list(tmp_path.glob(".making-*"))


def test_a_store_of_people_between_people(tmp_path):
    """Two people at 224, kept as :func:`standard_person` keeps them; at 32 it takes seconds."""
    people = {name: keep_person(tmp_path, name, seed) for seed, name in enumerate(("ann", "bob"))}
    names = write_store(tmp_path, people, 2, synthetic_every=2, spatial_size=32, spread=1.5, between=1.0)
    assert names == ["ann+bob-00000", "synthetic-00001"]
    assert [path.name for path in list_store(tmp_path)] == names
    key = draw_case(names[0][:-6], 0, 1.5)
    assert (key["person"], key["towards"]) == ("ann", "bob")
    assert 0.2 <= key["share"] <= 0.8
    assert 1 <= key["spread"] <= 1.5
    between = np.load(tmp_path / "cases" / names[0] / "coarse_labels.npy")
    ann = synthesize_thorax(0, 32).segmentation.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    assert (between != ann).mean() > 0.01
    assert {1, 2} <= {*between.flat}


def test_one_person_alone_is_between_nobody(tmp_path):
    with pytest.raises(InputError, match="two people"):
        write_store(tmp_path / "store", {"ann": Path("ann.nii.gz")}, 2, between=0.5)
    assert not (tmp_path / "store").exists()


def test_a_case_without_the_arrays_of_today_is_made_anew(tmp_path):
    """A store made before bones were kept has none; a finished case of today is left alone."""
    options = {"people": {}, "cases": 1, "synthetic_every": 1, "spatial_size": 32}
    (name,) = write_store(tmp_path, **options)
    bones, record = (tmp_path / "cases" / name / file for file in ("dense.npy", "case.json"))
    made = bones.stat().st_mtime_ns
    write_store(tmp_path, **options)
    assert bones.stat().st_mtime_ns == made
    bones.unlink()
    content = json.loads(record.read_text())
    del content["arrays"], content["files"]["dense.npy"]
    record.write_text(json.dumps(content))
    write_store(tmp_path, **options)
    assert np.load(bones).shape == (5, 112, 112)

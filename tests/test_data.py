import functools
import hashlib
import http.server
import pickle
import tarfile
import threading

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from snn_sparsity.cache import cache_directory
from snn_sparsity.data import CIFARDataModule, DigitsDataModule, ImageFolderDataModule
from snn_sparsity.data import cifar as cifar_module
from snn_sparsity.data.base import shifted
from snn_sparsity.data.images import ImageSet, Splits, cached
from snn_sparsity.data.loader import EpochLoader
from snn_sparsity.encoders import RateEncoder
from snn_sparsity.validation import InputError
from tests.tiny import TinyDataModule, colourful

DATA = colourful(10, 4, seed=1)


def order(loader):
    return torch.cat([batch.images.flatten(1).sum(1) for batch in loader]).tolist()


def loader(epoch=0, **options):
    made = EpochLoader(DATA, **{"batch_size": 4, "seed": 0, "train": True} | options)
    made.sampler.set_epoch(epoch)
    return made


def test_order_and_flips_depend_on_seed_and_epoch_alone():
    torch.manual_seed(1)
    first = [batch.flip.tolist() for batch in loader(3)], order(loader(3))
    torch.manual_seed(2)
    assert first == ([batch.flip.tolist() for batch in loader(3)], order(loader(3)))
    assert order(loader(3)) != order(loader(4))
    assert order(loader(3)) != order(loader(3, seed=1))
    assert sorted(order(loader(3))) == sorted(order(loader(4)))


def test_evaluation_keeps_the_order_and_flips_nothing():
    batches = list(loader(train=False))
    assert torch.equal(torch.cat([batch.images for batch in batches]), DATA.images)
    assert [len(batch.labels) for batch in batches] == [4, 4, 2]
    assert not torch.cat([batch.flip for batch in batches]).any()


def test_resumes_inside_an_epoch():
    whole = list(loader(2))
    broken = loader(2)
    iterator = iter(broken)
    next(iterator)
    state = broken.state_dict()
    resumed = loader(2)
    resumed.load_state_dict(state)
    rest = list(resumed)
    assert len(rest) == 2
    for ours, theirs in zip(rest, whole[1:], strict=True):
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.flip, theirs.flip)
        assert ours.seed == theirs.seed


def test_an_epoch_that_was_done_is_not_resumed():
    done = loader(0)
    list(done)
    later = loader(1)
    later.load_state_dict(done.state_dict())
    assert len(list(later)) == 3


def test_breaking_off_is_not_resuming():
    # The sanity check takes two batches and stops: the validation after it must see all.
    validation = loader(train=False)
    next(iter(validation))
    assert len(list(validation)) == 3


@pytest.mark.parametrize("size", [3, 10, 12, 37, 10_000])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_evaluation_without_repeats(size, world):
    data = ImageSet(torch.arange(size).view(-1, 1, 1, 1).to(torch.uint8), torch.arange(size))
    loaders = [EpochLoader(data, 4, 0, train=False, rank=rank, world_size=world) for rank in range(world)]
    steps = [len(list(one)) for one in loaders]
    assert steps == [len(loaders[0])] * world, "a rank with fewer steps than another would be waited for in vain"
    seen = [batch.labels.tolist() for one in loaders for batch in one if len(batch.labels)]
    assert sorted(sum(seen, [])) == list(range(size))
    # Batches keep their composition, so that nothing computed on one depends on the number of ranks.
    assert sorted(seen) == sorted(part.tolist() for part in torch.arange(size).split(4))


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_global_batch_is_the_same_on_any_number_of_ranks(world):
    data = ImageSet(torch.zeros(16, 1, 1, 1, dtype=torch.uint8), torch.arange(16))
    ranks = [list(EpochLoader(data, 8 // world, 5, train=True, rank=rank, world_size=world)) for rank in range(world)]
    batches = [{label for rank in ranks for label in rank[number].labels.tolist()} for number in range(2)]
    alone = [set(batch.labels.tolist()) for batch in EpochLoader(data, 8, 5, train=True)]
    assert batches == alone


def test_flip_is_decided_image_by_image():
    data = TinyDataModule(batch_size=20)
    data.setup("fit")
    raw = next(iter(data.train_dataloader()))
    batch = data.on_after_batch_transfer(raw, 0)
    assert 0 < raw.flip.sum() < len(raw.flip)
    for image, before, flipped in zip(batch.images, raw.images, raw.flip, strict=True):
        assert torch.equal(image, before.flip(-1) if flipped else before)
    assert torch.equal(batch.spikes, data.spike_encoder(batch.images))


def test_flip_can_be_switched_off():
    data = TinyDataModule(flip=False)
    data.setup("fit")
    raw = next(iter(data.train_dataloader()))
    assert torch.equal(data.on_after_batch_transfer(raw, 0).images, raw.images)


def test_a_stochastic_code_depends_on_the_batch_s_place_alone():
    batches = []
    for _ in range(2):
        data = TinyDataModule(encoder=RateEncoder(4))
        data.setup("fit")
        batches.append([data.on_after_batch_transfer(raw, 0).spikes for raw in data.val_dataloader()])
        torch.manual_seed(len(batches))
    assert all(torch.equal(one, other) for one, other in zip(*batches, strict=True))


def test_held_out_images_leave_the_training_set():
    data = TinyDataModule(validation=0.25, train_images=40)
    data.setup("fit")
    train, held_out = data._splits["train"], data._splits["validation"]
    assert (len(train.labels), len(held_out.labels)) == (30, 10)
    together = torch.cat([train.images, held_out.images]).flatten(1).sum(1).sort().values
    assert torch.equal(together, data.load().train.images.flatten(1).sum(1).sort().values)


def test_the_held_out_images_do_not_depend_on_the_seed():
    one, other = TinyDataModule(validation=0.25, seed=1), TinyDataModule(validation=0.25, seed=2)
    one.setup("fit")
    other.setup("fit")
    assert one.identity()["validation"] == other.identity()["validation"]


def test_validating_on_the_test_set_is_said(caplog):
    data = TinyDataModule(validation="test")
    data.setup("fit")
    assert "Validating on the test set" in caplog.text
    assert data.identity()["validation"] == data.identity()["test"]


@pytest.mark.parametrize("stage", ["test", "predict"])
def test_where_no_epoch_is_chosen_nothing_is_said_of_the_choice(stage, caplog):
    TinyDataModule(validation="test").setup(stage)
    assert "Validating" not in caplog.text


IMAGES, LABELS = DATA.images, DATA.labels


@pytest.mark.parametrize(
    ("loaded", "message"),
    [
        (None, "is None; give Splits"),
        (((IMAGES, LABELS), (IMAGES, LABELS)), "is a tuple of tuple, tuple; give Splits"),
        (Splits(DATA, ImageSet(IMAGES.numpy(), LABELS)), "test.images is a NumPy array of uint8 .10, 3, 32, 32.; give a tensor"),
        (Splits(ImageSet(IMAGES.float(), LABELS), DATA), "train.images is a tensor of torch.float32 .*; give a tensor .* torch.uint8"),
        (Splits(ImageSet(IMAGES.permute(0, 2, 3, 1), LABELS), DATA), "train.images .* channels last; give .N,C,H,W."),
        (Splits(ImageSet(IMAGES[0], LABELS), DATA), "train.images is a tensor of torch.uint8 .3, 32, 32."),
        (Splits(DATA, ImageSet(IMAGES[..., :16, :16], LABELS)), "training images are .3, 32, 32., test images .3, 16, 16.; give one size"),
        (Splits(ImageSet(IMAGES, LABELS.float()), DATA), "train.labels is a tensor of torch.float32 .10.; give .* torch.int64"),
        (Splits(ImageSet(IMAGES, LABELS.int()), DATA), "train.labels is a tensor of torch.int32"),
        (Splits(ImageSet(IMAGES, LABELS[:, None]), DATA), "train.labels is a tensor of torch.int64 .10, 1."),
        (Splits(ImageSet(IMAGES, LABELS.tolist()), DATA), "train.labels is of type list"),
        (Splits(ImageSet(IMAGES, LABELS[1:]), DATA), "train has 10 images and 9 labels"),
        (Splits(DATA, ImageSet(IMAGES, LABELS * 0 + 4)), "test.labels holds 4, but the 4 classes go from 0 to 3"),
        (Splits(DATA, ImageSet(IMAGES, LABELS * 0 - 1)), "test.labels holds -1"),
    ],
)
def test_what_an_own_datamodule_loads_is_looked_at(loaded, message, monkeypatch):
    monkeypatch.setattr(TinyDataModule, "load", lambda self: loaded)
    data = TinyDataModule()
    data.prepare_data()
    with pytest.raises(InputError, match=rf"^TinyDataModule\.load\(\):? .*{message}"):
        data.setup("fit")


def test_subsets():
    data = TinyDataModule(train_samples=7, test_samples=5, validation=0.1)
    data.setup("fit")
    assert {name: part["images"] for name, part in data.identity().items()} == {"train": 7, "validation": 4, "test": 5}


@pytest.mark.parametrize(
    "wrong",
    [{"batch_size": 0}, {"validation": 1.0}, {"validation": 0.0}, {"validation": "train"}, {"train_samples": 0}, {"seed": -1}],
)
def test_bad_settings_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        TinyDataModule(**wrong)


def test_digits():
    data = DigitsDataModule()
    assert data.num_classes == 10
    data.setup("fit")
    train, test = data.load()
    assert (len(train.labels), len(test.labels)) == (1437, 360)
    assert train.images.shape[1:] == (3, 32, 32)
    assert train.images.min() == 0
    assert train.images.max() > 250
    assert test.labels.bincount().min() >= 34


# The cache -----------------------------------------------------------------------------------------------------------------


def test_a_dataset_is_decoded_once_and_again_when_its_cache_is_damaged(tmp_path):
    splits = Splits(DATA, DATA)
    calls = []

    def decode():
        calls.append(1)
        return splits

    path = tmp_path / "set.pt"
    for _ in range(2):
        assert torch.equal(cached(path, decode).test.images, DATA.images)
    assert len(calls) == 1
    content = bytearray(path.read_bytes())
    content[content.find(DATA.images.numpy().tobytes()[:64])] ^= 1
    path.write_bytes(bytes(content))
    assert torch.equal(cached(path, decode).train.images, DATA.images)
    assert len(calls) == 2
    path.write_bytes(path.read_bytes()[:100])
    cached(path, decode)
    assert len(calls) == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["set.pt"]


# Folders -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for number in range(3):
                size = (32, 32) if number else (40, 20)
                Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / split / name / f"{number}.png")
    return root


def test_image_folder(folder):
    data = ImageFolderDataModule(root=str(folder))
    assert (data.num_classes, data.class_names) == (2, ["cat", "dog"])
    data.prepare_data()
    train, test = data.load()
    assert train.images.shape == test.images.shape == (6, 3, 32, 32)
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    # The first images of the test set must not be all of the first class.
    assert sorted(test.labels.tolist()) == [0, 0, 0, 1, 1, 1] != test.labels.tolist()
    pixels = torch.from_numpy(np.array(Image.open(folder / "train" / "cat" / "1.png"))).permute(2, 0, 1)
    assert torch.equal(train.images[1], pixels)


def test_image_folder_notices_a_change(folder):
    before = ImageFolderDataModule(root=str(folder)).load()
    Image.new("L", (8, 8), 77).save(folder / "train" / "cat" / "9.png")
    after = ImageFolderDataModule(root=str(folder)).load()
    assert len(after.train.labels) == len(before.train.labels) + 1
    assert (after.train.images[3] == 77).all()


def test_an_unreadable_image_is_named(folder):
    (folder / "test" / "dog" / "2.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"test/dog/2\.png is no readable image"):
        ImageFolderDataModule(root=str(folder)).prepare_data()


def test_a_truncated_image_is_named(folder):
    path = folder / "test" / "dog" / "2.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"test/dog/2\.png"):
        ImageFolderDataModule(root=str(folder)).prepare_data()


def test_folders_without_images_or_classes(folder, tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        ImageFolderDataModule(root=str(tmp_path / "missing"))
    for path in (folder / "test").glob("*/*"):
        path.unlink()
    with pytest.raises(InputError, match="no images in .*test"):
        ImageFolderDataModule(root=str(folder)).prepare_data()
    (tmp_path / "empty" / "train").mkdir(parents=True)
    (tmp_path / "empty" / "test").mkdir()
    with pytest.raises(InputError, match="no class folders"):
        _ = ImageFolderDataModule(root=str(tmp_path / "empty")).num_classes


def test_a_class_without_training_images_is_refused(folder):
    (folder / "test" / "fox").mkdir()
    with pytest.raises(InputError, match="class 'fox'"):
        ImageFolderDataModule(root=str(folder)).prepare_data()


# CIFAR ---------------------------------------------------------------------------------------------------------------------


def test_classes_are_known_before_any_download():
    assert CIFARDataModule(name="cifar10").num_classes == 10
    assert CIFARDataModule(name="cifar100").num_classes == 100
    for name in ("cifar10", "cifar100"):
        names = CIFARDataModule(name=name).class_names
        # The dataset numbers its classes in alphabetical order.
        assert names == sorted(set(names))
        assert len(names) == CIFARDataModule(name=name).num_classes
    with pytest.raises(InputError, match="name='mnist'"):
        CIFARDataModule(name="mnist")
    with pytest.raises(InputError, match="url='file:///x'"):
        CIFARDataModule(url="file:///x")


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """CIFAR-10 in its own format with 2 images a file; its checksums are taken for the official ones."""
    folder = tmp_path / "made" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lists = {}
    for name in ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]:
        content = {"data": rng.integers(0, 256, (2, 3072), dtype=np.uint8), "labels": [1, 7]}
        (folder / name).write_bytes(pickle.dumps(content))
        lists[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    path = tmp_path / "made" / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        file.add(folder, arcname="cifar-10-batches-py")
    original = torchvision.datasets.CIFAR10

    class Small(original):
        tgz_md5 = hashlib.md5(path.read_bytes()).hexdigest()
        train_list = [[name, md5] for name, md5 in lists.items() if name != "test_batch"]
        test_list = [["test_batch", lists["test_batch"]]]
        meta = {"filename": "batches.meta", "key": "label_names", "md5": hashlib.md5((folder / "batches.meta").read_bytes()).hexdigest()}
        url = "http://127.0.0.1:9/cifar-10-python.tar.gz"

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Small)
    monkeypatch.setitem(cifar_module.SOURCES, "cifar10", cifar_module.Source("CIFAR10", list("abcdefghij")))
    return path


@pytest.fixture
def server(archive):
    """The archive's folder over HTTP on this machine."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=archive.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/{archive.name}"
        running.shutdown()
        thread.join()


def test_cifar_from_another_url(archive, server, tmp_path):
    data = CIFARDataModule(url=server, root=str(tmp_path / "root"))
    data.prepare_data()
    train, test = data.load()
    assert (len(train.labels), len(test.labels)) == (10, 2)
    raw = pickle.loads((archive.parent / "cifar-10-batches-py" / "test_batch").read_bytes())["data"]
    assert torch.equal(test.images.flatten(1), torch.from_numpy(raw))
    assert data.class_names == data._open(train=False).classes


def test_cifar_archive_put_in_place_by_hand(archive, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / archive.name).write_bytes(archive.read_bytes())
    assert len(CIFARDataModule(root=str(root)).load().test.labels) == 2


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_bad_or_missing_archive_says_what_to_put_where(archive, server, tmp_path, damage):
    if damage == "truncated":
        archive.write_bytes(archive.read_bytes()[:-10])
        data = CIFARDataModule(url=server, root=str(tmp_path / "root"))
    else:
        data = CIFARDataModule(root=str(tmp_path / "root"))
    with pytest.raises(InputError, match=r"Put cifar-10-python.tar.gz \(MD5 .* there, or give --data.url"):
        data.prepare_data()


def test_crops_are_those_of_padding_and_cutting():
    images = torch.randint(1, 256, (5, 3, 8, 6), dtype=torch.uint8)
    shift = torch.tensor([[0, 0], [4, -4], [-3, 2], [8, 0], [-1, -1]])
    padded = torch.nn.functional.pad(images, (8, 8, 8, 8))
    for moved, frame, (down, right) in zip(shifted(images, shift), padded, shift.tolist(), strict=True):
        assert torch.equal(moved, frame[:, 8 - down : 16 - down, 8 - right : 14 - right])


def test_crops_are_drawn_for_training_alone_and_depend_on_seed_and_epoch():
    def shifts(split, epoch, **settings):
        data = TinyDataModule(crop=4, **settings)
        data.setup("fit")
        loader = getattr(data, f"{split}_dataloader")()
        loader.sampler.set_epoch(epoch)
        return torch.cat([batch.shift for batch in loader])

    one = shifts("train", 0)
    assert one.abs().max() == 4
    assert torch.equal(one, shifts("train", 0))
    assert not torch.equal(one, shifts("train", 1))
    assert not shifts("val", 0).any()
    data = TinyDataModule(crop=4, flip=False)
    data.setup("fit")
    raw = next(iter(data.train_dataloader()))
    assert torch.equal(data.on_after_batch_transfer(raw, 0).images, shifted(raw.images, raw.shift))


def test_a_user_without_a_home_has_a_cache(monkeypatch):
    monkeypatch.delenv("SNN_SPARSITY_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert cache_directory().is_absolute()
    assert cache_directory().name == "snn_sparsity"

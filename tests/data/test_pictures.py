"""Pictures of every mode and suffix, alone, in folders and in tars."""

import io
import logging
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch.distributed as dist
from PIL import Image, features
from timm.data.readers import get_img_extensions

from tests.support.images import read_all_ways, short
from timm_attn.data import folders
from timm_attn.images import decode_image, read_image, suffixes
from timm_attn.reports.dataset import Pictures
from timm_attn.training.splits import open_split

GREY = np.arange(0, 240, 20, dtype=np.uint8).reshape(3, 4)  # no symmetry
DEEP = np.array([[0, 128, 129, 385], [386, 32767, 32768, 65535]], dtype=np.uint16)  # where 8 bits change
RISING = np.arange(6, dtype=np.float32).reshape(2, 3) / 5


def colours(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.stack([pixels, pixels // 2, 255 - pixels], axis=-1)


# file: values that Pillow writes, and the 8 bits of grey that they are
MODES: dict[str, tuple[Any, Any]] = {
    'I;16.png': (DEEP, [[0, 0, 1, 1], [2, 127, 128, 255]]),
    'I;16.tif': (DEEP, [[0, 0, 1, 1], [2, 127, 128, 255]]),
    'I;16B.tif': (DEEP.astype('>u2'), [[0, 0, 1, 1], [2, 127, 128, 255]]),
    'I.tif': (DEEP.astype(np.int32), [[0, 0, 1, 1], [2, 127, 128, 255]]),
    'I.pgm': (DEEP.astype(np.int32), [[0, 0, 1, 1], [2, 127, 128, 255]]),
    'F.tif': (RISING, [[0, 51, 102], [153, 204, 255]]),
    'dark.tif': (RISING / 100, [[0, 1, 1], [2, 2, 3]]),  # no stretching
    '1.png': (GREY > 100, np.where(GREY > 100, 255, 0)),
    'L.png': (GREY, GREY),
}


@pytest.mark.parametrize('mode', ['L', 'RGB'])
@pytest.mark.parametrize('name', MODES)
def test_grey_pictures_keep_their_scale(name: str, mode: str, tmp_path: Path) -> None:
    values, expected = MODES[name]
    Image.fromarray(values).save(tmp_path / name)
    for way, pixels in read_all_ways(tmp_path / name, tmp_path, mode).items():
        assert (pixels == (np.array(expected) if mode == 'L' else np.array(expected)[..., None])).all(), way


@pytest.mark.parametrize('mode', ['P', 'PA', 'LA', 'RGBA', 'CMYK', 'LAB'])
def test_training_and_reports_see_the_same_grey(mode: str, tmp_path: Path) -> None:
    name = 'picture.png' if mode in ('P', 'LA', 'RGBA') else 'picture.tif'
    image = Image.fromarray(colours(GREY))
    if mode == 'LAB':  # which only files have
        image = Image.frombytes('LAB', image.size, image.tobytes())
    image.convert(mode).save(tmp_path / name) if mode != 'PA' else image.quantize().convert('PA').save(tmp_path / name)
    first, *others = read_all_ways(tmp_path / name, tmp_path, 'L').values()
    assert all((first == other).all() for other in others)


@pytest.mark.parametrize('mode', ['I;16', 'I;16L', 'I;16B', 'I;16N', 'I'])
def test_every_mode_of_16_bits(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of them a file gets is up to the version of Pillow."""
    monkeypatch.setattr(Image, 'open', lambda file, formats: Image.new(mode, (2, 1), 257 * 77))
    assert np.unique(np.asarray(decode_image(io.BytesIO()))) == 77


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        (DEEP.astype(np.int32) - 1, 'it has mode I and values from -1 to 65534, valid are 0 to 65535'),
        (DEEP.astype(np.int32) + 1, 'it has mode I and values from 1 to 65536, valid are 0 to 65535'),
        (RISING * 255, 'it has mode F and values from 0 to 255, valid are 0 to 1'),
        (RISING - 0.5, 'it has mode F and values from -0.5 to 0.5, valid are 0 to 1'),
        (np.where(RISING > 0.5, np.nan, RISING), 'it has mode F and values from nan to nan, valid are 0 to 1'),
        (np.where(RISING > 0.5, np.inf, RISING), 'it has mode F and values from 0 to inf, valid are 0 to 1'),
    ],
)
def test_values_without_a_scale_are_refused(values: Any, message: str, tmp_path: Path) -> None:
    for of_class in ('a', 'b'):
        (tmp_path / 'train' / of_class).mkdir(parents=True)
        Image.fromarray(values).save(tmp_path / 'train' / of_class / 'picture.tif')
    file = tmp_path / 'train' / 'a' / 'picture.tif'
    for read in (
        lambda: read_image(file),
        lambda: open_split(short(), tmp_path, 'train')[0],
        lambda: Pictures(tmp_path / 'train')[0],
    ):
        with pytest.raises(ValueError, match=f'^{file} cannot be read as an image: {message}[.]'):
            read()


@pytest.mark.parametrize('suffix', ['png', 'jpg', 'tif', 'webp'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientations(orientation: int, suffix: str, tmp_path: Path) -> None:
    """What a viewer shows, written as a camera held in one of eight ways does."""
    upright = colours(np.kron(GREY, np.ones((16, 16), dtype=np.uint8)))
    lying = upright.swapaxes(0, 1)
    turned = [
        upright, upright[:, ::-1], upright[::-1, ::-1], upright[::-1],
        lying, lying[::-1], lying[::-1, ::-1], lying[:, ::-1],
    ]  # fmt: skip
    image = Image.fromarray(np.ascontiguousarray(turned[orientation - 1]))
    exif = image.getexif()
    exif[0x112] = orientation
    image.save(tmp_path / f'photo.{suffix}', exif=exif, quality=95)
    for way, pixels in read_all_ways(tmp_path / f'photo.{suffix}', tmp_path).items():
        assert pixels.shape == upright.shape and abs(pixels.astype(int) - upright).mean() < 4, way


@pytest.mark.parametrize(
    'damage',
    [lambda exif: b'no exif at all', lambda exif: exif[:9], lambda exif: exif.replace(b'MM\0*', b'MM\0x')],
)
@pytest.mark.parametrize('suffix', ['png', 'jpg', 'webp'])
def test_a_damaged_exif_block_says_nothing(suffix: str, damage: Any, tmp_path: Path) -> None:
    image = Image.fromarray(colours(GREY))
    exif = image.getexif()
    exif[0x112] = 6
    image.save(tmp_path / f'photo.{suffix}', exif=damage(exif.tobytes()))
    for way, pixels in read_all_ways(tmp_path / f'photo.{suffix}', tmp_path).items():
        assert pixels.shape == (3, 4, 3), way


def test_an_orientation_counts_beside_damaged_tags(tmp_path: Path) -> None:
    image = Image.fromarray(colours(GREY))
    exif = image.getexif()
    exif[0x112], exif[0x11A] = 6, 72.0
    whole = exif.tobytes()
    damaged = whole.replace(b'\x01\x1a\x00\x05', b'\x01\x1a\x00\x02')  # a ratio that says it is a text
    assert damaged != whole
    image.save(tmp_path / 'photo.jpg', exif=damaged)
    assert read_image(tmp_path / 'photo.jpg').size == (3, 4)


# the suffixes that people have, and what makes Pillow write them
SUFFIXES = {
    '.png': 'PNG', '.PNG': 'PNG', '.jpg': 'JPEG', '.JPG': 'JPEG', '.JPEG': 'JPEG', '.jfif': 'JPEG', '.mpo': 'MPO',
    '.webp': 'WEBP', '.WebP': 'WEBP', '.bmp': 'BMP', '.tif': 'TIFF', '.TIFF': 'TIFF', '.gif': 'GIF', '.ppm': 'PPM',
    '.tga': 'TGA', '.jp2': 'JPEG2000', '.ico': 'ICO', '.pcx': 'PCX',
}  # fmt: skip


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_every_suffix_that_pillow_opens(suffix: str, tmp_path: Path) -> None:
    assert suffix != '.webp' or features.check('webp')
    image = Image.fromarray(np.full((32, 32, 3), 80, dtype=np.uint8))
    image.save(tmp_path / f'picture{suffix}', format=SUFFIXES[suffix])
    for way, pixels in read_all_ways(tmp_path / f'picture{suffix}', tmp_path).items():
        assert pixels.shape == (32, 32, 3) and (abs(pixels.astype(int) - 80) < 3).all(), way


def test_what_pillow_cannot_decode_alone_is_no_picture() -> None:
    assert not suffixes() & {'.pdf', '.eps', '.ps', '.wmf', '.emf', '.mpg', '.mpeg', '.h5', '.hdf', '.txt', '', '.'}


@pytest.mark.parametrize(
    'start', [b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n', b'\x89HDF\r\n\x1a\n']
)
def test_no_file_starts_a_program(start: bytes, tmp_path: Path) -> None:
    """Whatever its suffix says."""
    (tmp_path / 'a.png').write_bytes(start + bytes(100))
    with pytest.raises(
        ValueError, match=r'a[.]png cannot be read as an image: its format is unknown, or it is damaged'
    ):
        read_image(tmp_path / 'a.png')


def test_timm_s_table_of_suffixes_is_left_alone(small: Path) -> None:
    before = get_img_extensions()
    open_split(short(), small, 'train')
    Pictures(small / 'train')
    with pytest.raises(RuntimeError, match='Found 0 images'):
        open_split(short(input_key='.gif'), small, 'train')
    assert get_img_extensions() == before


def test_threads_leave_it_alone_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one begins before the first has ended, and ends after it."""
    before = get_img_extensions()
    suffixes()  # the first call imports Pillow's plugins
    monkeypatch.setattr(folders, 'create_dataset', lambda name, root, split: time.sleep(float(root)))
    with ThreadPoolExecutor(2) as threads:
        for seconds in ('0.1', '0.3'):
            threads.submit(folders.open_dataset, '', Path(seconds))
            time.sleep(0.05)
    assert get_img_extensions() == before


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    caplog.clear()
    return found


def test_what_is_left_out_is_said_once(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert len(open_split(short(), small, 'train')) == 20 and len(Pictures(small / 'validation')) == 20
    assert said(caplog) == []
    left_out = [
        '0_t-shirt/a.txt',
        '0_t-shirt/b.TXT',
        '1_trouser/deep/c.txt',
        '1_trouser/d.mp4',
        '1_trouser/README',
        '1_trouser/e.png.',
    ]
    for name in [*left_out, '0_t-shirt/.DS_Store', '1_trouser/Thumbs.db', 'classes.csv']:
        (small / 'train' / name).parent.mkdir(exist_ok=True)
        (small / 'train' / name).touch()
    with tarfile.open(small / 'packed.tar', 'w') as tar:
        tar.add(small / 'train', arcname='.')
    for root, opened in {
        small / 'train': [lambda: open_split(short(), small, 'train'), lambda: Pictures(small / 'train')],
        small / 'packed.tar': [lambda: Pictures(small / 'packed.tar'), lambda: open_split(short(), small, 'packed')],
    }.items():
        assert [len(open_images()) for open_images in opened] == [20, 20]
        assert said(caplog) == [
            f'{root}: files in its folders that are left out, as no pictures by their suffix: '
            "6 (3 '.txt', 1 without one, 1 '.', 1 '.mp4')."
        ]


def test_only_the_primary_process_says_it(
    small: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (small / 'train' / '0_t-shirt' / 'a.txt').touch()
    monkeypatch.setattr(dist, 'is_initialized', lambda: True)
    for rank, count in ((1, 0), (0, 1)):
        monkeypatch.setattr(dist, 'get_rank', lambda rank=rank: rank)
        open_split(short(), small, 'train')
        assert len(said(caplog)) == count


def test_a_message_names_few_suffixes(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i in range(25):
        (small / 'train' / '0_t-shirt' / f'part.{i}').touch()
    open_split(short(), small, 'train')
    (message,) = said(caplog)
    assert ': 25 (1 ' in message and message.count("1 '") == 10 and message.endswith(' and 15 other suffixes).')


def test_tars_of_tars(tmp_path: Path, small: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As ImageNet comes: a tar of a tar for each class."""
    with tarfile.open(tmp_path / 'outer.tar', 'w') as outer:
        for folder in sorted((small / 'train').iterdir()):
            (folder / 'notes.txt').touch()
            with tarfile.open(tmp_path / f'{folder.name}.tar', 'w') as inner:
                for file in folder.iterdir():
                    inner.add(file, arcname=file.name)
            outer.add(tmp_path / f'{folder.name}.tar', arcname=f'{folder.name}.tar')
    pictures = Pictures(tmp_path / 'outer.tar')
    assert len(pictures) == 20 and pictures.classes == ['0_t-shirt', '1_trouser']
    (message,) = said(caplog)
    assert message.startswith(f'{tmp_path / "outer.tar"}: ') and message.endswith(": 2 (2 '.txt').")

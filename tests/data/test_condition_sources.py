"""Conditions wherever a source keeps them: packed, they are the same; what is none is refused by file and name."""

import csv
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imagegen_dist.cli.data import main, main_check, main_index
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.pack import pack
from imagegen_dist.data.packing import PackConfig, pack_dataset
from imagegen_dist.data.sources.base import SourceOptions
from imagegen_dist.data.sources.condition_table import ConditionTable, column_of, parse_conditions
from imagegen_dist.data.stream import read_samples
from imagegen_dist.errors import DONE, INTERRUPTED, MISUSED
from imagegen_dist.storage import Store
from tests.tars import tar_of

COUNT = 24
TEXT = 20  # numbers of a vector that is stored as an array


def condition_of(number: int) -> dict:
    text = [number / 4 + each for each in range(TEXT)]
    return {"style": ("serif", "sans")[number % 2], "smile": number % 3 == 0, "age": number / 8, "text": text}


def array_of(number: int) -> np.ndarray:
    return np.full((4, 5), 10 * number, np.uint8)


def picture(number: int) -> bytes:
    target = io.BytesIO()
    Image.fromarray(array_of(number)).save(target, "png")
    return target.getvalue()


def put_pictures(folder: Path, name: Callable[[int], str] = "{:03}.png".format) -> Path:
    for number in range(COUNT):
        file = folder / name(number)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(number))
    return folder


def columns_of(numbers: range = range(COUNT), leave_out: tuple[str, ...] = ()) -> dict[str, list]:
    rows = [condition_of(number) for number in numbers]
    return {name: [row[name] for row in rows] for name in rows[0] if name not in leave_out}


def text_table(path: Path, mark: str = ",", leave_out: tuple[str, ...] = ()) -> Path:
    """A table as CelebA has it: attributes are -1 and 1, vectors are lists in a text."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=mark)
        columns = columns_of(leave_out=leave_out)
        writer.writerow(["image_id", *columns])
        for number in reversed(range(COUNT)):
            row = condition_of(number)
            row |= {"smile": "1" if row["smile"] else "-1", "text": " ".join(map(str, row["text"]))}
            writer.writerow([f"{number:03}.png", *(row[name] for name in columns)])
    return path


def json_lines(path: Path, key: str) -> Path:
    rows = ({key: f"{number:03}.png", **condition_of(number)} for number in range(COUNT))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def from_csv(place: Path) -> tuple[Path, dict]:
    table = text_table(place / "attributes.csv")
    return put_pictures(place / "in"), {"attributes": str(table), "conditions": "style,smile,age,text:vector"}


def from_a_tsv_at_a_url_for_a_zip(place: Path) -> tuple[Path, dict]:
    folder = put_pictures(place / "in")
    with zipfile.ZipFile(place / "all.zip", "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"top/{file.name}")
    table, elsewhere = text_table(place / "attributes.tsv", "\t"), Store("memory://test-condition-sources")
    elsewhere.write("a.tsv", table.read_bytes())
    return place / "all.zip", {
        "attributes": f"{elsewhere}/a.tsv",
        "conditions": "text:vector,style,smile:attribute,age:number",
    }


def from_json_lines_below_source(place: Path) -> tuple[Path, dict]:
    folder = put_pictures(place / "in")
    return folder, {"attributes": str(json_lines(folder / "attributes.jsonl", "name"))}


def from_a_parquet_table(place: Path) -> tuple[Path, dict]:
    names = [f"{number:03}" for number in range(COUNT)]
    bytes_too = {"thumbnail": [b"no condition"] * COUNT}
    pyarrow.parquet.write_table(pyarrow.table({"key": names, **columns_of(), **bytes_too}), place / "a.parquet")
    return put_pictures(place / "in"), {"attributes": str(place / "a.parquet")}


def from_metadata(place: Path) -> tuple[Path, dict]:
    folder = put_pictures(place / "in")
    json_lines(folder / "metadata.jsonl", "file_name")
    return folder, {"conditions": "style,smile,age,text"}


def from_folders_and_a_table(place: Path) -> tuple[Path, dict]:
    folder = put_pictures(place / "in", lambda number: f"{condition_of(number)['style']}/x{number % 3}/{number:03}.png")
    table = text_table(place / "attributes.csv", leave_out=("style",))
    return folder, {"attributes": str(table), "folders": "style/-", "conditions": "style,smile,age,text:vector"}


def from_columns_of_parquet(place: Path) -> tuple[Path, dict]:
    (place / "in").mkdir()
    for number, rows in enumerate((range(10), range(10, COUNT))):
        table = pyarrow.table({"image": [picture(row) for row in rows], "other": [0] * len(rows), **columns_of(rows)})
        pyarrow.parquet.write_table(table, place / "in" / f"{number}.parquet", row_group_size=3)
    return place / "in", {"conditions": "style,smile,age,text"}


def from_shards_of_others(place: Path) -> tuple[Path, dict]:
    (place / "in").mkdir()
    files = []
    for number in range(COUNT):
        target = io.BytesIO()
        np.save(target, condition_of(number)["text"])
        record = {name: value for name, value in condition_of(number).items() if name != "text"}
        text = json.dumps({"condition": record, "cond.npy": "text", "caption": "left out"}).encode()
        key = f"{number:03}"
        files += [(f"{key}.cond.npy", target.getvalue()), (f"{key}.json", text), (f"{key}.png", picture(number))]
    for first in (0, 30):
        (place / "in" / f"{first}.tar").write_bytes(tar_of(files[first : first + 30 if not first else None]))
    return place / "in", {}


def from_indexed_shards(place: Path) -> tuple[Path, dict]:
    records = ({"condition": {"more": 1, **condition_of(number)}} for number in range(COUNT))
    pack(((array_of(n)[None], each) for n, each in enumerate(records)), Store(place / "in"), shard_samples=7)
    return place / "in", {"conditions": "style,smile,age,text"}


SOURCES = (
    *(from_csv, from_a_tsv_at_a_url_for_a_zip, from_json_lines_below_source, from_a_parquet_table, from_metadata),
    *(from_folders_and_a_table, from_columns_of_parquet, from_shards_of_others, from_indexed_shards),
)


def flags(options: Mapping[str, str]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def check_samples(index: DatasetIndex, store: Store, expected: Callable[[int], dict]) -> list[int]:
    """The numbers of the samples of a dataset, each of which has its condition."""
    samples, labels = read_samples(index, store, range(index.samples))
    numbers = (samples[:, 0, 0, 0].numpy() // 10).tolist()
    assert index.conditions is not None
    assert labels is not None
    assert np.array_equal(labels.numpy(), np.stack([index.conditions.encode(expected(number)) for number in numbers]))
    return numbers


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.__name__)
def test_every_source_ends_in_the_same_conditions(
    tmp_path: Path, source: Callable[[Path], tuple[Path, dict]], capsys: pytest.CaptureFixture[str]
):
    place, options = source(tmp_path)
    assert main([str(place), str(tmp_path / "out"), *flags(options), "--shard-size", "20kB"]) == DONE
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "4 conditions: " in captured.out
    for part in ("style (2 classes)", "smile (attribute)", "age (0 to 2.875)", "text (20 numbers)"):
        assert part in captured.out
    index = DatasetIndex.load(Store(tmp_path / "out"))
    assert len(index.shards) > 1
    assert sorted(check_samples(index, Store(tmp_path / "out"), condition_of)) == list(range(COUNT))
    assert main_check([str(tmp_path / "out")]) == DONE
    assert main([str(place), str(tmp_path / "out"), *flags(options), "--shard-size", "20kB"]) == DONE
    assert "nothing was written" in capsys.readouterr().out


@pytest.mark.parametrize("size", [2, TEXT])
def test_the_vectors_of_stylegan_are_a_part(tmp_path: Path, size: int):
    folder = put_pictures(tmp_path / "in", "{:03}/a.png".format)
    vectors = [[f"{number:03}/a.png", condition_of(number)["text"][:size]] for number in range(COUNT)]
    (folder / "dataset.json").write_text(json.dumps({"labels": vectors}))
    packed = pack_dataset(folder, tmp_path / "out")
    check_samples(packed.indexes[""], packed.stores[""], lambda number: {"vector": vectors[number][1]})


def test_the_datasets_of_a_split_have_one_vector(tmp_path: Path):
    place, options = from_json_lines_below_source(tmp_path)
    chosen = SourceOptions(attributes=options["attributes"], conditions={"age": "", "style": "", "text": ""})
    packed = pack_dataset(place, tmp_path / "out", PackConfig(split={"train": 0.9, "val": 0.1}, source=chosen))
    parts = [index.conditions.parts for index in packed.indexes.values() if index.conditions]
    assert [[(part.name, part.names, part.mean, part.deviation) for part in each] for each in parts] == [
        [(part.name, part.names, part.mean, part.deviation) for part in parts[0]]
    ] * 2
    assert sum(sum(part.counts) for each in parts for part in each) == COUNT
    expected = {name: [] for name in packed.indexes}
    for name, index in packed.indexes.items():
        of = lambda number: {part: condition_of(number)[part] for part in chosen.conditions}  # noqa: E731
        expected[name] = check_samples(index, packed.stores[name], of)
    assert sorted(expected["train"] + expected["val"]) == list(range(COUNT))


def test_an_interrupted_packing_continues_with_its_conditions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    place, options = from_csv(tmp_path)
    read, calls = Store.read, list[str]()

    def read_until_interrupted(store: Store, name: str) -> bytes:
        calls.append(name)
        if len(calls) == 45:
            raise KeyboardInterrupt
        return read(store, name)

    words = [*flags(options), "--shard-size", "20kB", "--workers", "0"]
    monkeypatch.setattr(Store, "read", read_until_interrupted)
    assert main([str(place), str(tmp_path / "out"), *words]) == INTERRUPTED
    monkeypatch.undo()
    assert (tmp_path / "out" / "shard-000000.tar").exists()
    for name in ("out", "fresh"):
        assert main([str(place), str(tmp_path / name), *words]) == DONE
    assert (tmp_path / "out" / "index.json").read_bytes() == (tmp_path / "fresh" / "index.json").read_bytes()


def test_labels_beside_conditions_are_the_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = put_pictures(tmp_path / "in", lambda number: f"{'ab'[number % 2]}/{number:03}.png")
    table = text_table(tmp_path / "t.csv", leave_out=("style", "text"))
    assert main([str(folder), str(tmp_path / "out"), "--attributes", str(table), "--conditions", "age"]) == DONE
    index = DatasetIndex.load(Store(tmp_path / "out"))
    check_samples(index, Store(tmp_path / "out"), lambda n: {"class": "ab"[n % 2], "age": condition_of(n)["age"]})
    columns = {"image": [picture(n) for n in range(COUNT)], "label": [n % 3 for n in range(COUNT)], **columns_of()}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    for asked, expected in (("age,class:number", "class (0 to 2), "), ("label,age", "2 conditions: label (3 classes)")):
        dest = tmp_path / asked
        assert main([str(tmp_path / "a.parquet"), str(dest), "--conditions", asked]) == DONE
        assert expected.rstrip(", ") in capsys.readouterr().out
    assert main([str(tmp_path / "out"), str(tmp_path / "none"), "--labels", "none"]) == DONE
    index = DatasetIndex.load(Store(tmp_path / "none"))
    assert (index.conditions, index.classes) == (None, None)


def test_an_index_can_take_other_kinds(tmp_path: Path):
    place, _ = from_shards_of_others(tmp_path)
    assert main_index([str(place), "--conditions", "smile:class"]) == DONE
    index = DatasetIndex.load(Store(place))
    assert index.conditions is not None
    assert index.conditions.part("smile").names == ("false", "true")
    check_samples(index, Store(place), condition_of)


def test_texts_are_several_attributes_or_none_if_they_are_asked_to_be(tmp_path: Path):
    folder = put_pictures(tmp_path / "in")
    worn = [("hat", "hat; glasses", "")[number % 3] for number in range(COUNT)]
    rows = "".join(f"{number:03},{each}\n" for number, each in enumerate(worn))
    (tmp_path / "worn.csv").write_text("name,worn\n" + rows)
    options = SourceOptions(attributes=str(tmp_path / "worn.csv"), conditions={"worn": "attributes"})
    packed = pack_dataset(folder, tmp_path / "out", PackConfig(source=options))
    expected = [["hat"], ["hat", "glasses"], []]
    check_samples(packed.indexes[""], packed.stores[""], lambda number: {"worn": expected[number % 3]})


@settings(max_examples=25, deadline=None)
@given(
    st.one_of(
        st.lists(st.integers(-(10**9), 10**9), min_size=1),
        st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1),
        st.lists(st.booleans(), min_size=1),
        st.lists(st.sampled_from(["a", "b c", "ü"]), min_size=1),
    )
)
def test_texts_have_the_types_of_what_was_written(values: list):
    table = ConditionTable({"x": column_of([str(value) for value in values], "class", is_text=True)})
    found = [table.row(number)["x"] for number in range(len(values))]
    assert found == values
    assert {type(value) for value in found} == {type(value) for value in values}


def test_only_minus_one_and_one_are_an_attribute():
    assert column_of(["-1", "1"], "", is_text=True).tolist() == [False, True]
    assert column_of([1, -1], "number", is_text=False).tolist() == [1, -1]
    assert column_of(["1", "1"], "", is_text=True).tolist() == [1, 1]
    assert column_of(["-1", "0", "1"], "", is_text=True).tolist() == [-1, 0, 1]


def test_parts_and_kinds_in_a_flag():
    assert parse_conditions("digit, age:number") == {"digit": "", "age": "number"}
    for text, said in (("a:b", "'b' is no kind"), ("a,a", "a comes twice"), ("a,,b", "'' is no name")):
        with pytest.raises(ValueError, match=said):
            parse_conditions(text)


TABLE = "file,age,style\n000.png,1.5,a\n001.png,2,b\n"


@pytest.mark.parametrize(
    ("table", "words", "said"),
    [
        (TABLE, "--conditions ages", "--conditions ages: IN has no such condition; there are age, style"),
        (TABLE, "--conditions age:years", "'years' is no kind of condition; class, attributes, vector"),
        (TABLE, "--conditions age:class", "condition age has numbers, which cannot be of kind class"),
        (TABLE, "--conditions style:number", "condition style has texts, which cannot be of kind number"),
        (TABLE, "--folders a/b", "--folders a/b: IN/000.png is in 0 levels of folders, not in 2"),
        (TABLE, "--folders a/a", "--folders a/a: a name comes twice"),
        (TABLE, "--relabel", "--relabel numbers classes, but IN has conditions (age, style)"),
        (TABLE, "--labels none", "--labels none with --attributes: conditions are labels"),
        (TABLE.replace("2,b", ",b"), "", "t.csv has no age for 1 picture: 001.png; every picture needs one"),
        (TABLE.replace("2,b", "old,b"), "", "age is numbers in some samples and texts in others, the first being 001"),
        (TABLE.replace("2,b", "nan,b"), "", "age is nan, which cannot be a condition, the first being 001.png"),
        (TABLE.replace("001.png", "007.png"), "", "t.csv has no row for 1 picture: 001.png"),
        (TABLE + "001,3,b\n", "", "t.csv names 001.png twice"),
        (TABLE.replace("00", "x"), "", "t.csv has no column that names the pictures (000.png, 001.png); it has file"),
        ("file\n000.png\n001.png\n", "", "t.csv has no column but file, which names the pictures"),
        (TABLE.replace("style", "a/b"), "", "t.csv has a column 'a/b', which cannot name a condition"),
    ],
)
def test_what_is_no_condition_is_one_line(
    tmp_path: Path, table: str, words: str, said: str, capsys: pytest.CaptureFixture[str]
):
    for number in range(2):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number:03}.png").write_bytes(picture(number))
    (tmp_path / "t.csv").write_text(table)
    assert main([f"{tmp_path}/in", f"{tmp_path}/out", "--attributes", f"{tmp_path}/t.csv", *words.split()]) == MISUSED
    line = capsys.readouterr().err.splitlines()[-1].replace(f"{tmp_path}/in", "IN")
    assert said in line
    assert not (tmp_path / "out" / "shard-000000.tar").exists()


def test_a_table_of_volumes_is_not_said_to_be_of_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "in").mkdir()
    for number in range(2):
        np.save(tmp_path / "in" / f"{number}.npy", np.zeros((4, 4, 4), np.uint8))
    (tmp_path / "t.csv").write_text("file,age\n0.npy,1.5\n")
    words = [f"{tmp_path}/in", f"{tmp_path}/out", "--modality", "voxels", "--attributes", f"{tmp_path}/t.csv"]
    assert main(words) == MISUSED
    assert "t.csv has no row for 1 volume: 1.npy" in capsys.readouterr().err


def test_captions_are_no_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = put_pictures(tmp_path / "in")
    rows = "".join(f"{number:03},a photo of {number}\n" for number in range(COUNT))
    (tmp_path / "t.csv").write_text("name,caption\n" + rows)
    assert main([str(folder), str(tmp_path / "out"), "--attributes", str(tmp_path / "t.csv")]) == MISUSED
    assert "condition caption has 24 different texts in 24 samples: these look like captions" in capsys.readouterr().err


@pytest.mark.parametrize("flag", [("--attributes", "t.csv"), ("--folders", "a"), ("--conditions", "b")])
def test_shards_have_their_own_conditions(tmp_path: Path, flag: tuple[str, str], capsys: pytest.CaptureFixture[str]):
    place, _ = from_shards_of_others(tmp_path)
    assert main([str(place), str(tmp_path / "out"), *flag]) == MISUSED
    said = {"--attributes": "is for picture files", "--folders": "names folders of", "--conditions": "there are style,"}
    assert said[flag[0]] in capsys.readouterr().err


def test_a_shard_sample_without_a_condition_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    record = b'{"condition": {"a": 1}}'
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar").write_bytes(tar_of([("0.png", picture(0)), ("0.json", record), ("1.png", picture(1))]))
    assert main([str(tmp_path / "in"), str(tmp_path / "out")]) == MISUSED
    assert "a.tar: 1 has no condition, which other samples have" in capsys.readouterr().err

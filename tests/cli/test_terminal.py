"""What a terminal would obey in the names of others' files is not printed."""

from PIL import Image

from imagegen_dist.cli.data import main
from imagegen_dist.cli.train import main_gan
from imagegen_dist.errors import MISUSED
from imagegen_dist.wording import one_line

TITLE = "\x1b]0;owned\x07"


def test_a_text_in_one_line():
    assert one_line(f"a\r\n\tb {TITLE} \x9b31m é猫") == "a b ?]0;owned? ?31m é猫"


def test_names_of_pictures_and_of_columns(tmp_path, capfd):
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        Image.new("L", (8, 8), number).save(tmp_path / "pictures" / f"{number}.png")
    (tmp_path / "pictures" / f"{TITLE}.png").write_bytes(b"no picture")
    main([str(tmp_path / "pictures"), str(tmp_path / "out"), "--workers", "0"])
    assert main_gan(["digits", "--data", f"{tmp_path}/{TITLE}", "--storage", str(tmp_path)]) == MISUSED
    said = capfd.readouterr()
    assert "left out: ?]0;owned?.png" in said.err
    assert "\x1b" not in said.out + said.err

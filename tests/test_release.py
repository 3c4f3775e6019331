"""What `make release` writes for a package index, and what it refuses."""

import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.test_readme import addresses, links
from tools import release

ROOT = Path(__file__).parents[1]
ADDRESS = "https://example.org/a/b"


@pytest.fixture
def copy(tmp_path):
    for name in ["README.md", "pyproject.toml"]:
        (tmp_path / name).write_text((ROOT / name).read_text())
    return tmp_path


def test_links_of_the_readme_are_absolute(copy):
    before = (copy / "README.md").read_text()
    assert len(links(before)) > 10
    elsewhere = addresses(copy / "README.md")
    release.addressed(copy, ADDRESS)
    found = (copy / "README.md").read_text()
    assert links(found) == []
    assert elsewhere < addresses(copy / "README.md")
    tag = f"v{release.__version__}"
    assert f"]({ADDRESS}/raw/{tag}/docs/idea.svg)" in found
    assert f"]({ADDRESS}/blob/{tag}/docs/studies/transfer/README.md#goals)" in found


def test_the_project_has_links(copy):
    release.addressed(copy, ADDRESS, "https://docs.example.org/")
    project = tomllib.loads((copy / "pyproject.toml").read_text())["project"]
    assert project["urls"] == release.urls(
        ADDRESS, f"v{release.__version__}", "https://docs.example.org/"
    )
    assert project["urls"]["Source"] == ADDRESS
    assert project["urls"]["Documentation"] == "https://docs.example.org/"


def test_links_to_files_lead_somewhere():
    for link in release.urls(ADDRESS, "v1").values():
        _, found, file = link.partition("/blob/v1/")
        assert not found or (ROOT / file).exists()


def built(folder, text, kind):
    """A wheel or an sdist that says `text` of itself."""
    if kind == "wheel":
        file = folder / "keras_mpt-1-py3-none-any.whl"
        with zipfile.ZipFile(file, "w") as wheel:
            wheel.writestr("keras_mpt-1.dist-info/METADATA", text)
    else:
        file, said = folder / "keras_mpt-1.tar.gz", folder / "PKG-INFO"
        said.write_text(text)
        with tarfile.open(file, "w:gz") as sdist:
            sdist.add(said, "keras_mpt-1/PKG-INFO")
    return file


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_built_files_are_read_again(tmp_path, kind):
    one = {"Source": ADDRESS}
    good = f"Name: keras-mpt\nProject-URL: Source, {ADDRESS}\n\n[a]({ADDRESS}/blob/v1/a.md)\n"
    release.checked(built(tmp_path, good, kind), one)
    with pytest.raises(ValueError, match=r"should have absolute links alone.*docs/a\.md"):
        release.checked(built(tmp_path, good + "[b](docs/a.md)\n", kind), one)
    with pytest.raises(ValueError, match="should have the links"):
        release.checked(built(tmp_path, "Name: keras-mpt\n\ntext\n", kind), one)


@pytest.mark.parametrize("address", ["host.org/a/b", "https://host.org", "http://a.b/c/d", ""])
def test_an_address_that_is_none_is_refused_before_any_work(address, tmp_path, capsys):
    with pytest.raises(SystemExit):
        release.main([address, "--into", str(tmp_path / "dist")])
    assert "`address` should be as https://host/owner/name. Received:" in capsys.readouterr().err
    assert not (tmp_path / "dist").exists()


def test_nothing_built_before_is_mixed_in(tmp_path, capsys):
    (tmp_path / "old.whl").touch()
    with pytest.raises(SystemExit):
        release.main([ADDRESS, "--into", str(tmp_path)])
    assert "`--into` should be an empty folder. Received:" in capsys.readouterr().err

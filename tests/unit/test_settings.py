"""Where settings come from, and what is said of wrong ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from headwater.errors import FolderError, SettingsError
from headwater.settings import Settings


@pytest.fixture(autouse=True)
def a_clean_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory, and none of our names in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("HEADWATER_", "QDRANT_", "CELERY_")):
            monkeypatch.delenv(name)


def toml(text: str) -> None:
    Path("headwater.toml").write_text(text, "utf-8")


def dotenv(text: str) -> None:
    Path(".env").write_text(text, "utf-8")


def refused(**flags: Any) -> str:
    """The one sentence of the error."""
    with pytest.raises(SettingsError) as caught:
        Settings.load(**flags)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


# -- precedence ------------------------------------------------------------------------------------------------


def test_each_source_goes_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    default = Settings.load().chunk_tokens
    toml("chunk_tokens = 101")
    assert (default, Settings.load().chunk_tokens) == (250, 101)
    dotenv("HEADWATER_CHUNK_TOKENS=102")
    assert Settings.load().chunk_tokens == 102
    monkeypatch.setenv("HEADWATER_CHUNK_TOKENS", "103")
    assert Settings.load().chunk_tokens == 103
    assert Settings.load(chunk_tokens=104).chunk_tokens == 104


@pytest.mark.parametrize(
    ("field", "name"),
    [("broker_url", "CELERY_BROKER_URL"), ("qdrant_url", "QDRANT_URL"), ("qdrant_api_key", "QDRANT_API_KEY")],
)
def test_the_known_names_have_the_same_precedence(monkeypatch: pytest.MonkeyPatch, field: str, name: str) -> None:
    def load(**flags: Any) -> Any:
        return getattr(Settings.load(**flags), field)

    assert load() is None
    toml(f'{field} = "http://toml"')
    assert load() == "http://toml"
    dotenv(f"{name}=http://dotenv")
    assert load() == "http://dotenv"
    monkeypatch.setenv(name, "http://environment")
    assert load() == "http://environment"
    assert load(**{field: "http://flag"}) == "http://flag"


@pytest.mark.parametrize("name", ["BROKER_URL", "broker_url"])
def test_a_broker_that_another_program_is_told_of_is_not_ours(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "redis://of.another.program")
    assert Settings.load().broker_url is None


def test_a_flag_that_is_none_counts_as_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_PORT", "4711")
    assert Settings.load(port=None).port == 4711


def test_an_empty_variable_counts_as_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QDRANT_URL", "")
    monkeypatch.setenv("HEADWATER_CHUNK_TOKENS", "")
    assert (Settings.load().qdrant_url, Settings.load().chunk_tokens) == (None, 250)


# -- wrong values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("HEADWATER_CHUNK_TOKENS", "5", "greater than or equal to 16"),
        ("HEADWATER_CHUNK_TOKENS", "many", "valid integer"),
        ("HEADWATER_PRECISION", "fp8", "'auto', 'fp32', 'bf16' or 'fp16'"),
        ("HEADWATER_LOG_LEVEL", "LOUD", "'debug', 'info', 'warning' or 'error'"),
        ("HEADWATER_PORT", "70000", "less than or equal to 65535"),
        ("HEADWATER_DEVICE", "gpu", "auto, cpu, mps, cuda and cuda:N"),
        ("HEADWATER_COLLECTION", "a b", "pattern"),
        ("HEADWATER_EXTRACT_TIMEOUT_S", "0", "greater than 0"),
        ("HEADWATER_INCLUDE", "[1]", "string"),
    ],
)
def test_a_wrong_value_is_one_sentence_with_name_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(name, value)
    sentence = refused()
    assert name in sentence
    assert allowed in sentence
    assert value.strip("[]") in sentence


def test_a_wrong_value_in_a_flag_or_in_the_file_is_told_the_same_way() -> None:
    assert "HEADWATER_PORT" in refused(port=-1)
    toml('rescan_s = "soon"')
    sentence = refused()
    assert "HEADWATER_RESCAN_S" in sentence
    assert "'soon'" in sentence


def test_a_list_that_is_broken_json_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_EXCLUDE", '["a", ')
    sentence = refused()
    assert "HEADWATER_EXCLUDE" in sentence
    assert '["a",' in sentence


def test_an_unknown_key_in_the_file_is_refused_by_name() -> None:
    toml("chunk_token = 100")
    sentence = refused()
    assert "chunk_token" in sentence
    assert "headwater.toml" in sentence


def test_an_unknown_flag_is_refused_by_name() -> None:
    assert "chunk_token" in refused(chunk_token=100)


def test_a_weight_without_a_fusion_by_rank_is_refused_and_with_it_taken() -> None:
    with pytest.raises(SettingsError, match=r"HEADWATER_DENSE_WEIGHT .* value 2\.0: .* HEADWATER_FUSION=rrf"):
        Settings.load(dense_weight=2.0)
    assert Settings.load(fusion="rrf", dense_weight=2.0).dense_weight == 2.0
    assert Settings.load(dense_weight=1.0).fusion == "dbsf"


@pytest.mark.parametrize("content", [b"chunk_tokens = ", b"\xff\xfe", b"[[", b"a = 1\na = 2"])
def test_a_file_that_cannot_be_read_is_named(content: bytes) -> None:
    Path("headwater.toml").write_bytes(content)
    assert "headwater.toml" in refused()


# -- lists, paths, secrets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*.md", ("*.md",)),
        ("*.md, *.txt ,", ("*.md", "*.txt")),
        ('["a,b", "c d"]', ("a,b", "c d")),
        ("[]", ()),
        (" , ", ()),
    ],
)
def test_a_list_is_separated_by_commas_or_is_json(
    monkeypatch: pytest.MonkeyPatch, text: str, expected: tuple[str, ...]
) -> None:
    monkeypatch.setenv("HEADWATER_INCLUDE", text)
    assert Settings.load().include == expected


def test_a_list_in_the_file_is_a_list() -> None:
    toml('exclude = ["drafts/", "*.log"]')
    assert Settings.load().exclude == ("drafts/", "*.log")


def test_folders_are_absolute_and_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.setenv("HOME", str(tmp_path))
    real = Path(os.path.realpath(tmp_path)) / "real"
    assert Settings.load(folder="link").folder == real
    assert Settings.load(folder="~/real/../real").folder == real


def test_the_folder_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FolderError, match="no folder is given"):
        Settings.load().required_folder()
    with pytest.raises(FolderError, match="does not exist"):
        Settings.load(folder="gone").required_folder()
    with pytest.raises(FolderError, match="not a folder"):
        Settings.load(folder="file").required_folder()
    assert Settings.load(folder=".").required_folder() == Path(os.path.realpath(tmp_path))


def test_the_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", "s3cret")
    settings = Settings.load()
    assert settings.qdrant_api_key == "s3cret"
    assert "s3cret" not in repr(settings) + str(settings)
    toml("qdrant_api_key = 51423")
    monkeypatch.delenv("QDRANT_API_KEY")
    assert "51423" not in refused()


def test_settings_are_frozen() -> None:
    settings = Settings.load()
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]


def test_what_chunks_depend_on_changes_the_fingerprint_and_nothing_else_does() -> None:
    first = Settings.load().pipeline_fingerprint()
    for flags in (
        {"chunk_tokens": 100},
        {"model": "other"},
        {"document_prompt": "x"},
        {"max_file_bytes": 5},
        {"heading_context": True},
        {"archive_depth": 0},
        {"archive_bytes": 5},
        {"ocr": "eng+deu"},
    ):
        assert Settings.load(**flags).pipeline_fingerprint() != first
    for flags in ({"port": 100}, {"attempts": 9}, {"concurrency": 2}, {"qdrant_url": "http://x"}):
        assert Settings.load(**flags).pipeline_fingerprint() == first


@pytest.mark.parametrize("value", ["2", "eng+", "eng deu", "../x", "a" * 300])
def test_languages_of_ocr_that_are_none_are_refused_with_examples(value: str) -> None:
    with pytest.raises(SettingsError, match=r"HEADWATER_OCR .* such as eng or eng"):
        Settings.load(ocr=value)


def test_passwords_come_from_a_file_that_nobody_else_may_read(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    file.write_text("first\n\nsecond one \nfirst\n")
    file.chmod(0o640)
    settings = Settings.load(password_file=file)
    with pytest.raises(SettingsError, match="may be read by others: run 'chmod 600' on it"):
        settings.passwords()
    file.chmod(0o600)
    assert settings.passwords() == ("first", "second one ")
    before = settings.pipeline_fingerprint()
    file.write_text("another")
    assert settings.pipeline_fingerprint() not in (before, Settings.load().pipeline_fingerprint())
    file.unlink()
    with pytest.raises(SettingsError, match=r"cannot be read \(No such file or directory\)"):
        settings.passwords()


# -- for a child process ---------------------------------------------------------------------------------------

FLAGS = st.fixed_dictionaries(
    {},
    optional={
        "folder": st.sampled_from(["/", "/tmp/a b", "/tmp/\u00e9,x", "/tmp/[x]"]),
        "broker_url": st.sampled_from(["redis://h:1/2", "redis+socket:///tmp/a%20b"]),
        "qdrant_url": st.just("http://q:6333"),
        "qdrant_api_key": st.sampled_from(["5", "true", "null", '"k"', "[1]"]),
        "collection": st.sampled_from(["1", "docs", "null"]),
        "include": st.lists(st.text("a,[]*\"\\' ", min_size=1, max_size=5).filter(str.strip), max_size=3).map(tuple),
        "exclude": st.just(("x,y", "z")),
        "truncate_dim": st.integers(8, 500),
        "document_prompt": st.sampled_from(["passage: ", "{}", "1", "two\nlines", "#"]),
        "rescan_s": st.floats(1, 1e6),
        "precision": st.sampled_from(["auto", "fp32"]),
        "host": st.sampled_from(["127.0.0.1", "0.0.0.0"]),
        "port": st.integers(0, 65535),
    },
)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FLAGS)
def test_a_child_process_reads_the_same_settings_from_its_environment(flags: dict[str, Any]) -> None:
    settings = Settings.load(**flags)
    with pytest.MonkeyPatch.context() as child:
        for name, value in settings.to_environment().items():
            child.setenv(name, value)
        assert Settings.load() == settings


def test_a_flag_goes_before_the_file_in_the_child_too(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a file that opens the API to the network, and a flag that closes it again
    toml('host = "0.0.0.0"\nport = 8080\nprecision = "bf16"')
    settings = Settings.load(host="127.0.0.1", port=0, precision="auto")
    # When a child in the same directory is started
    for name, value in settings.to_environment().items():
        monkeypatch.setenv(name, value)
    # Then it does as the flags say
    assert Settings.load() == settings


def test_an_empty_prompt_is_no_prompt_in_the_child_too(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.load(query_prompt="")
    for name, value in settings.to_environment().items():
        monkeypatch.setenv(name, value)
    assert Settings.load().query_prompt == ""


@pytest.mark.parametrize("given", [{"source": "a/b"}, {"source": ".."}, {"sources": {"a b": "/srv"}}])
def test_a_name_of_a_folder_that_cannot_be_one_is_told_in_words(given: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="is no name of a folder: use up to 64 letters"):
        Settings.load(**given)

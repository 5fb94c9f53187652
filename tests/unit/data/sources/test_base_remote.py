"""Tars and Parquet behind a protocol of fsspec: the pairs, uids and pixels of local files, by range."""

import json
import os

import fsspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile

import clipmem
from clipmem.base.errors import InputError
from clipmem.base.sections import DataSection
from clipmem.cli import main
from clipmem.data.decoding import decode
from clipmem.data.export import export_pairs, write_cleaned
from clipmem.data.sources import files_state, open_source
from clipmem.models import openclip
from clipmem.models.embeddings import Embeddings
from clipmem.report.explorer.subject import open_subject
from tests.tiny import encoded_image
from tests.unit.data.sources.test_webdataset import pair_members, shard

SECRET = "Se/cr3t"


class Ranged(MemoryFileSystem):
    """A file system that counts the bytes that are asked for, as a store does."""

    protocol = "ranged"
    fetched = 0

    class File(AbstractBufferedFile):
        def _fetch_range(self, start, end):
            Ranged.fetched += end - start
            return self.fs.cat_file(self.path, start, end)

    def _open(self, path, mode="rb", block_size=None, **kwargs):
        path = self._strip_protocol(path)
        return Ranged.File(self, path, mode, block_size) if mode == "rb" else super()._open(path, mode, **kwargs)


class Denied(MemoryFileSystem):
    """A store that lets nobody read."""

    protocol = "denied"

    def info(self, path, **kwargs):
        raise PermissionError(13, "Forbidden")

    def _open(self, path, *args, **kwargs):
        raise PermissionError(13, "Forbidden")


@pytest.fixture(scope="module", autouse=True)
def protocols():
    for kind in (Ranged, Denied):
        fsspec.register_implementation(kind.protocol, kind, clobber=True)
    yield
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """Two tars, and the same pairs as Parquet."""
    folder = tmp_path_factory.mktemp("local")
    for k in range(2):
        members = pair_members(*range(4 * k, 4 * k + 4))
        shard(folder / "tars" / f"{k:04d}.tar", members)
    export_pairs(open_source(DataSection(path=str(folder / "tars"))), folder / "table", "parquet", shard=3)
    return folder


def copied(local, base):
    system, path = fsspec.core.url_to_fs(base)
    for file in local.rglob("*"):
        if file.is_file():
            system.pipe(f"{path}/{file.relative_to(local).as_posix()}", file.read_bytes())
    return base


@pytest.fixture(scope="module")
def s3():
    """The address of a bucket of a local server; its files are those of `local`."""
    pytest.importorskip("s3fs")
    server_of = pytest.importorskip("moto.server").ThreadedMotoServer
    server = server_of(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {**keys, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
            environment.setenv(name, value)
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"
    fsspec.filesystem("s3").clear_instance_cache()
    server.stop()


def check_same(local, base):
    first, second = f"{base}/tars/0000.tar", f"{base}/tars/0001.tar"
    for path, original in (
        (f"{base}/tars", "tars"),
        (f"{base}/tars/{{0000..0001}}.tar", "tars"),
        (f"{first}::{second}", "tars"),
        (second, "tars/0001.tar"),
        (f"{base}/table", "table"),
        (f"{base}/table/00001.parquet", "table/00001.parquet"),
    ):
        ours, theirs = clipmem.load_pairs(path), clipmem.load_pairs(str(local / original))
        pairs, expected = ours.pairs(), theirs.pairs()
        assert ours.title == path
        assert pairs.drop("image").equals(expected.drop("image"))
        assert ours.ledger.facts() == theirs.ledger.facts()
        for one, other in zip(
            ours.read(pairs["image"].to_list()), theirs.read(expected["image"].to_list()), strict=True
        ):
            assert one == other
            assert np.array_equal(decode(one, 24), decode(other, 24))


def test_memory_has_the_same_pairs_and_pixels(local):
    check_same(local, copied(local, "memory://same"))


@pytest.mark.filterwarnings("ignore")
def test_s3_has_the_same_pairs_and_pixels(local, s3):
    check_same(local, copied(local, f"{s3}/same"))


@pytest.mark.filterwarnings("ignore")
def test_shards_of_s3_are_embedded_by_shares(local, s3, tmp_path):
    copied(local, f"{s3}/shards")
    openclip.create("clipmem-micro", seed=1).save(tmp_path / "model")
    command = ["export", "embeddings", "--model", str(tmp_path / "model"), "--data"]
    for out, base, shares in (("remote", f"{s3}/shards", ["2/2", "1/2"]), ("local", str(local), [])):
        for share in shares:
            with pytest.raises(SystemExit) as ended:
                main([*command, f"{base}/tars", "--out", str(tmp_path / out), "--part", share])
            assert not ended.value.code
        main([*command, f"{base}/tars", "--out", str(tmp_path / out)])
    remote, here = (Embeddings.open(tmp_path / name) for name in ("remote", "local"))
    assert len(remote.parts) == 2
    assert remote.uids.equals(here.uids)
    assert torch.equal(remote.means().image, here.means().image)
    assert torch.equal(remote.means().text, here.means().text)


@pytest.mark.filterwarnings("ignore")
def test_s3_errors(local, s3):
    import boto3

    base = copied(local, f"{s3}/errors")
    for path in ("s3://no-such-bucket/a.tar", f"{base}/no.tar", f"{base}/tars/{{0000..0002}}.tar"):
        assert "no such file, folder or bucket" in refusal(path).got
    stream = open_source(DataSection(path=f"{base}/tars/0001.tar"))._file(f"{base}/tars/0001.tar").open("rb", 0)
    fsspec.filesystem("s3").pipe(f"{base}/tars/0001.tar", bytes(20_000))
    with pytest.raises(InputError) as error:
        stream.read(10)
    assert error.value.got == "a file that changed while it was read"
    user = boto3.client("iam")
    user.create_user(UserName="reader")
    nothing = {"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [nothing]})
    user.put_user_policy(UserName="reader", PolicyName="nothing", PolicyDocument=policy)
    key = user.create_access_key(UserName="reader")["AccessKey"]
    set_requests_without_checks(0)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        environment.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        fsspec.filesystem("s3").clear_instance_cache()
        try:
            for path in (f"{base}/tars/0000.tar", f"{base}/tars/{{0000..0001}}.tar", f"{base}/table"):
                error = refusal(path)
                assert error.got.startswith("no permission")
                assert key["SecretAccessKey"] not in str(error)
        finally:
            set_requests_without_checks("inf")
    fsspec.filesystem("s3").clear_instance_cache()


def set_requests_without_checks(number):
    from urllib.request import Request, urlopen

    address = f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
    urlopen(Request(address, str(number).encode(), {"Content-Type": "text/plain"})).close()


def refusal(path, **keys):
    with pytest.raises(InputError) as error:
        clipmem.load_pairs(path, **keys).pairs()
    assert all((error.value.what, error.value.got, error.value.hint))
    return error.value


def test_only_what_is_read_is_fetched(tmp_path):
    noise = [np.random.default_rng(k).bytes(2**20) for k in range(16)]
    images = [encoded_image(k) + data for k, data in enumerate(noise)]  # bytes after the end of a PNG are no error
    members = [
        (f"{k:02d}.{end}", data) for k, image in enumerate(images) for end, data in (("png", image), ("txt", b"a"))
    ]
    size = shard(tmp_path / "0.tar", members).stat().st_size
    table = pa.table({"image": pa.array(images, pa.binary()), "caption": [f"thing {k}" for k in range(16)]})
    pq.write_table(table, tmp_path / "0.parquet", row_group_size=2, compression="none")
    copied(tmp_path, "ranged://fetched")
    for name in ("0.tar", "0.parquet"):
        source = clipmem.load_pairs(f"ranged://fetched/{name}")
        references = source.pairs()["image"].to_list()
        assert Ranged.fetched < 2.5 * size
        Ranged.fetched = 0
        [data] = source.read(references[5:6])
        assert data in images
        assert 2**20 <= Ranged.fetched <= 5 * 2**20
        Ranged.fetched = 0


def test_cleaned_data_are_written_to_a_local_folder(local, tmp_path):
    base = copied(local, "memory://clean")
    for path in (f"{base}/tars", f"{base}/tars/{{0000..0001}}.tar", f"{base}/table"):
        source = clipmem.load_pairs(path)
        uids = source.pairs()["uid"]
        out = tmp_path / f"clean-{len(list(tmp_path.iterdir()))}"
        written = write_cleaned(source, out, [uids[0]], {uids[1]: "a new caption"})
        assert (written.kept, written.corrected, written.removed, written.same_format) == (6, 1, 1, True)
        again = clipmem.load_pairs(str(written.path)).pairs()
        assert again.height == 7
        assert set(uids[2:]) < set(again["uid"])


def test_tables_of_img2dataset_are_read(local, tmp_path):
    shard(tmp_path / "0.tar", pair_members(0, 1, 2))
    pl.DataFrame({"key": ["000", "7"], "status": ["success", "failed_to_download"]}).write_parquet(
        tmp_path / "0.parquet"
    )
    (tmp_path / "0_stats.json").write_text('{"successes": 4}')
    base = copied(tmp_path, "memory://img2dataset")
    ours, theirs = clipmem.load_pairs(f"{base}/0.tar"), clipmem.load_pairs(str(tmp_path / "0.tar"))
    assert ours.pairs().drop("image").equals(theirs.pairs().drop("image"))
    assert [problem.reason for problem in ours.problems] == [problem.reason for problem in theirs.problems]
    written = write_cleaned(ours, tmp_path / "clean", [ours.pairs()["uid"][0]])
    assert json.loads((written.path.parent / "0_stats.json").read_text()) == {"successes": 3}


def test_images_beside_a_remote_table(tmp_path):
    for k in range(3):
        (tmp_path / f"{k}.png").write_bytes(encoded_image(k))
    rows = {"image": [f"{k}.png" for k in range(4)], "caption": [f"thing {k}" for k in range(4)]}
    pl.DataFrame(rows).write_parquet(tmp_path / "pairs.parquet")
    source = clipmem.load_pairs(f"{copied(tmp_path, 'memory://paths')}/pairs.parquet")
    pairs = source.pairs()
    assert pairs["uid"].to_list() == clipmem.load_pairs(str(tmp_path / "pairs.parquet")).pairs()["uid"].to_list()
    assert source.ledger.left_out == 1
    assert source.read(pairs["image"].to_list())[0].startswith(b"\x89PNG")


def test_a_changed_tar_is_refused(local):
    base = copied(local, "memory://changed")
    source = clipmem.load_pairs(f"{base}/tars/0000.tar")
    references, before = source.pairs()["image"].to_list(), files_state(source.section)
    assert before == files_state(source.section)
    content = fsspec.filesystem("memory").cat("/changed/tars/0000.tar")
    fsspec.filesystem("memory").pipe("/changed/tars/0000.tar", content[:2000])
    assert files_state(source.section) not in {"", before}
    with pytest.raises(InputError) as error:
        source.read(references)
    assert error.value.got == "a shorter tar than before"
    fsspec.filesystem("memory").rm("/changed/tars/0000.tar")
    assert files_state(source.section) == ""


def test_truncated_files(local):
    tar, table = ((local / name).read_bytes() for name in ("tars/0000.tar", "table/00000.parquet"))
    fsspec.filesystem("memory").pipe(
        {"/cut/0.tar": tar[: tar.rindex(b"003.png") + 600], "/cut/0.parquet": table[: len(table) // 2]}
    )
    source = clipmem.load_pairs("memory://cut/0.tar")
    assert 0 < source.pairs().height < 4
    assert "broken or truncated tar" in {problem.reason for problem in source.problems}
    assert "not readable as Parquet" in refusal("memory://cut/0.parquet", source="parquet").got


def test_what_is_not_there_or_not_allowed(local):
    copied(local, "memory://refused")
    fsspec.filesystem("memory").pipe("/refused/pairs.csv", b"image,caption\na.png,thing\n")
    assert "no such file" in refusal("memory://refused/9.tar").got
    assert "no such file" in refusal("memory://refused/tars/{0000..0002}.tar").got
    assert "no permission" in refusal("denied://bucket/0.tar").got
    assert "no permission" in refusal("denied://bucket/{0..1}.tar").got
    assert "Parquet" in refusal("memory://refused/pairs.csv").expected
    assert "Parquet" in refusal("memory://refused/tars", source="imagefolder").expected


@pytest.mark.parametrize(
    "command",
    [
        "inspect PATH",
        "curate PATH",
        "export pairs PATH --to parquet --out new",
        "score --model ViT-B-32 --data PATH",
        "init new.toml --data PATH",
        "evaluate --model ViT-B-32/openai --data PATH",
        "audit --model ViT-B-32/openai --members PATH --nonmembers PATH",
    ],
)
def test_commands_refuse_a_secret_without_repeating_it(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (f"s3://key:{SECRET}@bucket/a.tar", f"a.tar::s3://key:{SECRET}@bucket/{{0..1}}.tar"):
        with pytest.raises(SystemExit) as ended:
            main([path if word == "PATH" else word for word in command.split()])
        text = "".join(capsys.readouterr())
        assert ended.value.code == 2
        assert "with credentials" in text
        assert SECRET not in text
        assert not list(tmp_path.iterdir())


def test_a_recipe_with_a_secret_is_refused_before_a_folder_is_made(tmp_path):
    for keys in ({"path": f"s3://key:{SECRET}@bucket/a.tar"}, {"path": "a.csv", "image_root": f"s3://k:{SECRET}@b"}):
        recipe = tmp_path / "recipe.toml"
        recipe.write_text("".join(f'data.{key} = "{value}"\n' for key, value in keys.items()))
        with pytest.raises(InputError) as error:
            clipmem.run(str(recipe), tmp_path / "run")
        assert SECRET not in str(error.value)
        assert not (tmp_path / "run").exists()


def test_data_that_a_folder_of_results_names_are_not_requested(local, tmp_path, monkeypatch):
    path = f"{copied(local, 'memory://named')}/tars"
    pairs = clipmem.load_pairs(path).pairs()
    pairs.select("uid", score=pl.lit(0.5)).write_parquet(tmp_path / "suspects.parquet")
    document = {"format": 1, "section": DataSection(path=path, source="webdataset").model_dump()}
    (tmp_path / "curate.json").write_text(json.dumps(document))
    monkeypatch.delenv("CLIPMEM_DOWNLOAD", raising=False)
    with pytest.raises(InputError) as error:
        open_subject(tmp_path)
    assert "a remote path" in error.value.got
    assert open_subject(tmp_path, path).source.title == path
    monkeypatch.setenv("CLIPMEM_DOWNLOAD", "1")
    assert open_subject(tmp_path).source.title == path


def test_an_output_is_never_inside_remote_data(local, tmp_path):
    source = clipmem.load_pairs(f"{copied(local, 'memory://outside')}/tars")
    assert export_pairs(source, tmp_path / "new", "webdataset") == 8

"""Checkpoint files: which weights are taken from them, that nothing in them is run, and the text of every refusal."""

import contextlib
import io
import os
import pickle
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from clipmem.base.errors import InputError
from clipmem.models.weights import find_weights, read_checkpoint

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(2.5)}
OTHER = {name: value + 1 for name, value in STATE.items()}


def refused(path, **named):
    with pytest.raises(InputError) as error:
        read_checkpoint(path, **named)
    return str(error.value)


def prefixed(state, prefix="module."):
    return {prefix + name: value for name, value in state.items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---- what is taken

TRAINER = {"epoch": 3, "name": "run-1", "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}
FORMS = {
    "bare": STATE,
    "trainer": {**TRAINER, "state_dict": STATE},
    "distributed": {**TRAINER, "state_dict": prefixed(STATE)},
    "compiled": {**TRAINER, "state_dict": prefixed(prefixed(STATE, "_orig_mod."), "module.")},
    "beside averaged": {**TRAINER, "state_dict": STATE, "state_dict_ema": OTHER},
    "model": {"model": STATE},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("zipped", [True, False])
def test_weights_of_every_form(tmp_path, form, zipped):
    path = tmp_path / "epoch_3.pt"
    torch.save(FORMS[form], path, _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(path)
    assert same(found.state, STATE)
    assert found.run == FORMS[form].get("name", "")


def test_safetensors(tmp_path):
    save_file(prefixed(STATE), tmp_path / "m.safetensors")
    assert same(read_checkpoint(tmp_path / "m.safetensors").state, STATE)


@pytest.mark.parametrize("key", ["state_dict_ema", "ema_state_dict", "model_ema", "ema"])
def test_averaged_weights_when_asked_for(tmp_path, key):
    path = tmp_path / "epoch_3.pt"
    counted = {**prefixed(OTHER), "n_averaged": torch.tensor(7)}  # as torch's AveragedModel saves it
    torch.save({**TRAINER, "state_dict": STATE, key: counted}, path)
    assert same(read_checkpoint(path).state, STATE)
    assert same(read_checkpoint(path, averaged=True).state, OTHER)
    torch.save({key: counted}, path)
    assert refused(path) == (
        f"checkpoint {path}: got averaged weights (EMA) only, expected one of state_dict, model_state_dict, model. "
        "Add #ema to the name."
    )
    torch.save({"state_dict": STATE}, path)
    assert refused(path, averaged=True) == (
        f"checkpoint {path}: got no averaged weights (EMA), expected one of state_dict_ema, ema_state_dict, model_ema, "
        "ema. Omit #ema."
    )


def test_a_prefix_that_not_all_have_stays(tmp_path):
    mixed = {**prefixed(STATE), "b": STATE["b"]}
    torch.save(mixed, tmp_path / "m.pt")
    assert same(read_checkpoint(tmp_path / "m.pt").state, mixed)


# ---- what is refused

NOTHING = "expected a state dict (parameter names and tensors), or a training checkpoint with one in state_dict. "


@pytest.mark.parametrize(
    ("document", "got"),
    [
        ([1, 2], "a list"),
        ({"epoch": 3}, "keys ['epoch']"),
        ({}, "keys []"),
        ({"state_dict": {}}, "an empty state dict"),
        ({"state_dict": {"a": 1.0}}, "'a', which is not a tensor"),
    ],
)
def test_files_without_weights(tmp_path, document, got):
    path = tmp_path / "m.pt"
    torch.save(document, path)
    assert refused(path) == f"checkpoint {path}: got {got}, {NOTHING}Save the model's state_dict."


def test_other_types_of_file(tmp_path):
    (tmp_path / "m.npz").write_bytes(b"")
    assert refused(tmp_path / "m.npz") == (
        f"checkpoint {tmp_path / 'm.npz'}: got the file extension '.npz', expected one of .safetensors, .pt, .pth, "
        ".bin, .ckpt. Save the model's state_dict as safetensors."
    )


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def evil_files(folder, mark):
    """Write the payload in every form in which a checkpoint may come; and show that it works."""
    payload = {"state_dict": {"a": Evil(mark)}}
    torch.save(payload, folder / "zip.pt")
    torch.save(payload, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    (folder / "bare.bin").write_bytes(pickle.dumps(payload))
    (folder / "bare.ckpt").write_bytes(pickle.dumps(payload, protocol=4))
    (folder / "named.safetensors").write_bytes(pickle.dumps(payload))
    torch.save(payload, folder / "zip.pth")
    assert not mark.exists()
    pickle.loads((folder / "bare.bin").read_bytes())
    assert mark.exists()
    mark.unlink()
    torch.load(folder / "zip.pt", weights_only=False)
    assert mark.exists()
    mark.unlink()
    return sorted(folder.iterdir())


@pytest.mark.parametrize("forced", [False, True])
def test_a_malicious_pickle_runs_nothing(tmp_path, monkeypatch, forced):
    (tmp_path / "files").mkdir()
    mark = tmp_path / "it-ran"
    files = evil_files(tmp_path / "files", mark)
    if forced:  # a variable by which users of old checkpoints turn the check off: not here
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    for path in files:
        for averaged in (False, True):
            message = refused(path, averaged=averaged)
            assert not mark.exists(), path
        if path.suffix != ".safetensors":
            assert message.startswith(f"checkpoint {path}: got a pickle with more than weights (")
            assert message.endswith(
                ", expected tensors, numbers and text. It was not loaded, since it can run code. "
                "Save the model's state_dict, preferably as safetensors."
            )
            assert "weights_only" not in message  # torch's own advice is to load it all the same


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_torchscript_program_is_refused(tmp_path):
    path = tmp_path / "ViT-B-32.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    assert refused(path) == (
        f"checkpoint {path}: got a TorchScript program, expected weights only. It was not loaded, since it can run "
        "code. Use a pretrained tag, such as ViT-B-32-quickgelu/openai, or save the model's state_dict."
    )


def whole():
    stream = io.BytesIO()
    torch.save({"state_dict": STATE, "name": "x"}, stream)
    return stream.getvalue()


def legacy():
    stream = io.BytesIO()
    torch.save({"state_dict": STATE}, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([whole(), legacy(), b""]),
    st.integers(0, 4000),
    st.binary(max_size=40),
    st.sampled_from(["m.pt", "m.bin", "m.safetensors"]),
)
def test_broken_bytes_are_an_input_error_or_weights(tmp_path, data, at, noise, name):
    path = tmp_path / name
    at %= len(data) + 1
    path.write_bytes(data[:at] + noise + data[at + len(noise) :])
    with contextlib.suppress(InputError):  # anything else that is raised fails the test
        assert read_checkpoint(path).state


def test_truncated_files(tmp_path):
    path = tmp_path / "m.pt"
    for data in (whole(), legacy()):
        for length in range(0, len(data), 37):
            path.write_bytes(data[:length])
            assert refused(path).startswith(f"checkpoint {path}: got ")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")
    assert "a file that does not load" in refused(path)


# ---- which file of a folder


def test_the_usual_names_come_first_and_safetensors_before_them(tmp_path):
    assert find_weights(tmp_path) is None
    for name in ("zz.bin", "model.safetensors", "open_clip_pytorch_model.bin", "open_clip_model.safetensors"):
        (tmp_path / name).touch()
        assert find_weights(tmp_path) == tmp_path / name
    assert find_weights(tmp_path).name == "open_clip_model.safetensors"


def test_several_of_unusual_names(tmp_path):
    (tmp_path / "b.pt").touch()
    assert find_weights(tmp_path) == tmp_path / "b.pt"
    for name in ("x.safetensors", "y.safetensors"):
        (tmp_path / name).touch()
    with pytest.raises(InputError) as error:
        find_weights(tmp_path)
    assert str(error.value) == (
        f"model folder {tmp_path}: got several weight files: x.safetensors, y.safetensors, expected one weight "
        "file, or one named open_clip_model.safetensors. Rename the file, or use "
        "ARCHITECTURE@FILE."
    )

"""One task of a multitask model as a model with one ordinary prompt, here and in PEFT."""

import json

import keras_hub
import numpy as np
import pytest
from keras import ops

import keras_mpt
from tests import tiny
from tests.models.classifiers import make

VOCABULARY, LENGTH, TASKS = 60, 5, 3


@pytest.mark.parametrize("kind", ["heads", "shared head", "heads of tokens", "backbone"])
def test_a_folded_model_gives_the_task_s_logits(kind):
    model = make(kind)
    folded = model.fold("b")
    assert type(folded) is type(model)
    assert type(folded.config) is keras_mpt.PromptTuningConfig
    assert folded.config.prompt_position == model.config.prompt_position
    assert folded.backbone is model.backbone
    x = tiny.inputs(model.backbone)
    wanted, other = (model.predict({**x, "task_ids": k}, verbose=0) for k in ("b", "a"))
    logits = folded.predict(x, verbose=0)
    assert logits.shape == wanted.shape
    assert np.abs(logits - wanted).max() <= 1e-6 * np.abs(wanted).max()
    assert np.abs(logits - other).max() > 0.1


def test_a_folded_head_has_the_task_s_classes_alone():
    model = make()
    folded = model.fold("a")
    assert folded.num_classes == 2
    kernel, bias = (ops.convert_to_numpy(v) for v in model.logits.weights)
    np.testing.assert_array_equal(ops.convert_to_numpy(folded.logits.kernel), kernel[:, :2])
    np.testing.assert_array_equal(ops.convert_to_numpy(folded.logits.bias), bias[:2])


def test_layers_before_the_output_are_copied():
    backbone = tiny.backbone("roberta")
    config = keras_mpt.MultitaskPromptTuningConfig(num_virtual_tokens=3, num_tasks=2)
    model = keras_mpt.models.PromptTunedTextClassifier(backbone, config, num_classes=[2, 3])
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    own, folded = model.head.weights(), model.fold(1).head.weights()
    assert len(own) == len(folded) == 4
    for name, variable in folded.items():
        columns = own[name].shape[-1] != variable.shape[-1]
        value = ops.convert_to_numpy(own[name])
        np.testing.assert_array_equal(
            ops.convert_to_numpy(variable), value[..., 2:] if columns else value
        )


def test_a_folded_model_s_weights_are_its_own_and_trained():
    model = make()
    folded = model.fold(0)
    before = [ops.convert_to_numpy(v) for v in model.weights]
    assert [v.path.split("/")[-1] for v in folded.trainable_variables] == [
        "prompt_embeddings",
        "kernel",
        "bias",
    ]
    for variable in folded.trainable_variables:
        variable.assign(np.zeros(variable.shape))
    for a, b in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(a, ops.convert_to_numpy(b))


def test_a_folded_model_s_adapter_is_an_ordinary_prompt_s(tmp_path):
    folded = make().fold("b")
    folded.save_adapter(tmp_path)
    fields = json.loads((tmp_path / "adapter_config.json").read_text())
    assert fields["peft_type"] == "PROMPT_TUNING"
    assert fields["num_virtual_tokens"] == 3
    assert not {"num_tasks", "num_ranks"} & set(fields)
    loaded = keras_mpt.load_adapter(folded.backbone, tmp_path)
    assert loaded.num_classes == 3
    for a, b in zip(folded.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(*(ops.convert_to_numpy(v) for v in (a, b)))


class TestInPeft:
    """PEFT runs beside us, on a small random GPT-2."""

    @pytest.fixture(autouse=True)
    def _libraries(self):
        self.peft = pytest.importorskip("peft", reason="PEFT is the reference here")
        self.transformers = pytest.importorskip("transformers", reason="PEFT's models")
        self.torch = pytest.importorskip("torch", reason="PEFT runs on PyTorch")

    def base(self):
        """GPT-2 of transformers, always with the same weights."""
        self.torch.manual_seed(0)
        sizes = {"vocab_size": VOCABULARY, "n_positions": 32, "n_embd": 16, "n_layer": 2}
        config = self.transformers.GPT2Config(**sizes, n_head=2, bos_token_id=0, eos_token_id=0)
        return self.transformers.GPT2LMHeadModel(config)

    def backbone(self, folder):
        """The same GPT-2 of keras-hub."""
        self.base().save_pretrained(folder)
        return keras_hub.models.GPT2Backbone.from_preset(str(folder))

    def data(self):
        """Token ids, and a mask with padding on the right."""
        ids = np.random.default_rng(0).integers(1, VOCABULARY, (3, 7))
        mask = np.ones_like(ids)
        mask[1, 4:] = 0
        return ids, mask

    def peft_logits(self, model, **extra):
        """PEFT's logits at the user's tokens."""
        ids, mask = (self.torch.tensor(v) for v in self.data())
        with self.torch.no_grad():
            logits = model.eval()(input_ids=ids, attention_mask=mask, **extra).logits
        return logits.numpy()[:, LENGTH:][self.data()[1] == 1]

    def our_logits(self, model, **extra):
        """Ours at the user's tokens."""
        ids, mask = self.data()
        x = {"token_ids": ids, "padding_mask": mask, **extra}
        return model.predict(x, verbose=0)[mask == 1]

    def test_a_folded_task_opens_there_with_the_logits_that_it_has_among_many(self, tmp_path):
        config = self.peft.MultitaskPromptTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=LENGTH, num_tasks=TASKS, num_ranks=2
        )
        multitask = self.peft.get_peft_model(self.base(), config)
        with self.torch.no_grad():
            for weight in multitask.prompt_encoder.parameters():
                weight.normal_()
        multitask.save_pretrained(tmp_path / "multitask")
        wanted = self.peft_logits(multitask, task_ids=self.torch.tensor([1, 1, 1]))

        model = keras_mpt.load_adapter(self.backbone(tmp_path / "base"), tmp_path / "multitask")
        folded = model.fold(1)
        folded.save_adapter(tmp_path / "folded")
        opened = self.peft.PeftModel.from_pretrained(self.base(), tmp_path / "folded")
        assert opened.peft_config["default"].peft_type == "PROMPT_TUNING"

        scale = np.abs(wanted).max()
        assert np.abs(self.peft_logits(opened) - wanted).max() <= 1e-5 * scale
        ours, alone = self.our_logits(model, task_ids=1), self.our_logits(folded)
        assert np.abs(alone - wanted).max() <= 1e-5 * scale
        assert np.abs(alone - ours).max() <= 1e-6 * scale
        assert np.abs(self.our_logits(model, task_ids=0) - wanted).max() > 0.01 * scale

    def test_an_ordinary_prompt_of_peft_s_gives_its_logits(self, tmp_path):
        config = self.peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH)
        theirs = self.peft.get_peft_model(self.base(), config)
        theirs.save_pretrained(tmp_path / "peft")
        ours = keras_mpt.load_adapter(self.backbone(tmp_path / "base"), tmp_path / "peft")
        wanted = self.peft_logits(theirs)
        error = np.abs(self.our_logits(ours) - wanted).max()
        assert error <= 1e-5 * np.abs(wanted).max()

"""What a keras-hub task has beside its backbone: its own weights and its own arguments."""

import keras
import keras_hub
import numpy as np
from keras import ops

import keras_mpt
from tests.families.configurations import FAMILIES
from tests.families.measure import inputs_of

CONFIG = keras_mpt.PromptTuningConfig(num_virtual_tokens=2, prompt_position="before")


def test_a_head_with_weights_of_its_own_is_kept_frozen_and_saved(tmp_path):
    task = keras_hub.models.EdRecSeq2SeqLM(FAMILIES["EdRec"].build())
    model = keras_mpt.prompt_tune(task, CONFIG)
    assert len(model.weights) == len(task.weights) + 1
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    kernel = ops.convert_to_numpy(task.lm_head.kernel)
    tasks = keras_mpt.MultitaskPromptTuningConfig(num_virtual_tokens=2, num_tasks=2)
    folded = keras_mpt.prompt_tune(task, tasks).fold(1)
    for mine in (model, loaded, folded):
        mine.trainable = True
        assert [v.path for v in mine.trainable_variables] == ["prompt/prompt_embeddings"]
        np.testing.assert_array_equal(ops.convert_to_numpy(mine.frozen_head.weights[0]), kernel)


def test_a_task_s_own_arguments_are_kept():
    backbone = FAMILIES["Gemma 4"].build()
    task = keras_hub.models.Gemma4CausalLM(None, backbone, final_logit_cap=0.01)
    model = keras_mpt.prompt_tune(task, CONFIG)
    assert type(model).from_config(model.get_config()).head_config == {"final_logit_cap": 0.01}
    logits = model.predict(inputs_of(backbone), verbose=0)
    assert 0.005 < np.abs(logits).max() <= 0.01


def test_the_main_task_is_chosen_where_a_backbone_has_several():
    from keras_mpt.splicing.positions import task_class

    found = task_class("CausalLM", FAMILIES["Gemma 4"].build())
    assert found is keras_hub.models.Gemma4CausalLM

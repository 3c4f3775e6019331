"""The shape of the house: few classes deep, abstract or final."""

import inspect

import keras
import pytest

import keras_mpt
from keras_mpt.decoding.decoder import Decoder
from keras_mpt.fitting.fitting import Fitting
from keras_mpt.fitting.targets import Targets
from keras_mpt.heads.head import Head
from keras_mpt.models.classifier import Classifier
from keras_mpt.models.language_model import LanguageModel
from keras_mpt.prompts.prompt import Prompt
from tests import tiny

BASES = [Fitting, Prompt, Head, Targets, Decoder]


def own(cls):
    """The classes of this package that a class stands on, itself included."""
    return [c for c in cls.__mro__ if c.__module__.startswith("keras_mpt")]


def leaves_and_inner(base):
    """The subclasses of a class that have none themselves, and those that have."""
    inner, leaves, waiting = [], [], [base]
    while waiting:
        cls = waiting.pop()
        below = [c for c in cls.__subclasses__() if c.__module__.startswith("keras_mpt")]
        waiting += below
        (inner if below else leaves).append(cls)
    return leaves, inner


@pytest.mark.parametrize("base", BASES)
def test_a_class_is_abstract_or_a_leaf(base):
    leaves, inner = leaves_and_inner(base)
    assert leaves and all(inspect.isabstract(c) for c in inner), inner
    assert not [c for c in leaves if inspect.isabstract(c)]
    assert max(len(own(c)) for c in leaves) <= 4


def test_models_stand_on_the_bases_that_the_architecture_names():
    models = keras_mpt.models
    classifiers = [models.PromptTunedTextClassifier, models.PromptTunedTokenClassifier]
    classifiers.append(models.PromptTunedQuestionAnswerer)
    languages = [models.PromptTunedCausalLM, models.PromptTunedSeq2SeqLM]
    base = [models.PromptTunedModel, Fitting]
    for classes, between in ((classifiers, [Classifier]), (languages, [LanguageModel])):
        for cls in classes:
            assert own(cls) == [cls, *between, *base]
    assert own(models.PromptTunedBackbone) == [models.PromptTunedBackbone, *base]
    assert own(keras_mpt.Distillation) == [keras_mpt.Distillation, Fitting]


def test_no_override_of_an_override():
    """What a base implements, at most one class below it implements anew; but for Keras's own."""
    allowed = set(dir(keras.Model)) | {"__init__", "always_frozen", "finish", "__abstractmethods__"}
    for leaf in leaves_and_inner(Fitting)[0]:
        defined = {}
        for cls in own(leaf):
            for name, value in vars(cls).items():
                is_abstract = getattr(value, "__isabstractmethod__", False)
                if callable(value) and not is_abstract and name not in allowed:
                    defined.setdefault(name, []).append(cls.__name__)
        twice = {name: where for name, where in defined.items() if len(where) > 2}
        assert not twice


def test_an_abstract_class_says_so():
    config = keras_mpt.PromptTuningConfig(num_virtual_tokens=2)
    with pytest.raises(TypeError, match="abstract"):
        keras_mpt.models.PromptTunedModel(tiny.backbone("plain"), config, head=None, targets=None)

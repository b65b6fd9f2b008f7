"""A virtual checkpoint is, to the bit, the live model it stands for, and can be a source."""

import shutil

import numpy as np
import pytest
import torch

from studio.errors import StudioError
from studio.merge.live import LiveModel
from studio.merge.methods import METHODS
from studio.merge.parameter_space import ParameterSpace
from studio.merge.virtual import Merged
from studio.models import Checkpoint, check_compatible
from tests.conftest import perturb, save_model

TOKENS = torch.tensor([[1, 40, 41, 42, 43, 44, 45, 46]])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_its_tensors_are_the_live_models(make_space, random_genome, method, tied, precision):
    sources = ("ja", "math") if method == "slerp" else ("ja", "math", "abel")
    space = make_space(sources=sources, method=method, tied=tied, filters=["mlp"])
    live = LiveModel(space, precision=precision, device="cpu")
    live.apply(random_genome(space))
    merged = Merged(space, random_genome(space), precision=precision, name="winner")
    expected = live.state_dict()
    assert merged.names() == list(expected)
    for name, tensor in expected.items():
        got = merged.get(name)
        assert got.dtype == merged.dtype == tensor.dtype and got.device.type == "cpu"
        assert got.shape == merged.shape(name) and torch.equal(got, tensor), name
    assert merged.parameters == sum(tensor.numel() for tensor in expected.values())
    assert merged.size == sum(tensor.nbytes for tensor in expected.values())


def test_a_tied_head_is_the_embedding(make_space, random_genome):
    merged = make_space(tied=True).checkpoint(random_genome(make_space(tied=True)), "fp32", "m")
    assert merged.tied and "lm_head.weight" not in merged.names()
    assert merged.shape("lm_head.weight") == merged.shape("model.embed_tokens.weight")
    assert torch.equal(merged.get("lm_head.weight"), merged.get("model.embed_tokens.weight"))


def test_a_tensor_it_has_not_is_a_key_error(make_space):
    space = make_space()
    merged = space.checkpoint(space.initial, "fp32", "m")
    for read in (merged.shape, merged.get):
        with pytest.raises(KeyError):
            read("model.layers.9.mlp.up_proj.weight")


def test_a_tensor_is_the_callers_own(make_space):
    space = make_space()
    merged = space.checkpoint(space.initial, "fp32", "m")
    before = merged.get("model.norm.weight").clone()
    merged.get("model.norm.weight").zero_()
    assert torch.equal(merged.get("model.norm.weight"), before)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", [{}, {"tied": True}, {"tied": True, "mixed": ("math",)}])
def test_loaded_it_answers_as_the_live_model(make_space, random_genome, family, precision):
    space = make_space(**family)
    live = LiveModel(space, precision=precision, device="cpu")
    live.apply(random_genome(space))
    model = space.checkpoint(random_genome(space), precision, "m").load()
    assert not model.training and model.dtype == live.model.dtype
    head, embedding = model.lm_head.weight, model.model.embed_tokens.weight
    assert (head is embedding) == space.tied
    assert model.generation_config.to_dict() == live.model.generation_config.to_dict()
    with torch.no_grad():
        assert torch.equal(model(TOKENS).logits, live.model(TOKENS).logits)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["Gemma", "Gemma2", "Gemma3", "Qwen2", "Qwen3", "scaled Llama"])
def test_what_is_stored_nowhere_is_right_when_loaded(tmp_path, random_genome, kind, precision):
    """Rotary frequencies, and the factor Gemma scales its embedding by."""
    space = ParameterSpace(*family_of(kind, tmp_path), method="task_arithmetic")
    live = LiveModel(space, precision=precision, device="cpu")
    live.apply(random_genome(space))
    model = space.checkpoint(random_genome(space), precision, "m").load()
    buffers = dict(live.model.named_buffers())
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, buffers[name]) and buffer.dtype == buffers[name].dtype
    with torch.no_grad():
        assert torch.equal(model(TOKENS).logits, live.model(TOKENS).logits)


def family_of(kind: str, folder) -> tuple[Checkpoint, list[Checkpoint]]:
    """A base and two sources of an architecture that the usual tiny family has not."""
    import transformers

    options = {
        "vocab_size": 320, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    name = "Gemma3Text" if kind == "Gemma3" else kind.rpartition(" ")[2]
    if kind == "scaled Llama":
        options["rope_parameters"] = {
            "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
        }  # fmt: skip
    config = getattr(transformers, f"{name}Config")(**options)
    opened = []
    for seed in range(3):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = transformers.AutoModelForCausalLM.from_config(config).eval()
        perturb(model, seed=seed)
        opened.append(Checkpoint.open(save_model(model, folder / str(seed))))
    return opened[0], opened[1:]


def test_loading_rounds_to_another_dtype(make_space, random_genome):
    merged = make_space().checkpoint(random_genome(make_space()), "fp32", "m")
    model = merged.load(torch.bfloat16)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, merged.get(name).bfloat16())
    assert model.config.dtype == torch.bfloat16 and merged.config.dtype == torch.float32


def test_loading_holds_one_tensor_beside_the_model(make_space, monkeypatch):
    space = make_space()
    merged = space.checkpoint(space.initial, "fp32", "m")
    asked = []

    def get(name):
        asked.append(name)
        return torch.zeros(merged.shape(name))

    monkeypatch.setattr(merged, "get", get)
    model = merged.load()
    assert sorted(asked) == sorted(space.tensors)
    assert not any(parameter.any() for parameter in model.parameters())


def test_loading_says_what_does_not_fit(make_space, monkeypatch):
    space = make_space()
    merged = space.checkpoint(space.initial, "fp32", "winner")

    def full(name):
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(merged, "get", full)
        with pytest.raises(StudioError, match="winner does not fit the memory of cpu"):
            merged.load()
    merged.config.num_hidden_layers = 2
    with pytest.raises(StudioError, match=r"disagree about model\.layers\.2"):
        merged.load()


def test_loading_leaves_initialization_as_it_was(make_space):
    space = make_space()
    space.checkpoint(space.initial, "fp32", "m").load()
    assert torch.nn.Linear(64, 64).weight.std() > 0.01


def test_it_describes_itself(make_space):
    space = make_space(mixed=("math",), tied=True)
    merged = space.checkpoint(space.initial, "bf16", "winner")
    assert (merged.name, merged.architecture, merged.layers) == ("winner", "MistralForCausalLM", 3)
    assert not merged.tied and not merged.config.tie_word_embeddings
    assert merged.config.dtype == torch.bfloat16
    assert space.template.config.dtype == torch.float32
    assert merged.models == space.models
    assert repr(merged) == f"Merged('winner', MistralForCausalLM, {merged.parameters:,} parameters)"


def test_its_licence_is_what_its_models_make_of_it(make_space, tmp_path):
    space = make_space()
    assert space.checkpoint(space.initial, "fp32", "m").licence == "apache-2.0"
    for licence, expected in (("cc-by-nc-4.0", "cc-by-nc-4.0"), ("mine", "mine"), (None, None)):
        folder = tmp_path / str(licence)
        shutil.copytree(space.sources[0].path, folder)
        (folder / "README.md").unlink()
        if licence:
            (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
        other = ParameterSpace(space.base, [Checkpoint.open(folder), *space.sources[1:]])
        assert other.checkpoint(other.initial, "fp32", "m").licence == expected


def test_it_speaks_as_the_first_source_with_a_chat_template(make_space, tmp_path):
    """Also from inside another merge."""
    space = make_space()
    for name in ("mute", "voice"):
        shutil.copytree(space.sources[0].path, tmp_path / name)
    (tmp_path / "mute" / "chat_template.jinja").unlink()
    (tmp_path / "voice" / "generation_config.json").write_text('{"max_new_tokens": 7}')
    sources = [Checkpoint.open(tmp_path / "mute"), Checkpoint.open(tmp_path / "voice")]
    own = ParameterSpace(space.base, sources)
    merged = own.checkpoint(own.initial, "fp32", "m")
    again = ParameterSpace(space.base, [merged, space.sources[1]])
    for model in (merged, again.checkpoint(again.initial, "fp32", "m")):
        assert model.tokenizer().chat_template == sources[1].tokenizer().chat_template
        assert model.generation_config().max_new_tokens == 7
        assert model.load().generation_config.max_new_tokens == 7
    assert LiveModel(again, device="cpu").model.generation_config.max_new_tokens == 7


def test_the_fingerprint_changes_with_whatever_changes_the_model(
    make_space, random_genome, tmp_path
):
    space = make_space()
    genome = random_genome(space)
    own = space.checkpoint(genome, "fp32", "one").fingerprint()
    assert len(own) == 32 and int(own, 16)
    assert make_space().checkpoint(genome, "fp32", "another name").fingerprint() == own
    nudged = genome.copy()
    nudged[0] = np.nextafter(nudged[0], 1)
    folder = tmp_path / "copy"
    shutil.copytree(space.sources[0].path, folder)
    same = ParameterSpace(space.base, [Checkpoint.open(folder), *space.sources[1:]])
    assert same.checkpoint(genome, "fp32", "m").fingerprint() == own
    (folder / "generation_config.json").write_text('{"max_new_tokens": 7}')
    others = [
        (space, nudged, "fp32"),
        (space, genome, "bf16"),
        (make_space(seed=1), genome, "fp32"),
        (make_space(normalize=True), genome, "fp32"),
        (make_space(method="dare_linear"), genome, "fp32"),
        (make_space(sources=("math", "ja", "abel")), genome, "fp32"),
        (same, genome, "fp32"),
    ]
    prints = {s.checkpoint(g, p, "one").fingerprint() for s, g, p in others}
    assert len(prints | {own}) == len(others) + 1


def test_it_can_be_a_source_again(make_space, random_genome):
    space = make_space()
    merged = space.checkpoint(random_genome(space), "fp32", "winner")
    sources = [merged, space.sources[0]]
    check_compatible(space.base, sources)
    again = ParameterSpace(space.base, sources)
    assert "winner" in again.names[0]
    genome = random_genome(again)
    twice = again.checkpoint(genome, "fp32", "winner of winners")
    assert twice.models == [space.base, *space.sources]
    live = LiveModel(again, device="cpu")
    live.apply(genome)
    for name, tensor in live.state_dict().items():
        assert torch.equal(tensor, twice.get(name))
    assert twice.fingerprint() != again.checkpoint(again.initial, "fp32", "w").fingerprint()


def test_it_can_be_all_there_is(make_space, random_genome):
    """Also where nothing real is left to take the configuration or the tokenizer from."""
    space = make_space()
    winners = [space.checkpoint(random_genome(space, seed), "fp32", f"w{seed}") for seed in (0, 1)]
    again = ParameterSpace(None, winners, method="slerp")
    live = LiveModel(again, device="cpu")
    live.apply(again.initial)
    twice = again.checkpoint(again.initial, "fp32", "both")
    with torch.no_grad():
        assert torch.equal(live.model(TOKENS).logits, twice.load()(TOKENS).logits)


def test_the_same_merge_twice_is_refused_whatever_it_is_called(make_space, random_genome):
    space = make_space()
    one, other = (space.checkpoint(random_genome(space), "fp32", name) for name in ("a", "b"))
    with pytest.raises(StudioError, match="b is listed twice"):
        ParameterSpace(space.base, [one, other])
    namesake = space.checkpoint(space.initial, "fp32", "a")
    assert ParameterSpace(space.base, [one, namesake]).models[1:] == [one, namesake]


def test_a_wrong_genome_or_precision_is_refused(make_space):
    space = make_space()
    with pytest.raises(StudioError, match="must lie between"):
        space.checkpoint(np.full(len(space.genes), 7.0), "fp32", "m")
    with pytest.raises(StudioError, match="no precision 'fp8'"):
        space.checkpoint(space.initial, "fp8", "m")


def test_it_keeps_the_genome_it_was_made_of(make_space, random_genome):
    space = make_space()
    genome = random_genome(space)
    merged = space.checkpoint(genome, "fp32", "m")
    before = merged.fingerprint()
    genome[:] = 0.5
    assert merged.fingerprint() == before


def test_its_documents_say_the_same_merge(make_space):
    merged = make_space().checkpoint(make_space().initial, "bf16", "m")
    assert set(merged.documents()) == {"genome.json", "mergekit.yaml"}
    assert "out_dtype: bfloat16" in merged.documents()["mergekit.yaml"]
    mixed = make_space(tied=True, mixed=("ja",))  # mergekit cannot say this one
    assert set(mixed.checkpoint(mixed.initial, "fp32", "m").documents()) == {"genome.json"}

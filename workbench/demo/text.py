"""The demo model's text side: a word-level tokenizer and a small, frozen UMT5 encoder with seeded weights.

Nothing here is trained: captions are made of about thirty words, and a random encoder already gives every word its own direction;
the transformer learns the rest.
"""

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from workbench.demo.moving_digits import COLOURS, DIRECTIONS, SPEEDS
from workbench.demo.settings import TextSettings

SPECIAL = ("<pad>", "</s>", "<unk>")


def words() -> list[str]:
    """Every word of the captions, special tokens first."""
    phrases = [*COLOURS, *map(str, range(10)), *DIRECTIONS, *SPEEDS, "a moving standing ,"]
    return [*SPECIAL, *sorted({word for phrase in phrases for word in phrase.split()})]


def build_tokenizer(settings: TextSettings) -> PreTrainedTokenizerFast:
    """One token a word, lower-cased, with `</s>` at the end, padded as the pipeline asks.

    >>> tokenizer = build_tokenizer(TextSettings())
    >>> tokenizer.convert_ids_to_tokens(tokenizer("A red 7 moving up, fast").input_ids)
    ['a', 'red', '7', 'moving', 'up', ',', 'fast', '</s>']
    """
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words())}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=settings.text_tokens,
    )


def build_text_encoder(settings: TextSettings) -> UMT5EncoderModel:
    """A frozen one-layer `UMT5EncoderModel`; orthogonal word vectors keep words apart.

    >>> build_text_encoder(TextSettings()).config.d_model
    64
    """
    torch.manual_seed(settings.seed)
    config = UMT5Config(
        vocab_size=len(words()),
        d_model=settings.dim,
        d_kv=16,
        d_ff=2 * settings.dim,
        num_layers=1,
        num_heads=4,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=32,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        is_encoder_decoder=False,
    )
    encoder = UMT5EncoderModel(config)
    torch.nn.init.orthogonal_(encoder.get_input_embeddings().weight, gain=8.0)
    return encoder.eval().requires_grad_(False)

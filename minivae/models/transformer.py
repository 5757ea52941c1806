"""What families with codes have in common, as scikit-learn's transformers."""

from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin


class Transformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin):
    """A family with `transform`; its `_n_features_out` is how many columns that gives."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # codes have the model's dtype, whatever X has
        return tags

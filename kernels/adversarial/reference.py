"""The two losses of a generative adversarial network: the specification.

A discriminator gives x the logit l(x); D(x) = sigmoid(l(x)) is its probability that x is data. A
generator invents x = G(z). Goodfellow et al. (2014) train the first to tell, the second to fool.
"""

from ..support.stable import sigmoid, softplus


def join_columns(left, right, both):
    """both (B, m + n) <- left (B, m) | right (B, n), row by row."""
    m = left.shape[1]
    both[:, :m], both[:, m:] = left, right


def adversarial_losses(logits, judged, d_scale, g_scale, d_loss, g_loss, dlogits, djudged):
    """The losses of both players, per row in nats, and the gradients by the logits of each.

    logits (B, 2): r | f, of a row of data and of one invention, as the discriminator learns from
    them. judged (B, 1): f again, as the generator learns from it, by a pass of its own: the
    gradient by it goes on to the invention. With s = sigmoid, 1 - s(a) = s(-a), and ln of both
    written with softplus, which does not overflow,

        d_loss = -ln D(x) - ln(1 - D(G(z))) = softplus(-r) + softplus(f)
        g_loss = -ln D(G(z))                = softplus(-f).

    For d of `d_scale * d_loss` dlogits = d_scale (-s(-r) | s(f)) (B, 2), and for d of
    `g_scale * g_loss` djudged = -g_scale s(-f) = g_scale (s(f) - 1) (B, 1). This is the loss of the
    generator that does not saturate: ln(1 - D(G(z))), which is what the discriminator's loss would
    make of it, has the gradient -s(f), that is 0 where the discriminator is sure, so that a bad
    generator would not learn. dlogits and djudged are both None or neither.
    """
    r, f, seen = logits[:, 0], logits[:, 1], judged[:, 0]
    d_loss[:] = softplus(-r) + softplus(f)
    g_loss[:] = softplus(-seen)
    if dlogits is not None:
        dlogits[:, 0], dlogits[:, 1] = -d_scale * sigmoid(-r), d_scale * sigmoid(f)
        djudged[:, 0] = -g_scale * sigmoid(-seen)

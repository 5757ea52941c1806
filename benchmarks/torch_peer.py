"""The VAE of `peers.py` in PyTorch: eager, and with torch.compile.

Functions over plain tensors, without nn.Module: the same kernels with less Python between them.
"""

import math

import torch
import torch.nn.functional as F

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Eager:
    """Loss, backward and a fused optimiser, step by step."""

    granule = 1  # train() takes any number of steps

    def __init__(self, problem, setting, X, arrays):
        torch.set_flush_denormal(True)  # before the pool starts, so that its threads inherit it
        self.threads = setting["threads"]
        torch.set_num_threads(self.threads)
        torch.manual_seed(0)
        self.problem, self.X = problem, torch.from_numpy(X)
        self.parameters = [torch.tensor(array, requires_grad=True) for array in arrays]
        make = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[problem.optimizer]
        # fused: one pass over the parameters; it beats foreach, the default, by 1.3 to 1.4
        self.optimizer = make(self.parameters, lr=problem.learning_rate, fused=True)

    def train(self, steps):
        n, batch = len(self.X), self.problem.batch
        while steps > 0:
            order = torch.randperm(n)  # one per epoch
            for rows in order.split(batch)[:steps]:
                self.step(rows)
            steps -= self.problem.steps_per_epoch

    def step(self, rows):
        x = self.X.index_select(0, rows)  # as fast as X[rows] or faster
        eps = torch.randn(len(rows), self.problem.latent)
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(self.parameters, x, eps).backward()  # no .item(): nothing waits
        self.optimizer.step()

    def loss(self, parameters, x, eps):
        return loss(self.problem, parameters, x, eps)

    def loss_and_gradients(self, x, eps):
        x, eps = torch.tensor(x), torch.tensor(eps)
        value = self.loss(self.parameters, x, eps)
        gradients = torch.autograd.grad(value, self.parameters)
        return value.item(), [gradient.numpy() for gradient in gradients]


def loss(problem, parameters, x, eps):
    """Mean over rows of nll + kl, in as few operations as there are."""
    B = x.shape[0]
    layers = list(zip(parameters[0::2], parameters[1::2], strict=False))
    n_encoder = len(problem.layers[0])
    mu, logvar = network(layers[:n_encoder], x).chunk(2, dim=1)  # both heads in one product
    std = torch.exp(0.5 * logvar)
    y = network(layers[n_encoder:], torch.addcmul(mu, std, eps))
    kl = (mu.square() + std.square() - logvar).sum() - mu.numel()  # twice the KL
    if problem.likelihood == "bernoulli":
        nll = F.binary_cross_entropy_with_logits(y, x, reduction="sum")
    else:
        logvar = parameters[-1]
        squares = torch.exp(-logvar) * F.mse_loss(y, x, reduction="sum")
        nll = 0.5 * (squares + x.numel() * (logvar + math.log(2 * math.pi))).squeeze()
    return torch.add(nll, kl, alpha=0.5) / B


def network(layers, h):
    """Dense layers with ReLU between them; weights are (in, out), which costs no more."""
    for weight, bias in layers[:-1]:
        h = F.relu(torch.addmm(bias, h, weight))
    weight, bias = layers[-1]
    return torch.addmm(bias, h, weight)


class Compiled(Eager):
    """torch.compile of the loss (then a fused optimiser), or of the whole step in one graph."""

    def __init__(self, problem, setting, X, arrays):
        super().__init__(problem, setting, X, arrays)
        import torch._inductor.config as inductor

        inductor.cpp.threads = setting["threads"]  # generated loops are cut for so many threads
        inductor.cpp_wrapper = setting.get("cpp_wrapper", False)  # calls kernels from C++
        for k, v in setting.get("ind", {}).items():
            t = inductor
            *a, b = k.split(".")
            for q in a:
                t = getattr(t, q)
            setattr(t, b, v)
        options = {"mode": setting.get("mode"), "fullgraph": True, "dynamic": False}
        if setting["graph"] == "loss":
            self.loss = torch.compile(super().loss, **options)
        else:
            self.values = [parameter.detach() for parameter in self.parameters]  # same memory
            self.moments = [[torch.zeros_like(v) for v in self.values] for _ in range(2)]
            self.count = torch.zeros(())
            self.compiled_step = torch.compile(self.whole_step, **options)
            self.step = self.run_whole_step

    @torch.no_grad()
    def run_whole_step(self, rows):
        self.compiled_step(self.values, *self.moments, self.count, self.X, rows)

    def whole_step(self, values, first, second, count, X, rows):
        """Batch, noise, gradient and update: without autograd's engine, without the optimiser."""
        x = X.index_select(0, rows)
        eps = torch.randn(len(rows), self.problem.latent)
        gradients = torch.func.grad(lambda v: loss(self.problem, v, x, eps))(values)
        rate = self.problem.learning_rate
        if self.problem.optimizer == "sgd":
            for value, gradient in zip(values, gradients, strict=True):
                value.sub_(rate * gradient)
            return
        count.add_(1)
        rate = rate / (1 - BETA1**count)
        unbias = 1 / (1 - BETA2**count)
        for value, m, v, gradient in zip(values, first, second, gradients, strict=True):
            m.mul_(BETA1).add_(gradient, alpha=1 - BETA1)
            v.mul_(BETA2).add_(gradient * gradient, alpha=1 - BETA2)
            value.sub_(rate * m / ((v * unbias).sqrt() + EPSILON))

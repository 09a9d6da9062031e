"""The transformer as one graph with explicit cache inputs and outputs; see PACKAGE.md.

B batch, T rows fed, P cached rows, S = P + T, N rows asked for, H K/V heads, D head dim,
V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdllm.export.adapters import ModelSpec, MoeSpec
from fastdllm.export.rope import query_rotation, rope_tables, rotation

CONTRIB = "com.microsoft"  # ONNX Runtime's own operators
MIXTURE = "fastdllm.mixture"  # domain of the node that stands for a mixture's experts in a trace
TOP = 3  # best candidates looked at: the two best tokens, and the mask token that may be among them


class RMSNorm(nn.Module):
    """Root mean square norm in f32; the weight multiplies in the model's dtype, as LLaDA does."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension."""
        if x.dtype == torch.float32:
            return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)
        return F.rms_norm(x.float(), (x.shape[-1],), None, self.eps).to(x.dtype) * self.weight


def take_rows(x: Tensor, rows: Tensor) -> Tensor:
    """Gather rows i64 [B,N] of x [B,T,size]."""
    return x.gather(1, rows[..., None].expand(-1, -1, x.shape[-1]))


def rotary_tables(spec: ModelSpec) -> dict[str, Tensor]:
    """Return the rotation's constants by the name of their buffer, see rope.py."""
    return rope_tables(spec.rope, spec.rotary_dim or spec.head_dim)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, *, opset: int) -> Tensor:
    """Rotate pairs (j, j + R/2), j < R/2, of x [B,H,T,D] in f32; cos, sin [B,T,R/2], R <= D.

    One operator where the opset has it.
    """
    if opset >= 23:
        return rotate_heads(x, cos, sin, heads=x.shape[1], head_dim=x.shape[-1])
    rotated = 2 * cos.shape[-1]
    wide = x.float()
    first, second = wide[..., :rotated].chunk(2, dim=-1)
    cos, sin = cos[:, None], sin[:, None]
    parts = [first * cos - second * sin, second * cos + first * sin]
    if rotated < x.shape[-1]:
        parts.append(wide[..., rotated:])
    return torch.cat(parts, dim=-1).to(x.dtype)


def rotate_heads(x: Tensor, cos: Tensor, sin: Tensor, *, heads: int, head_dim: int) -> Tensor:
    """Do the same by the operator of opset 23, which also takes heads side by side [B,T,H*D]."""
    rotated = 2 * cos.shape[-1]
    turned: Tensor = torch.onnx.ops.rotary_embedding(
        x.float(),
        cos,
        sin,
        rotary_embedding_dim=rotated if rotated < head_dim else 0,
        num_heads=heads,
    )
    return turned.to(x.dtype)


class SwiGlu(nn.Module):
    """A dense MLP, or one expert."""

    def __init__(self, hidden: int, size: int) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden, size, bias=False)
        self.up = nn.Linear(hidden, size, bias=False)
        self.down = nn.Linear(size, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [...,hidden] to the same."""
        y: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return y


class Experts(nn.Module):
    """SwiGLU experts behind a router; each row goes through the chosen ones.

    traced_as: while the model is traced, the name of this mixture; the experts are away then and
    one node stands for them (experts.py puts them back into the graph).
    """

    traced_as: str | None = None

    def __init__(self, hidden: int, moe: MoeSpec) -> None:
        super().__init__()
        self.moe = moe
        self.router = nn.Linear(hidden, moe.num_experts, bias=False)
        self.experts = nn.ModuleList(
            SwiGlu(hidden, moe.expert_size) for _ in range(moe.num_experts)
        )
        if moe.expert_bias:
            self.expert_bias = nn.Parameter(torch.zeros(moe.num_experts))
        if moe.shared_size:
            self.shared = SwiGlu(hidden, moe.shared_size)

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Choose experts for x [...,hidden]: f32 weights and i64 expert ids [...,chosen]."""
        moe = self.moe
        logits = F.linear(x.float(), self.router.weight.float())
        scores = logits.softmax(dim=-1) if moe.score == "softmax" else logits.sigmoid()
        ranking = scores + self.expert_bias.float() if moe.expert_bias else scores
        if moe.num_groups > 1:
            grouped = ranking.view(*x.shape[:-1], moe.num_groups, -1)
            of_group = grouped.topk(2, dim=-1).values.sum(dim=-1)
            best = of_group.topk(moe.groups_per_token, dim=-1).indices
            eligible = torch.zeros_like(of_group).scatter(-1, best, 1.0) > 0
            ranking = grouped.masked_fill(~eligible[..., None], -torch.inf).flatten(-2)
        chosen = ranking.topk(moe.experts_per_token, dim=-1).indices
        weights = scores.gather(-1, chosen)
        if moe.renormalize:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return weights * moe.scale, chosen

    def forward(self, x: Tensor) -> Tensor:
        """Map x [B,T,hidden] to the same."""
        weights, chosen = self.route(x)
        y = self.mix(x, chosen, weights.to(x.dtype))
        return y + self.shared(x) if self.moe.shared_size else y

    def mix(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Add up what the chosen experts i64 [B,T,k] make of x, weighted [B,T,k]."""
        if self.traced_as is not None:
            node: Tensor = torch.onnx.ops.symbolic(
                f"{MIXTURE}::Experts",
                [x, chosen, weights],
                {
                    "name": self.traced_as,
                    "experts": self.moe.num_experts,
                    "chosen": self.moe.experts_per_token,
                    "size": self.moe.expert_size,
                    "hidden": x.shape[-1],
                },
                dtype=x.dtype,
                shape=x.shape,
                version=1,
            )
            return node
        rows, ids, shares = x.flatten(0, -2), chosen.flatten(0, -2), weights.flatten(0, -2)
        y = torch.zeros_like(rows)
        for index in sorted(set(ids.flatten().tolist())):
            row, place = (ids == index).nonzero(as_tuple=True)
            y[row] += self.experts[index](rows[row]) * shares[row, place, None]
        return y.view_as(x)


class Layer(nn.Module):
    """Attention over cached and fresh rows, then the MLP.

    joined: while the model is traced for ONNX Runtime, attention is its one operator, which takes
    heads side by side and the cache as it lies (export/joined.py).
    """

    joined: bool = False

    def __init__(self, spec: ModelSpec, opset: int, index: int) -> None:
        super().__init__()
        self.spec = spec
        self.opset = opset
        hidden, head_dim = spec.hidden_size, spec.head_dim
        kv_size = spec.num_kv_heads * head_dim
        self.attention_norm = RMSNorm(hidden, spec.norm_eps)
        self.query = nn.Linear(hidden, spec.num_heads * head_dim, bias=spec.qkv_bias)
        self.key = nn.Linear(hidden, kv_size, bias=spec.qkv_bias)
        self.value = nn.Linear(hidden, kv_size, bias=spec.qkv_bias)
        self.output = nn.Linear(spec.num_heads * head_dim, hidden, bias=False)
        self.mlp_norm = RMSNorm(hidden, spec.norm_eps)
        dense = spec.moe is None or index < spec.moe.first_layer
        self.mlp = (
            SwiGlu(hidden, spec.mlp_size)
            if dense or spec.moe is None
            else Experts(hidden, spec.moe)
        )
        if spec.qk_norm:
            self.query_norm = RMSNorm(head_dim, spec.norm_eps)
            self.key_norm = RMSNorm(head_dim, spec.norm_eps)

    def _heads(self, x: Tensor, count: int) -> Tensor:
        return x.view(*x.shape[:-1], count, self.spec.head_dim).transpose(1, 2)

    def forward(
        self,
        x: Tensor,
        q_rotation: tuple[Tensor, Tensor],
        rotation: tuple[Tensor, Tensor],
        mask: Tensor,
        past: tuple[Tensor, Tensor],
        wanted: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Map x [B,T,hidden] to the same; also return all K and V rows [B,H,S,D].

        mask: bool [B,1,T,S]. wanted: i64 [B,N], the rows whose output is asked for. Every row gives
        K and V; the others stop there (the last layer: nothing but the head reads its output).
        """
        a = self.attention_norm(x)
        some = a
        if wanted is not None:
            x, some = take_rows(x, wanted), take_rows(a, wanted)
            q_rotation = (take_rows(q_rotation[0], wanted), take_rows(q_rotation[1], wanted))
            mask = take_rows(mask[:, 0], wanted)[:, None]
        attend = self._attend_joined if self.joined else self._attend
        q, k, v = self.query(some), self.key(a), self.value(a)
        attended, k, v = attend(q, k, v, q_rotation, rotation, mask, past)
        x = x + self.output(attended)
        return x + self.mlp(self.mlp_norm(x)), k, v

    def _attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        q_rotation: tuple[Tensor, Tensor],
        rotation: tuple[Tensor, Tensor],
        mask: Tensor,
        past: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attend with q [B,N,heads*D] to the past and k, v [B,T,H*D]; also return all K and V."""
        spec = self.spec
        q = self._heads(q, spec.num_heads)
        k, v = self._heads(k, spec.num_kv_heads), self._heads(v, spec.num_kv_heads)
        if spec.qk_norm:
            q, k = self.query_norm(q), self.key_norm(k)
        q = rotate(q, *q_rotation, opset=self.opset)
        k = rotate(k, *rotation, opset=self.opset)
        k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        grouped = spec.num_heads != spec.num_kv_heads
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped)
        return y.transpose(1, 2).flatten(2), k, v

    def _attend_joined(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        q_rotation: tuple[Tensor, Tensor],
        rotation: tuple[Tensor, Tensor],
        mask: Tensor,
        past: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Do the same by ONNX Runtime's operator. Only to be traced.

        It gets the mask where it wants what is added to the scores, and K/V heads that may be fewer
        than heads: attend_by_tiles() avoids that.
        """
        spec = self.spec
        if spec.qk_norm:
            q = self.query_norm(q.view(*q.shape[:-1], -1, spec.head_dim)).flatten(-2)
            k = self.key_norm(k.view(*k.shape[:-1], -1, spec.head_dim)).flatten(-2)
        q = rotate_heads(q, *q_rotation, heads=spec.num_heads, head_dim=spec.head_dim)
        k = rotate_heads(k, *rotation, heads=spec.num_kv_heads, head_dim=spec.head_dim)
        rows = (*past[0].shape[:2], mask.shape[-1], past[0].shape[3])
        y, k, v = torch.onnx.ops.symbolic_multi_out(
            f"{CONTRIB}::MultiHeadAttention",
            [q, k, v, None, None, mask, *past],
            {"num_heads": spec.num_heads, "scale": spec.head_dim**-0.5},
            dtypes=[q.dtype] * 3,
            shapes=[q.shape, rows, rows],
            version=1,
        )
        return y, k, v


class Transformer(nn.Module):
    """The whole graph. Its K and V outputs hold all S rows; the ONNX graph cuts them to C.

    opset: of the export, which decides between operators that compute the same.
    """

    def __init__(self, spec: ModelSpec, opset: int) -> None:
        super().__init__()
        self.spec = spec
        self.embedding = nn.Embedding(spec.vocab_size, spec.hidden_size)
        self.layers = nn.ModuleList(Layer(spec, opset, i) for i in range(spec.num_layers))
        self.final_norm = RMSNorm(spec.hidden_size, spec.norm_eps)
        self.head = nn.Linear(spec.hidden_size, spec.vocab_size, bias=False)
        if spec.tied_embeddings:
            self.head.weight = self.embedding.weight
        for name, table in rotary_tables(spec).items():
            self.register_buffer(name, table, persistent=False)

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        attention_mask: Tensor,
        logit_indices: Tensor,
        past: list[tuple[Tensor, Tensor]],
    ) -> list[Tensor]:
        """Run a pass: ids, positions [B,T], mask bool [B,1,T,S], indices [B,N], past [B,H,P,D].

        Returns token_ids, confidence, complement, second_confidence, entropy [B,N], logits f32
        [B,N,V], then key and value of every layer [B,H,S,D].
        """
        x = self.embedding(input_ids)
        if self.spec.embedding_scale != 1.0:
            x = x * self.spec.embedding_scale
        tables = {name: getattr(self, name) for name in rotary_tables(self.spec)}
        turn = rotation(self.spec.rope, position_ids, attention_mask, tables)
        q_turn = query_rotation(self.spec.rope, position_ids, turn)
        present: list[Tensor] = []
        last = self.spec.num_layers - 1
        for index, (layer, cached) in enumerate(zip(self.layers, past, strict=True)):
            wanted = logit_indices if index == last else None
            x, k, v = layer(x, q_turn, turn, attention_mask, cached, wanted)
            present += [k, v]
        logits = self.head(self.final_norm(x)).float()
        if self.spec.logits_scale != 1.0:
            logits = logits * self.spec.logits_scale
        return [*self.candidates(logits), logits, *present]

    def candidates(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Find the best tokens but the mask; the softmax is over the whole vocabulary.

        Looking at the three best and skipping the mask among them touches [N,3] numbers, where
        masking the logits would touch [N,V]. The complement is summed without the best one: near
        certainty 1 - confidence would lose in f32 what ranks the positions.
        """
        values, ids = logits.topk(TOP, dim=-1)
        is_mask = ids == self.spec.mask_token_id
        first = is_mask[..., 0]
        best = torch.where(first, ids[..., 1], ids[..., 0])
        best_value = torch.where(first, values[..., 1], values[..., 0])
        second_value = torch.where(first | is_mask[..., 1], values[..., 2], values[..., 1])
        # A power of 0 in the best one's place, while nothing else reads the numbers: then no copy.
        shifted = (logits - values[..., :1]).scatter(-1, ids[..., :1], -1e4)
        powers = shifted.exp()
        rest = powers.sum(dim=-1)
        best_power = (logits.gather(-1, ids[..., :1]) - values[..., :1]).exp()[..., 0]
        total = best_power + rest  # 1 + rest, or NaN for an infinite logit
        confidence = (best_value - values[..., 0]).exp() / total
        second_confidence = (second_value - values[..., 0]).exp() / total
        entropy = total.log() - (powers * shifted).sum(dim=-1) / total
        complement = torch.where(first, 1.0 - confidence, rest / total)
        return best, confidence, complement, second_confidence, entropy

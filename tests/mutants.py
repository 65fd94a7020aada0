"""Wrong versions of the library, each beside the test that must notice it.

A mutant is a piece of source text and its replacement in one function or class. To add one, add a line to `MUTANTS`.
"""

import __future__

import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import FunctionType

import test_augment
import test_conv_stem
import test_engine
import test_evaluate
import test_layers
import test_losses
import test_methods
import test_moco
import test_models
import test_monitor
import test_optim
import test_series
import test_swin
import test_transfer
import torch
from torch import nn

from minivit import augment, costs, engine, evaluate, losses, monitor, optim, presets, protocols, series, studies, transfer, weights
from minivit.layers import attention, block, norm, position, stems, window
from minivit.methods import base, moco, moco_v3, simclr, supervised
from minivit.models import early_convs, resnet, swin, vit


@contextmanager
def mutate(target: FunctionType | type, old: str, new: str) -> Iterator[None]:
    """Inside the ``with``, ``target`` runs with ``old`` replaced by ``new`` in its source; ``old`` must occur exactly once.

    The changed source is compiled in the target's module, and only the code objects are exchanged: whoever has imported
    the function, holds an instance of the class or has wrapped either meets the mutant.
    """
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(target)))
    assert source.count(old) == 1, f"{old!r} occurs {source.count(old)} times in {target.__qualname__}, not once"
    namespace = dict(vars(inspect.getmodule(inspect.unwrap(target))))
    # annotations stay text: some name what only type checkers import
    exec(compile(source.replace(old, new), f"<mutant of {target.__qualname__}>", "exec", __future__.annotations.compiler_flag), namespace)
    mutants = functions(namespace[target.__name__])
    pairs = [(original, mutants[name]) for name, original in functions(target).items() if name in mutants]
    kept = [original.__code__ for original, _ in pairs]
    for original, mutant in pairs:
        original.__code__ = mutant.__code__
    try:
        yield
    finally:
        for (original, _), code in zip(pairs, kept):
            original.__code__ = code


def functions(target: FunctionType | type) -> dict[str, FunctionType]:
    """The function itself, or the functions of a class, under all their wrappers. (PyTorch gives used optimizers a step of their own.)"""
    own = vars(target) if isinstance(target, type) else {target.__name__: target}
    return {name: inspect.unwrap(value) for name, value in own.items() if isinstance(inspect.unwrap(value), FunctionType)}


@dataclass(frozen=True)
class Mutant:
    target: FunctionType | type
    old: str
    new: str
    test: Callable[[], None]  # passes on the library, fails on the mutant


nt_xent = partial(test_losses.test_nt_xent_equals_the_loop, batch=11, dim=13, temperature=0.07)
info_nce = partial(test_losses.test_info_nce_equals_the_loop, offset=3, more=1, batch=11, dim=13, temperature=0.07)
stem_of_records = partial(test_conv_stem.test_a_stem_of_records_is_its_convolutions_one_after_the_other, ((3, 1, 5), (3, 2, 7), (4, 4, 11)), "bn")
crop = partial(test_augment.test_crop_equals_torchvision, 29, 41, 17, "bilinear")
vit_parity = test_models.test_vit_equals_torchvision
jitter = test_augment.test_jitter_equals_torchvision_in_each_images_order
swin_parity = {version: partial(test_swin.test_swin_equals_torchvision, version, (24, 40)) for version in (1, 2)}
swin_loop = partial(test_swin.test_shift_and_mask_equal_a_loop_over_neighbours, "cosine", 4)
rms_by_hand = partial(test_monitor.test_norms_and_rms_of_each_layer_are_those_worked_by_hand, optim.LAMB, 0.999, 1e-6)
simclr_parity = partial(test_methods.test_simclr_is_backbone_projector_and_loss, "resnet_pocket")

MUTANTS = {
    # losses
    "nt_xent keeps the anchor itself": Mutant(
        losses.nt_xent, 'logits = logits.scatter(1, self_pair[:, None], float("-inf"))', "pass", nt_xent
    ),
    "nt_xent sums": Mutant(
        losses.nt_xent, "cross_entropy(logits, positive)", 'cross_entropy(logits, positive, reduction="sum")', nt_xent
    ),
    "nt_xent's positives are off by one": Mutant(
        losses.nt_xent, "torch.cat([image + total, image])", "torch.cat([image + total, image]).roll(1)", nt_xent
    ),
    "nt_xent pairs neighbours, as the paper's order has it": Mutant(
        losses.nt_xent, "torch.cat([image + total, image])", "torch.arange(2 * batch) ^ 1", nt_xent
    ),
    "nt_xent leaves the positive out of the denominator": Mutant(
        losses.nt_xent,
        "return F.cross_entropy(logits, positive)",
        'at = positive[:, None]; return (logits.scatter(1, at, float("-inf")).logsumexp(1) - logits.gather(1, at)[:, 0]).mean()',
        nt_xent,
    ),
    "nt_xent does not normalise": Mutant(losses.nt_xent, "F.normalize(local, dim=-1) if normalise else local", "local", nt_xent),
    "nt_xent normalises over the batch": Mutant(losses.nt_xent, "F.normalize(local, dim=-1)", "F.normalize(local, dim=1)", nt_xent),
    "nt_xent always normalises": Mutant(
        losses.nt_xent, " if normalise else local", "", test_losses.test_without_normalising_lengths_count
    ),
    "nt_logistic's negatives include the positive": Mutant(
        losses._share_of_negatives, "~torch.eye(", "torch.eye(", partial(test_losses.test_nt_logistic_equals_the_loop, 11, 13, 0.07, False)
    ),
    "the semi-hard negative may be harder than the positive": Mutant(
        losses._share_of_negatives,
        "similarity >= similarity.diagonal()[:, None]",
        "~others",
        partial(test_losses.test_margin_triplet_equals_the_loop, 11, 13, 0.8, True),
    ),
    "the triplet loss swaps its sides": Mutant(
        losses.margin_triplet,
        "similarity - similarity.diagonal()[:, None] + margin",
        "similarity.diagonal()[:, None] - similarity + margin",
        partial(test_losses.test_margin_triplet_equals_the_loop, 11, 13, 0.8, False),
    ),
    "nt_xent multiplies by the temperature": Mutant(losses.nt_xent, "/ temperature", "* temperature", nt_xent),
    "nt_xent forgets where the local images start": Mutant(
        losses.nt_xent, ") + offset", ")", test_losses.test_gather_lets_one_process_stand_in_for_two
    ),
    "info_nce does not normalise the keys": Mutant(losses.info_nce, "F.normalize(_full(k), dim=-1)", "_full(k)", info_nce),
    "info_nce ignores the offset": Mutant(losses.info_nce, "device=q.device) + offset", "device=q.device)", info_nce),
    "losses stay in half precision": Mutant(
        losses._full,
        "x if x.dtype == torch.float64 else x.float()",
        "x",
        partial(test_losses.test_half_precision_is_computed_in_float32, losses.nt_xent, torch.bfloat16),
    ),
    "losses run under autocast": Mutant(
        losses.nt_xent,
        "enabled=False",
        "enabled=torch.is_autocast_enabled('cpu')",
        partial(test_losses.test_autocast_changes_nothing, losses.nt_xent, torch.float32),
    ),
    # layers
    "attention splits heads before Q, K, V": Mutant(
        attention.Attention,
        "(three h d) -> three b h n d",
        "(h three d) -> three b h n d",
        test_layers.test_attention_equals_pytorch,
    ),
    "attention joins heads in the wrong order": Mutant(
        attention.Attention, "b h n d -> b n (h d)", "b h n d -> b n (d h)", test_layers.test_attention_equals_a_double_loop
    ),
    "attention's softmax runs over the queries": Mutant(
        attention.attention_maps, "softmax(dim=-1)", "softmax(dim=-2)", test_layers.test_attention_maps_rows_sum_to_one
    ),
    "attention scales by the width": Mutant(
        attention.attention_maps, "** 0.5", "", test_layers.test_attention_equals_a_double_loop
    ),
    "the block's second residual is missing": Mutant(
        block.Block, "return x + ", "return ", test_layers.test_block_equals_its_two_equations
    ),
    "drop path does not scale up": Mutant(
        block.DropPath,
        "x * keep / (1 - self.rate)",
        "x * keep",
        test_layers.test_drop_path_keeps_the_expectation_and_drops_whole_images,
    ),
    "sincos swaps row and column": Mutant(
        position.sincos_2d,
        "[row.sin(), row.cos(), col.sin(), col.cos()]",
        "[col.sin(), col.cos(), row.sin(), row.cos()]",
        test_layers.test_sincos_equals_the_formula_on_a_grid_that_is_not_square,
    ),
    "sincos builds the transposed grid, as MoCo v3's code does": Mutant(
        position.sincos_2d,
        ".repeat_interleave(width)",
        ".repeat(width)",
        test_layers.test_sincos_equals_the_formula_on_a_grid_that_is_not_square,
    ),
    "learned positions are resampled as the transposed grid": Mutant(
        position.LearnedPositions,
        '"(h w) d -> 1 d h w", h=self.grid[0]',
        '"(w h) d -> 1 d h w", h=self.grid[0]',
        test_layers.test_learned_positions_resample_along_the_right_axis,
    ),
    "batch norm stores the biased variance": Mutant(
        norm.BatchNorm,
        " * count / (count - 1)",
        "",
        partial(test_layers.test_batch_norm_equals_pytorch_chunk_by_chunk, nn.BatchNorm1d, (7,), 3, True),
    ),
    "batch norm's groups are interleaved": Mutant(
        norm.BatchNorm,
        '"(g b) c ... -> g b c (...)"',
        '"(b g) c ... -> g b c (...)"',
        partial(test_layers.test_batch_norm_equals_pytorch_chunk_by_chunk, nn.BatchNorm2d, (7, 5, 11), 3, True),
    ),
    "patches are read column by column": Mutant(
        stems.PatchifyStem,
        "b d h w -> b (h w) d",
        "b d h w -> b (w h) d",
        test_layers.test_patchify_is_one_linear_map_of_each_patch,
    ),
    # models
    "the ViT's class token comes last": Mutant(
        vit.ViT,
        'torch.cat([repeat(self.cls_token, "1 1 d -> b 1 d", b=len(x)), x], dim=1)',
        'torch.cat([x, repeat(self.cls_token, "1 1 d -> b 1 d", b=len(x))], dim=1)',
        vit_parity,
    ),
    "sin-cos positions are not added": Mutant(
        position.SinCosPositions, "return x + code", "return x", test_models.test_permuted_patches_give_the_same_feature_without_positions_only
    ),
    "learned positions are not added": Mutant(
        position.LearnedPositions,
        "return x + (self.table if grid == self.grid else self.resampled(grid))",
        "return x",
        test_models.test_permuted_patches_give_the_same_feature_without_positions_only,
    ),
    "no positions still know the order": Mutant(
        position.NoPositions,
        "return x",
        "return x.cumsum(1)",
        test_models.test_permuted_patches_give_the_same_feature_without_positions_only,
    ),
    "the fused path forgets its scale": Mutant(
        attention.Attention,
        "F.scaled_dot_product_attention(q, k, v)",
        "F.scaled_dot_product_attention(q, k, v, scale=1.0)",
        test_layers.test_attention_equals_pytorch,
    ),
    "the ViT's final norm is missing": Mutant(vit.ViT, "return self.norm(x)", "return x", vit_parity),
    # augmentations
    "jitter leaves the hue alone": Mutant(augment.ColorJitter, "adjust_hue)", "lambda x, shift: x)", jitter),
    "jitter has one order for the batch": Mutant(augment.ColorJitter, "order[:, slot] == kind", "order[0, slot] == kind", jitter),
    "the hue turns the other way": Mutant(augment.adjust_hue, "sector + 6 * shift", "sector - 6 * shift", jitter),
    "contrast blends with each channel's own mean": Mutant(
        augment.adjust_contrast,
        "grayscale(x).mean(dim=(1, 2, 3), keepdim=True)",
        "x.mean(dim=(2, 3), keepdim=True)",
        jitter,
    ),
    "the crop has no antialias": Mutant(augment.resize_weights, "scale.clamp(min=1)", "torch.ones_like(scale)", crop),
    "the crop reads pixels outside its box": Mutant(augment.resize_weights, "weight = weight * in_box[:, None, :]", "pass", crop),
    "the crop's ratio is uniform": Mutant(
        augment.RandomResizedCrop,
        "uniform(math.log(self.ratio[0]), math.log(self.ratio[1]), (batch, tries), generator).exp()",
        "uniform(*self.ratio, (batch, tries), generator)",
        partial(test_augment.test_crop_boxes_are_distributed_as_torchvisions, 224, 224, (0.08, 1.0)),
    ),
    "one flip for the whole batch": Mutant(
        augment.base.Sometimes,
        "apply.to(x.device)[:",
        "apply.to(x.device)[:1].expand(len(x))[:",
        test_augment.test_flip_equals_torchvision,
    ),
    "the blur repeats the edge": Mutant(
        augment.blur_weights,
        "2 * (pixels - 1) - source",
        "pixels - 1",
        partial(test_augment.test_blur_equals_torchvision, 31, 37, 3),
    ),
    "the bicubic kernel is OpenCV's": Mutant(
        augment.geometry.cubic,
        "(1.5 * distance - 2.5)",
        "(1.25 * distance - 2.25)",
        partial(test_augment.test_crop_equals_torchvision, 29, 41, 17, "bicubic"),
    ),
    "quarter turns go with the clock": Mutant(
        augment.Rotation, "x.rot90(quarters,", "x.rot90(-quarters,", test_augment.test_rotation_equals_torchvision
    ),
    "the hole hangs from its centre": Mutant(
        augment.Cutout, "- side // 2)", ")", partial(test_augment.test_cutout_equals_torchvision, 17, 23, 0.5)
    ),
    "solarize spares its threshold": Mutant(
        augment.Solarize, "x >= self.threshold", "x > self.threshold", test_augment.test_solarize_equals_torchvision
    ),
    "Sobel's corners weigh as much as its middle": Mutant(
        augment.Sobel, "rows = gray[..., :-2, :] + 2 *", "rows = gray[..., :-2, :] +", test_augment.test_sobel_equals_scipys
    ),
    "TensorFlow's first jitter multiplies its brightness": Mutant(
        augment.ColorJitter, 'self.form == "tf_v1"', "False", test_augment.test_draws_are_uniform_where_they_should_be
    ),
    "the jitter forgets its form": Mutant(
        augment.ColorJitter,
        "*FORMS[self.form]",
        '*FORMS["torchvision"]',
        partial(test_augment.test_the_tensorflow_jitter_keeps_each_images_order, "tf_v2"),
    ),
    "a view does not normalise": Mutant(
        augment.View, "return (x - mean) / std", "return x", test_augment.test_normalisation_comes_last_and_can_be_undone
    ),
    "a view mistakes the width after a flip": Mutant(
        augment.View,
        'if size := getattr(operation, "size", None):\n                height = width = size',
        'height = width = getattr(operation, "size", None) or height',
        test_augment.test_views_know_the_width,
    ),
    # methods
    "SimCLR pairs neighbours of the joined batch": Mutant(
        simclr.SimCLR,
        "self.projector(h).chunk(2)",
        "(self.projector(h)[part::2] for part in (0, 1))",
        simclr_parity,
    ),
    "SimCLR's loss reads h": Mutant(simclr.SimCLR, "self.loss(z1, z2)", "self.loss(*h.chunk(2))", simclr_parity),
    "biases and norms decay": Mutant(
        base.param_groups,
        "parameter.dim() < 2 or ",
        "",
        partial(test_methods.test_param_groups_split_what_is_trained, "simclr", "resnet_pocket"),
    ),
    "class token and positions decay": Mutant(
        base.param_groups,
        ' or name.endswith(("cls_token", "mask_token", "positions.table"))',
        "",
        test_methods.test_param_groups_leave_tokens_undecayed,
    ),
    # optimizers
    "LARS decays after its ratio": Mutant(
        optim.LARS, 'g = g + group["weight_decay"] * w', "pass", partial(test_optim.test_lars_equals_the_rule, False, "random")
    ),
    "LARS adapts biases, too": Mutant(optim.LARS, "if w.ndim > 1:", "if True:", partial(test_optim.test_lars_equals_the_rule, False, "random")),
    "LARS always keeps lr out of its buffer": Mutant(
        optim.LARS, 'if group["lr_in_buffer"]:', "if False:", partial(test_optim.test_lars_equals_the_rule, True, "random")
    ),
    "LARS stops at a weight of zero": Mutant(
        optim.trust_ratio,
        "torch.where((norms[0] > 0) & (norms[1] > 0), eta * norms[0] / norms[1], 1.0)",
        "eta * norms[0] / norms[1]",
        partial(test_optim.test_lars_equals_the_rule, False, "zero"),
    ),
    # evaluation. Eight ways to a wrong number: the first five are those that the field has published.
    "1 the probe's backbone is not frozen": Mutant(
        supervised.LinearProbe,
        "with torch.no_grad():",
        "if True:",
        test_transfer.test_a_linear_probe_trains_its_classifier_and_nothing_else,
    ),
    "2 the probe's batch norm stays in training mode": Mutant(
        supervised.LinearProbe, "self.backbone.eval()", "pass", test_transfer.test_a_linear_probe_trains_its_classifier_and_nothing_else
    ),
    "3 the projection is taken for the feature": Mutant(
        presets.final_figures,
        "judge(method.backbone,",
        "judge(lambda x: method.projector(method.backbone(x)),",
        test_evaluate.test_evaluation_reads_the_feature_and_not_the_projection,
    ),
    "4 the best look at the test set is reported": Mutant(
        presets.train_and_judge,
        "run.flush()",
        'final["knn"] = max(run.history("knn")[1])',
        test_transfer.test_the_last_step_is_judged_and_not_the_best,
    ),
    "5 small images get the ImageNet stem": Mutant(
        resnet.ResNet, 'small = config.stem == "cifar"', "small = False", test_transfer.test_small_images_get_the_small_stem
    ),
    "6 the test images are in the bank": Mutant(
        evaluate.judge,
        "train_x, train_y = extract_features(fn, train,",
        "train_x, train_y = extract_features(fn, test,",
        test_evaluate.test_judge_names_test_images_by_training_images,
    ),
    "7 features are standardised by the test images": Mutant(
        evaluate.linear_probe,
        "mean, std = train_x.double().mean(0), train_x.double().std(0)",
        "mean, std = test_x.double().mean(0), test_x.double().std(0)",
        partial(test_evaluate.test_probe_equals_scikit_learns_logistic_regression, 1.0),
    ),
    "8 linear evaluation distorts colours": Mutant(
        protocols.Subject,
        "if isinstance(operation, RandomResizedCrop | HorizontalFlip)",
        "",
        test_transfer.test_linear_evaluation_has_no_colour_distortion_on_shapes,
    ),
    "evaluation in train mode": Mutant(
        evaluate.evaluating, "module.eval()", "module.train()", test_evaluate.test_features_come_from_eval_mode_and_nothing_is_changed
    ),
    "the probe decays twice as fast": Mutant(
        evaluate.linear_probe,
        "l2 / 2 * weight",
        "l2 * weight",
        partial(test_evaluate.test_probe_equals_scikit_learns_logistic_regression, 1e-2),
    ),
    "the probe does not standardise": Mutant(
        evaluate.linear_probe,
        "(part.double() - mean) / std for",
        "part.double() for",
        partial(test_evaluate.test_probe_equals_scikit_learns_logistic_regression, 1.0),
    ),
    "knn does not weight its votes": Mutant(
        evaluate.knn_predict,
        "((similarity - 1) / temperature).exp()",
        "torch.ones_like(similarity)",
        partial(test_evaluate.test_knn_equals_scikit_learns, 31, 0.1),
    ),
    "knn does not normalise the bank": Mutant(
        evaluate.knn_predict, "F.normalize(train_x, dim=1)", "train_x", partial(test_evaluate.test_knn_equals_scikit_learns, 7, 0.1)
    ),
    # MoCo
    "queue_nce counts the positive twice": Mutant(
        losses.queue_nce,
        "torch.cat([positive, q @ queue.T], dim=1)",
        "torch.cat([positive, q @ torch.cat([k, queue]).T], dim=1)",
        partial(test_moco.test_queue_nce_equals_the_loop, 7, 11, 3, 0.07),
    ),
    "queue_nce looks for the positive in the last column": Mutant(
        losses.queue_nce, "[positive, q @ queue.T]", "[q @ queue.T, positive]", partial(test_moco.test_queue_nce_equals_the_loop, 7, 11, 3, 0.07)
    ),
    "MoCo enqueues before the loss": Mutant(
        moco.MoCo, "            k = self.keys(key)\n", "            k = self.keys(key)\n            self.queue[: len(k)] = k\n",
        partial(test_moco.test_moco_is_queries_keys_and_loss, True),
    ),
    "MoCo overwrites the newest keys": Mutant(
        moco.MoCo, "self.oldest.fill_(end % self.queue_size)", "pass", test_moco.test_the_queue_is_a_ring_that_is_written_after_the_loss
    ),
    "MoCo does not bring its keys back": Mutant(
        moco.MoCo, "shuffled[order.argsort()]", "shuffled", partial(test_moco.test_moco_is_queries_keys_and_loss, True)
    ),
    "MoCo brings its keys back by the wrong order": Mutant(
        moco.MoCo, "shuffled[order.argsort()]", "shuffled[order]", partial(test_moco.test_moco_is_queries_keys_and_loss, True)
    ),
    "MoCo does not shuffle": Mutant(
        moco.MoCo, "if not self.shuffle:", "if True:", test_moco.test_groups_normalise_apart_and_shuffling_mixes_them
    ),
    "MoCo's keys have a gradient": Mutant(
        base.momentum_copy, ".requires_grad_(False)", "", partial(test_moco.test_key_side_starts_as_a_copy_and_never_has_a_gradient, test_moco.MoCo)
    ),
    "MoCo v3 does not cross the views": Mutant(
        moco_v3.MoCoV3,
        "z2 = self.keys(x2)",
        "z2 = self.keys(x1)",
        partial(test_moco.test_v3_crosses_the_views_and_predicts_on_the_query_side_only, True, None),
    ),
    "MoCo v3 predicts on the key side": Mutant(
        moco_v3.MoCoV3,
        "return self.momentum_projector(self.momentum_backbone(x))",
        "return self.predictor(self.momentum_projector(self.momentum_backbone(x)))",
        partial(test_moco.test_v3_crosses_the_views_and_predicts_on_the_query_side_only, True, None),
    ),
    "MoCo v3 forgets 2τ": Mutant(
        moco_v3.MoCoV3, "2 * temperature if scale is None", "1 if scale is None",
        partial(test_moco.test_v3_crosses_the_views_and_predicts_on_the_query_side_only, True, None),
    ),
    "MoCo v3 ramps the wrong way": Mutant(
        moco_v3.MoCoV3, "(1 + math.cos(math.pi * progress))", "(1 - math.cos(math.pi * progress))", test_moco.test_momentum_ramp
    ),
    "MoCo v3's projector does not follow": Mutant(
        moco_v3.MoCoV3, "follow(self.momentum_projector, self.projector, momentum)", "pass",
        test_moco.test_one_average_a_step_over_backbone_and_projector,
    ),
    "the momentum encoder follows too fast": Mutant(
        base.follow, "1 - momentum", "momentum", test_moco.test_follow_is_the_moving_average_and_keeps_what_is_equal
    ),
    "ViT pools before a norm that is there": Mutant(
        vit.ViT, 'nn.Identity() if config.pool == "avg_no_norm" else', "", test_models.test_pooling_reads_the_tokens_it_says
    ),
    "ViT-BN normalises before attention, too": Mutant(
        block.Block, "NORMS[norms[0]](dim)", "NORMS[norms[1]](dim)", test_models.test_vit_bn_has_pytorchs_batch_norm_where_it_says
    ),
    "LAMB forgets its bias correction": Mutant(
        optim.LayerWise, "m / (1 - beta1**steps)", "m", partial(test_optim.test_lamb_equals_the_algorithm, "random")
    ),
    "LAMB decays after its ratio": Mutant(
        optim.LAMB, 'update += group["weight_decay"] * w', "pass", partial(test_optim.test_lamb_equals_the_algorithm, "random")
    ),
    "LAMB adapts vectors": Mutant(optim.LAMB, "if w.ndim > 1:", "if True:", partial(test_optim.test_lamb_equals_the_algorithm, "random")),
    # Swin
    "Swin rolls the wrong way": Mutant(
        swin.SwinBlock, "x.roll((-shift[0], -shift[1]), dims=(1, 2))", "x.roll(shift, dims=(1, 2))", swin_parity[1]
    ),
    "Swin does not roll back": Mutant(swin.SwinBlock, "x = x.roll(shift, dims=(1, 2))", "pass", swin_loop),
    "Swin has no mask": Mutant(
        swin.SwinBlock,
        "shift_mask(height, width, window, shift, x.device) if any(shift) else None",
        "None",
        partial(test_swin.test_opposite_borders_do_not_see_each_other, 2),
    ),
    "Swin shifts windows that cover the map": Mutant(
        swin.SwinBlock, "self.shifted and size > m", "self.shifted", partial(test_swin.test_shift_and_mask_equal_a_loop_over_neighbours, "dot", 2)
    ),
    "Swin never shifts": Mutant(swin.SwinBlock, "m // 2 if self.shifted", "0 if self.shifted", swin_loop),
    "the masks of windows belong to images": Mutant(
        window.WindowAttention, '"(b w) n (three h d) -> three b (w h) n d"', '"(w b) n (three h d) -> three b (w h) n d"', swin_loop
    ),
    "Swin's mask is open along rows": Mutant(
        window.shift_mask, "2.0 * below[:, None] + right", "0.0 * below[:, None] + right", test_swin.test_a_fresh_mask_closes_fifteen_windows
    ),
    "V2 takes ln for log2": Mutant(position.spaced, "torch.log2(", "torch.log(", test_swin.test_coordinates_of_the_fact_sheet),
    "V2's coordinates are linear": Mutant(
        position.spaced, 'coords == "linear"', 'coords != "paper"', test_swin.test_coordinates_of_the_fact_sheet
    ),
    "V2 forgets the window of its training": Mutant(
        position.ContinuousPositionBias, "pair(pretrained_window or window)", "pair(window)", test_swin.test_coordinates_of_the_fact_sheet
    ),
    "V2's bias is not bounded": Mutant(
        position.ContinuousPositionBias, "self.limit * table.sigmoid()", "table", test_swin.test_the_first_bias_is_eight_in_v2_and_zero_in_v1
    ),
    "V2 keeps its bias for ever": Mutant(
        position.ContinuousPositionBias, "self.kept[0] != state", "False", test_swin.test_the_table_is_kept_at_inference_until_a_weight_changes
    ),
    "offsets are from query to key": Mutant(
        position.relative_index, "t[:, None] - t[None, :]", "t[None, :] - t[:, None]", test_swin.test_the_index_of_two_by_two
    ),
    "V2's norm comes before the branch": Mutant(
        swin.SwinBlock, "x + self.drop_path(norm(branch(x)))", "x + self.drop_path(branch(norm(x)))", swin_parity[2]
    ),
    "V2's norm comes after the sum": Mutant(
        swin.SwinBlock, "x + self.drop_path(norm(branch(x)))", "norm(x + self.drop_path(branch(x)))", swin_parity[2]
    ),
    "V2's norm undoes drop path": Mutant(
        swin.SwinBlock, "self.drop_path(norm(branch(x)))", "norm(self.drop_path(branch(x)))", test_swin.test_three_places_of_the_norm
    ),
    "V2's norms start at one": Mutant(
        swin.SwinBlock, "nn.init.zeros_(parameter)", "pass", test_swin.test_a_fresh_v2_block_is_the_identity_and_only_its_norms_have_a_gradient
    ),
    "V2's keys have a bias": Mutant(window.WindowAttention, "torch.zeros_like(self.q_bias)", "self.q_bias", swin_parity[2]),
    "V2's scale has no end": Mutant(
        window.WindowAttention, ".clamp(max=math.log(100))", "", test_swin.test_the_scale_of_cosines_stops_at_a_hundred_and_does_not_come_back
    ),
    "V2's scale is clamped after exp": Mutant(
        window.WindowAttention,
        ".clamp(max=math.log(100)).exp()",
        ".exp().clamp(max=0.01)",
        test_swin.test_the_scale_of_cosines_stops_at_a_hundred_and_does_not_come_back,
    ),
    "V2 does not normalise its keys": Mutant(
        window.WindowAttention, "F.normalize(k, dim=-1)", "k", test_swin.test_cosine_attention_does_not_see_the_scale_of_its_input
    ),
    "merging takes columns for rows": Mutant(
        swin.PatchMerging, "(dx dy d)", "(dy dx d)", test_swin.test_merging_reads_the_rows_first_and_has_its_norm_where_it_says
    ),
    "merging has V1's norm in V2": Mutant(
        swin.PatchMerging,
        "self.norm(self.reduction(x))",
        "self.reduction(x)",
        test_swin.test_merging_reads_the_rows_first_and_has_its_norm_where_it_says,
    ),
    "Swin's mask token is put in before the stem's norm": Mutant(
        swin.Swin,
        "x = self.swap_in_mask_token(x, mask)",
        "x = self.stem_norm(self.swap_in_mask_token(x, mask))",
        test_swin.test_mask_token_stands_in_after_the_stem_and_before_the_positions,
    ),
    "tables are resized as they lie in the file": Mutant(
        weights._fitting_tables,
        'rearrange(table, "(y x) heads -> heads y x", y=rows)',
        "table.reshape(-1, rows, cols)",
        test_swin.test_v1_tables_of_another_window_are_resized,
    ),
    "position biases decay": Mutant(
        base.param_groups, ' or "position_bias." in name', "", partial(test_swin.test_no_decay_for_what_the_official_code_spares, "swin_v2_pocket")
    ),
    "sequential attention keeps every turn": Mutant(
        window.in_turns,
        'checkpoint(attention, rearrange(turn, "b w n d -> (b w) n d"), some, use_reentrant=False)',
        'attention(rearrange(turn, "b w n d -> (b w) n d"), some)',
        partial(test_swin.test_checkpointing_and_sequential_attention_change_memory_and_nothing_else, 1),
    ),
    "the activation monitor takes images for channels": Mutant(
        monitor.ActivationMonitor,
        "x.var(dim=1",
        "x.var(dim=0",
        partial(test_swin.test_activation_monitor_sees_what_each_block_gives, "swin_v2_pocket"),
    ),
    "a Swin at another window stretches its coordinates": Mutant(
        transfer.at_window, "None if stretched else", "None if True else", partial(test_transfer.test_a_swin_at_another_window, "log")
    ),
    "the most peaked head is the mean of all heads": Mutant(
        protocols.AttentionPeaks,
        "mean(dim=(0, 2)).max()",
        "mean(dim=(0, 2)).mean()",
        test_transfer.test_depth_profile_sees_amplitudes_and_the_most_peaked_head,
    ),
    # conv stems
    "a conv stem is linear: no ReLU between its convolutions": Mutant(
        stems.ConvStem, "modules.append(nn.ReLU(inplace=True))", "pass", stem_of_records
    ),
    "a conv stem ends with a norm": Mutant(
        stems.ConvStem,
        "nn.Conv2d(channels, dim, 1))",
        "nn.Conv2d(channels, dim, 1), BatchNorm(dim))",
        partial(test_conv_stem.test_stems_are_the_papers_tables, "c_4gf"),
    ),
    "a conv stem's convolutions have biases beside their norms": Mutant(
        stems.ConvStem, 'bias=norm == "none"', "bias=True", partial(test_conv_stem.test_stems_are_the_papers_tables, "s2_4gf")
    ),
    "a stem's patches are padded": Mutant(early_convs.stem, "0 if kernel == stride else 1", "1", stem_of_records),
    "no ReLU after the patches' norm": Mutant(stems.PatchifyBatchNormStem, ".relu()", "", test_conv_stem.test_batch_norm_and_relu_after_patches),
    "LayerNorm over the whole map": Mutant(
        norm.PixelLayerNorm,
        'rearrange(super().forward(rearrange(x, "b c h w -> b h w c")), "b h w c -> b c h w")',
        "nn.functional.group_norm(x, 1, self.weight, self.bias, 1e-6) if x.dim() == 4 else super().forward(x)",
        partial(test_conv_stem.test_a_stem_of_records_is_its_convolutions_one_after_the_other, ((3, 2, 5), (2, 2, 7)), "ln"),
    ),
    "the hybrid takes its columns for rows": Mutant(
        resnet.ResNetStem, "b d h w -> b (h w) d", "b d h w -> b (w h) d", test_conv_stem.test_the_hybrids_stem_is_torchvisions_resnet
    ),
    "flops are counted twice": Mutant(
        costs.complexity, "get_total_flops() // 2", "get_total_flops()", test_conv_stem.test_costs_of_a_small_vit_by_hand
    ),
    "attention maps are no activations": Mutant(
        costs._noting, "append(math.prod(out_shape))", "append(math.prod(out_shape) * (len(out_shape) != 3))",
        test_conv_stem.test_costs_of_a_small_vit_by_hand,
    ),
    # studies
    "the distribution leaves out what ties": Mutant(studies.edf, "[:, None] <= ", "[:, None] < ", test_conv_stem.test_edf_by_hand),
    "a tie at a distance is lost": Mutant(
        studies.behind_best, "np.round(", "(lambda distances, _: distances)(", test_conv_stem.test_distances_to_the_best_run
    ),
    "the distribution forgets diverged runs": Mutant(
        studies.edf,
        "np.asarray(errors, dtype=float)[:, None]",
        "np.asarray([e for e in errors if e == e] or [9.0])[:, None]",
        test_conv_stem.test_edf_by_hand,
    ),
    "a diverged run counts as the best": Mutant(studies.near_best, "nan=span", "nan=0.0", test_conv_stem.test_distances_to_the_best_run),
    "a bootstrap without replacement": Mutant(
        studies.edf_band, "len(errors))", "len(errors), replace=False)", test_conv_stem.test_a_bootstrap_band_is_binomial_at_each_level
    ),
    "a search is uniform and not log-uniform": Mutant(
        studies.draw,
        "low * (high / low) ** place",
        "low + (high - low) * place",
        test_conv_stem.test_draws_are_log_uniform_and_take_the_same_place_in_every_interval,
    ),
    "lr and weight decay are drawn as one": Mutant(
        studies.draw,
        'generator_of("search", name, seed)',
        'generator_of("search", seed)',
        test_conv_stem.test_draws_are_log_uniform_and_take_the_same_place_in_every_interval,
    ),
    # instability
    "StableAdamW's clip is inverted, as in a published code": Mutant(
        optim.StableAdamW, "rms.clamp(min=1)", "rms.clamp(max=1)", test_optim.test_stable_adamw_equals_its_algorithm
    ),
    "StableAdamW's clip leaves the decay alone": Mutant(
        optim.StableAdamW,
        'w.sub_(group["lr"] / rms.clamp(min=1) * update)',
        'w.sub_(group["lr"] * (update + (1 / rms.clamp(min=1) - 1) * (update - group["weight_decay"] * w)))',
        test_optim.test_stable_adamw_equals_its_algorithm,
    ),
    "StableAdamW's ε stands outside the square": Mutant(
        optim.StableAdamW, 'clamp(min=group["eps"] ** 2)', 'clamp(min=group["eps"])', test_optim.test_stable_adamw_equals_its_algorithm
    ),
    "the constant schedule has no warm-up": Mutant(
        optim.warmup_constant, "(step + 1) / max(warmup, 1)", "1.0", test_optim.test_the_constant_schedule_is_the_cosines_warm_up_and_then_one
    ),
    "nothing is clipped": Mutant(
        engine.take_step,
        "torch.nn.utils.clip_grad_norm_",
        "(lambda *_: None)",
        test_engine.test_a_part_whose_gradient_is_clipped_to_nothing_moves_by_decay_alone,
    ),
    "gradients are clipped before the monitor looks": Mutant(
        engine.take_step,
        "    loop.scaler.unscale_(loop.optimizer)\n",
        "    loop.scaler.unscale_(loop.optimizer)\n"
        "    [torch.nn.utils.clip_grad_norm_(loop.method.get_submodule(part).parameters(), norm) for part, norm in loop.clip.items()]\n",
        test_monitor.test_the_monitor_sees_the_gradient_before_it_is_clipped,
    ),
    "one median for the whole run": Mutant(series.running, "x[max(step - window, 0) : max(step, 1)]", "x", test_series.test_a_trend_is_no_spike),
    "a spike lifts its own yardstick": Mutant(
        series.running, ": max(step, 1)]", ": step + 1]", test_series.test_the_running_median_is_of_the_steps_before
    ),
    "every step above the threshold is an event": Mutant(series.onsets, "> apart]", "> 0]", test_series.test_steps_close_to_each_other_are_one_event),
    "events are told from the first and not from the last step outside": Mutant(
        series.onsets,
        "return steps[np.diff(steps, prepend=-apart - 1) > apart]",
        "kept = []\n    for step in steps:\n        kept += [step] if not kept or step - kept[-1] > apart else []\n    return np.array(kept)",
        test_series.test_steps_close_to_each_other_are_one_event,
    ),
    "a lead has the wrong sign": Mutant(
        series.lead, "y[:, middle + k]", "y[:, middle - k]", partial(test_series.test_a_delay_is_found_with_its_sign, 7, 1)
    ),
    "an event is its own cause": Mutant(
        series.preceded, "near[step + 1 : step", "near[step : step", test_series.test_a_cause_comes_before_its_event_and_chance_is_told
    ),
    "a run that diverged is left out": Mutant(
        series.lr_sensitivity,
        "np.fmin(losses, start)",
        "np.array([loss for loss in losses if loss < start])",
        test_series.test_lr_sensitivity_is_the_mean_above_the_best,
    ),
    "a band of standard deviations": Mutant(series.band, " / len(rows) ** 0.5", "", test_series.test_events_are_laid_over_each_other),
    "a layer's norm is the sum of its tensors'": Mutant(
        monitor.GradientMonitor, '"grad": math.hypot(*norms)', '"grad": sum(norms)', rms_by_hand
    ),
    "a layer's RMS is the mean of its tensors'": Mutant(
        monitor.GradientMonitor,
        "math.hypot(*updates[0]) / math.sqrt(sum(sizes))",
        "sum(r / math.sqrt(n) for r, n in zip(updates[0], sizes)) / len(sizes)",
        rms_by_hand,
    ),
    "the RMS forgets the bias correction": Mutant(
        monitor.GradientMonitor, '1 - group["betas"][1] ** float(state["step"])', "1.0", rms_by_hand
    ),
    "the RMS is of the step before": Mutant(
        monitor.GradientMonitor, 'float(state["step"])', '(float(state["step"]) + 1)', rms_by_hand
    ),
    "the warm-up counts": Mutant(
        monitor.stability_report,
        "series.over_median(x)[warmup:] for layer, x in norms.items()",
        "series.over_median(x) for layer, x in norms.items()",
        test_monitor.test_the_report_of_a_run_worked_by_hand,
    ),
}

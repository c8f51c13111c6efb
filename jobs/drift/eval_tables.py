"""The tables of the kinds that evaluate: extractor, evaluation, waivers, nearest neighbours, contract audit."""

from __future__ import annotations

import pyarrow as pa


def _field(name: str, kind: pa.DataType, unit: str = "", *, may_miss: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=may_miss, metadata={"unit": unit} if unit else None)


EXTRACTOR_TABLE = pa.schema(
    [
        _field("profile", pa.string()),  # proxy: random weights; cached: trained ones
        _field("seed", pa.int64()),
        _field("feature_dim", pa.int64()),
        _field("classes", pa.int64()),
        _field("epochs", pa.int64()),  # 0: nothing was trained
        _field("loss", pa.float64(), "nats", may_miss=True),  # of the last epoch
        _field("accuracy_train", pa.float64(), may_miss=True),  # null: a random head knows no classes
        _field("accuracy_reference", pa.float64(), may_miss=True),
        _field("accuracy_held", pa.float64(), may_miss=True),
        _field("fid_held", pa.float64()),  # of held-out against reference images, all of them
        _field("extractor", pa.string()),  # digests from here on
        _field("contract", pa.string()),
        _field("reference", pa.string()),
        _field("reference_n", pa.int64()),
        _field("data", pa.string()),
    ],
    metadata={"lab.headline": "profile,seed,accuracy_train,accuracy_held,fid_held,contract"},
)

EVAL_TABLE = pa.schema(
    [
        # fid, is_mean, accuracy of the samples, and of held-out images fid_floor, is_floor, accuracy_floor; fid_matched
        # where there are more samples than held-out images: of as many samples.
        _field("metric", pa.string()),
        _field("value", pa.float64()),
        _field("std", pa.float64(), may_miss=True),  # over splits, the population's
        _field("n", pa.int64()),  # counted
        _field("n_unique", pa.int64()),  # of these, how many differ in content
        _field("n_reference", pa.int64()),
        _field("alpha", pa.float64(), may_miss=True),  # null: of real images
        _field("seed", pa.int64()),  # of sampling; of real images: of their choice
        _field("contract", pa.string()),  # digests
        _field("reference", pa.string()),
        _field("samples", pa.string()),
        _field("device_class", pa.string()),
        _field("control", pa.string()),  # "", untrained, held
        _field("profile", pa.string()),
        _field("extractor", pa.string()),
        _field("train", pa.string()),  # SHA-256 of the model's file, as the samples state it; "": of real images
        _field("leakage", pa.string()),  # none, shared, unchecked (no training was given)
        _field("waiver", pa.string()),  # the check that was relaxed; "": none
    ],
    metadata={"lab.headline": "metric,value,std,n,alpha,seed,control,device_class,waiver"},
)

WAIVER_TABLE = pa.schema(
    [
        _field("waiver", pa.string()),  # the parameter
        _field("gate", pa.string()),  # the check that it relaxes
        _field("found", pa.string()),  # what the check would have said
        _field("reason", pa.string()),  # the user's
        _field("extractor", pa.string()),
        _field("encoder", pa.string()),
    ],
)

NN_TABLE = pa.schema(
    [
        _field("which", pa.string()),  # samples, held
        _field("against", pa.string()),  # train
        _field("n", pa.int64()),
        _field("n_against", pa.int64()),
        _field("mean", pa.float64()),
        _field("median", pa.float64()),
        _field("p95", pa.float64()),
        _field("label_match", pa.float64()),
        _field("seed", pa.int64()),  # of the choice of subsets
        _field("copies", pa.int64()),  # equal to an image of the train split, byte for byte
        _field("samples", pa.string()),  # digests: of all samples, or of the held split
        _field("train", pa.string()),  # of the train split
        _field("alpha", pa.float64(), may_miss=True),
    ],
    metadata={"lab.headline": "which,against,n,n_against,mean,median,p95,label_match,copies"},
)

CONTRACT_TABLE = pa.schema(
    [
        _field("of", pa.string()),  # the input
        _field("check", pa.string()),
        _field("expected", pa.string()),
        _field("found", pa.string()),
        _field("passed", pa.bool_()),
    ],
    metadata={"lab.headline": "of,check,expected,found,passed"},
)

#!/usr/bin/env bash
# Fetch the packages that training needs and that a machine with PyTorch may lack into .wheels/, in the versions of
# constraints.txt, so that they can be carried to a GPU machine that reaches nothing: tests/gpu/check.py takes them from
# there. For Python 3.12 on Linux x86-64; PYTHON_VERSION=3.11 for another.
set -euo pipefail
cd "$(dirname "$0")/../.."
packages="pydantic pydantic_core annotated-types typing-inspection typing_extensions PyYAML threadpoolctl"
pins=$(for package in $packages; do grep -i "^$package==" constraints.txt; done)
rm -rf .wheels
# shellcheck disable=SC2086
"${PYTHON:-python3}" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
  --python-version "${PYTHON_VERSION:-3.12}" --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
  --platform manylinux2014_x86_64 --dest .wheels $pins
du -sh .wheels

"""What growing costs: AUG with many classifiers over one."""

from __future__ import annotations

import torch
from gpu.report import Setting
from gpu.shapes import BF16, FP32, batch_size, cremad_task, ready, seconds_of

MANY = 20


def measure_classifiers(setting: Setting) -> None:
    """Measure a training step and a prediction with 1 and with 20 classifiers of each modality."""
    task = cremad_task(setting, 1)
    for mode in (FP32,) if setting.quick else (BF16, FP32):
        steps, predictions = {}, {}
        for count in (1, MANY):
            with mode.on():
                given = dict.fromkeys(task.modalities, count)
                method, batch = ready(setting, "aug", task, mode.precision, classifiers=given, assign=False)
                steps[count] = seconds_of(setting, lambda m=method, b=batch: m.step(b), setting.seconds / 20)
                method.eval()
                with torch.no_grad():
                    call = lambda m=method, b=batch: m.predict(b.inputs)  # noqa: E731
                    predictions[count] = seconds_of(setting, call, setting.seconds / 20)
        for what, times in {"step": steps, "prediction": predictions}.items():
            remark = f"{batch_size(setting) / times[1]:.0f} samples/s with one"
            setting.note(f"{mode.name} {what}, {MANY} classifiers over 1", times[MANY] / times[1], remark=remark)

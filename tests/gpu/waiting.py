"""Methods whose steps make the host wait for the device, and why the paper's algorithm wants it."""

WAITS = {
    "remix": "puts batches together by which modality is least sure of a sample: the host must know how many there are",
    "smv": "trains again on what is worth little, so many times: the host must know how many samples that makes",
}

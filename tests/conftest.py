"""One thread: on small tensors and a busy machine PyTorch's threads wait for each other longer than they compute."""
import torch

torch.set_num_threads(1)
